"""PyTorch modules of quantum layers."""

from __future__ import annotations

from qcomp.nn.ansatz import efficient_su2
from qcomp.nn.captured import capture
from qcomp.nn.layer import QuantumLayer
from qcomp.nn.onnx_export import translation_table
from qcomp.nn.optimizers import minimize, train_layer
from qcomp.nn.patches import CircuitBank, Quanvolution, bank_circuit
from qcomp.nn.qat import angle_step_of_error, finish_qat, prepare_qat
from qcomp.nn.recurrent import Recurrent, scan

__all__ = [
    "CircuitBank",
    "QuantumLayer",
    "Quanvolution",
    "Recurrent",
    "angle_step_of_error",
    "bank_circuit",
    "capture",
    "efficient_su2",
    "finish_qat",
    "minimize",
    "prepare_qat",
    "scan",
    "train_layer",
    "translation_table",
]
