"""PyTorch modules of quantum layers."""

from __future__ import annotations

from qcomp.nn.layer import QuantumLayer
from qcomp.nn.onnx_export import translation_table

__all__ = ["QuantumLayer", "translation_table"]
