"""GPTQ: integers for weights by error feedback, with the Hessian of the layer's output error.

    W^ = argmin ||W X - W^ X||^2,    column by column:    e_i = (w_i - q_i) / U_ii,
    W[:, i:] <- W[:, i:] - e_i U[i, i:],    H^-1 = U^T U,  H = 2 X X^T + damping mean(diag) I

(:mod:`qcomp.passes.quantize.error_feedback.columns`). X comes from the layers before as they are
quantized. ``order=activation`` rounds the columns of the largest diag(H) first, with the grids of
all groups fitted before ('static groups'); ``order=natural`` fits each group's grid on its turn, to
weights that have taken up the errors before it.

Preconditions: calibration data; ``quantize-weights`` or ``quantize-static`` behind it stores them.
Preserved: everything; the graph does not change.
Cost: a layer's K^3 / 1.5 + N K^2 multiplications, memory 3 K^2 doubles.
Source: Frantar et al. 2022, arXiv:2210.17323, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from qcomp.errors import UsageError
from qcomp.passes.quantize.error_feedback.columns import feed_back
from qcomp.passes.quantize.error_feedback.layerwise import ErrorFeedback, Problem
from qcomp.passes.quantize.error_feedback.rows import FactorKey
from qcomp.passes.quantize.grids import Grids

__all__ = ["Gptq"]


@dataclass(frozen=True)
class Gptq(ErrorFeedback):
    """Round weights with error feedback (GPTQ).

    Attributes:
        damping: Share of the mean of diag(H) that is added to it.
        order: Which columns go first: ``natural`` or ``activation``, the largest diag(H).
    """

    name: ClassVar[str] = "gptq"
    static_groups: ClassVar[bool] = False
    """Whether grids are fitted to the weights as they are in any order of columns."""

    damping: float = 0.01
    order: Literal["natural", "activation"] = "natural"

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        super().__post_init__()
        if not 0.0 < self.damping < 1.0:
            raise UsageError(f"{self.name}: damping lies between 0 and 1, not at {self.damping}")
        if self.order not in ("natural", "activation"):
            raise UsageError(
                f"{self.name}: order is '{self.order}'", hint="'natural' or 'activation'"
            )

    def factors(self) -> tuple[FactorKey, ...]:
        """The factor of the Hessian, with its columns in their order."""
        return ((self.damping, self.order == "activation"),)

    def _order(self, importance: npt.NDArray[np.float32]) -> npt.NDArray[np.intp] | None:
        """Which column goes first; None for as they come."""
        if self.order == "natural":
            return None
        return np.argsort(-importance, kind="stable")

    def choose(self, problem: Problem) -> tuple[npt.NDArray[np.uint8], Grids, str]:
        """Round one matrix; to nearest where its Hessian cannot be factored."""
        order = self._order(problem.importance)
        factor = problem.factor(self.damping, order)
        if factor is None:
            grids = problem.nearest
            return grids.round(problem.weight), grids, "its Hessian has no factor: rounded"
        warning = ""
        if factor.damping > self.damping:
            warning = f"its Hessian took a damping of {factor.damping:g} to have a factor"
        levels, grids = feed_back(
            problem.weight,
            factor,
            problem.nearest,
            importance=problem.importance,
            order=order,
            static=self.static_groups or order is not None,
            drift=problem.drift,
        )
        return levels, grids, warning
