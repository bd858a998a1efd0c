"""Quantization: from ranges and weights to integers."""
