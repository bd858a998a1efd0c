"""GPTAQ (GPTQv2): error feedback that also makes good what quantized predecessors did.

    W^ = argmin ||W X~ - W^ X||^2

with X~ the layer's input in the float model and X with its predecessors quantized. To GPTQ's update
comes + w_i P[i, i:],  P = triu(D U^T, 1) U,  D = (X~ - X) X^T
(:mod:`qcomp.passes.quantize.error_feedback.columns`).

Preconditions: calibration data; ``quantize-weights`` or ``quantize-static`` behind it stores them.
Preserved: everything; the graph does not change.
Cost: GPTQ's, a second run of the model (in float), and 2 K^3 multiplications a layer.
Source: Li et al. 2025, arXiv:2504.02692, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from qcomp.passes.quantize.gptq import Gptq

__all__ = ["Gptaq"]


@dataclass(frozen=True)
class Gptaq(Gptq):
    """Round weights with error feedback against float's outputs (GPTAQ)."""

    name: ClassVar[str] = "gptaq"
    asymmetric: ClassVar[bool] = True
