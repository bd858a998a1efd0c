"""From model graphs to quantum circuits and quantized kernels."""
