"""PyTorch modules of quantum layers."""

from __future__ import annotations

from qcomp.nn.captured import capture
from qcomp.nn.layer import QuantumLayer
from qcomp.nn.onnx_export import translation_table
from qcomp.nn.qat import angle_step_of_error, finish_qat, prepare_qat
from qcomp.nn.recurrent import Recurrent, scan

__all__ = [
    "QuantumLayer",
    "Recurrent",
    "angle_step_of_error",
    "capture",
    "finish_qat",
    "prepare_qat",
    "scan",
    "translation_table",
]
