"""GPFQ: integers for weights by greedy path following.

    q_t = Q( <X_t, u_{t-1} + w_t X~_t> / |X_t|^2 ),    u_t = u_{t-1} + w_t X~_t - q_t X_t

(:mod:`qcomp.passes.quantize.error_feedback.greedy_path`), X~ in float, X with the quantized layers
before. ``threshold=hard`` or ``soft`` puts small arguments of Q to 0 (hard) or moves all towards 0
(soft) by ``strength`` times the mean magnitude of the layer's weights: sparse weights.

Preconditions: calibration data; ``quantize-weights`` or ``quantize-static`` behind it stores them.
Preserved: everything; the graph does not change.
Cost: N K^2 multiplications a layer, a run of the float model beside the quantized one.
Source: Zhang, Zhou and Saab 2022, arXiv:2201.11113, sections 2 and 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from qcomp.errors import UsageError
from qcomp.passes.quantize.error_feedback.greedy_path import Threshold, follow_path
from qcomp.passes.quantize.error_feedback.layerwise import ErrorFeedback, Problem
from qcomp.passes.quantize.grids import Grids

__all__ = ["Gpfq"]


@dataclass(frozen=True)
class Gpfq(ErrorFeedback):
    """Round weights by greedy path following (GPFQ).

    Attributes:
        threshold: ``none``, ``hard`` or ``soft``: the sparse variants.
        strength: lambda over the mean magnitude of the layer's weights, for those.
    """

    name: ClassVar[str] = "gpfq"
    asymmetric: ClassVar[bool] = True

    sweeps: int = 0
    threshold: Threshold = "none"
    strength: float = 0.1

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        super().__post_init__()
        if self.threshold not in ("none", "hard", "soft"):
            raise UsageError(
                f"gpfq: threshold is '{self.threshold}'", hint="'none', 'hard' or 'soft'"
            )
        if self.strength < 0:
            raise UsageError(f"gpfq: strength is at least 0, not {self.strength}")

    def choose(self, problem: Problem) -> tuple[npt.NDArray[np.uint8], Grids, str]:
        """Round one matrix."""
        grids = problem.nearest
        mean = float(np.abs(problem.weight).mean()) if problem.mean is None else problem.mean
        strength = self.strength * mean
        levels = follow_path(
            problem.weight, problem.hessian, grids, problem.drift, self.threshold, strength
        )
        return levels, grids, ""
