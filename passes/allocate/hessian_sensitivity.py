"""How sensitive a model's output is to the bits of each tensor, by second derivatives.

| ``method``   | error of a tensor whose weights move by D          | figure of a tensor           |
|--------------|----------------------------------------------------|------------------------------|
| `eigenvalue` | 1/2 lambda_1(H_l) |D|^2: an upper bound            | lambda_1, by power iteration |
| `trace`      | 1/2 Tr(H_l) / n_l |D|^2: the mean over directions  | Tr(H_l) / n_l, by Hutchinson |
| `fisher`     | 1/2 sum_i F_i D_i^2: errors of weights independent | mean of F, squared gradients |

H_l is the Hessian of the output loss by the tensor, F its diagonal
(:mod:`qcomp.passes.allocate.curvature`); D is what rounding to nearest moves the weights by.

Preconditions: PyTorch, and operators that have gradients there; no circuits.
Preserved: everything; leaves a :class:`qcomp.sensitivity.Sensitivities` fact.
Cost: a backward pass and its own backward pass over ``rows`` samples: for each tensor and iteration
(eigenvalue), for each probe (trace); one backward pass a probe (fisher). In float64.
Source: Dong et al. 2019 (HAWQ), arXiv:1905.03696, equation 6; Dong et al. 2020 (HAWQ-V2),
arXiv:1911.03852, equation 8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from qcomp.errors import UsageError
from qcomp.passes.allocate.curvature import Curvature, Floats
from qcomp.passes.allocate.measure_sensitivity import TensorOptions, sampled_changes
from qcomp.passes.allocate.storage import Place
from qcomp.passes.analyze.output_loss import output_loss
from qcomp.passes.graph.rewriting import node_label
from qcomp.passmanager import Context
from qcomp.sensitivity import BitChoice, TensorSensitivity

if TYPE_CHECKING:
    from qcomp.ir.program import Program

__all__ = ["HessianSensitivity"]

_METHODS = ("eigenvalue", "trace", "fisher")


@dataclass(frozen=True)
class HessianSensitivity(TensorOptions):
    """Estimate what the outputs lose by bits from second derivatives.

    Attributes:
        method: ``eigenvalue``, ``trace`` or ``fisher``.
        iterations: Of power iteration, at most.
        probes: Random vectors of ``trace`` and ``fisher``.
        loss: ``kl``, ``squared``, or ``auto``: by what the outputs are.
    """

    name: ClassVar[str] = "hessian-sensitivity"

    method: Literal["eigenvalue", "trace", "fisher"] = "trace"
    iterations: int = 30
    probes: int = 16
    loss: Literal["auto", "kl", "squared"] = "auto"

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        super().__post_init__()
        if self.method not in _METHODS or self.loss not in ("auto", "kl", "squared"):
            raise UsageError(
                f"{self.name}: method is '{self.method}', loss is '{self.loss}'",
                hint=f"method is one of {', '.join(_METHODS)}; loss=auto, kl or squared",
            )
        if min(self.iterations, self.probes) < 1:
            raise UsageError(f"{self.name}: iterations and probes are at least 1")

    def run(self, program: Program, context: Context) -> bool:
        """Estimate; the program stays as it is.

        Raises:
            PassError: No calibration data, or an operator without a gradient.
            UsageError: PyTorch is not installed.
        """
        if self.skips(program, context):
            return False
        places = self.places(program, context)
        if not places:
            return False
        (feeds, *_) = chunks = self.data(program, context)
        losses = output_loss(program, self.loss)
        weights = list(dict.fromkeys(place.weight for place in places))
        curvature = Curvature(program, weights, feeds, losses, context.rng(self.name))
        found: dict[str, float] = {}
        diagonals: dict[str, Floats] = {}
        with context.progress.task(self.name, len(weights)) as task:
            if self.method == "fisher":
                diagonals = curvature.squared_gradients(self.probes)
                found = {name: float(f.mean()) for name, f in diagonals.items()}
            elif self.method == "trace":
                sizes = {place.weight.name or "": int(np.prod(place.shape)) for place in places}
                traces = curvature.traces(self.probes)
                found = {name: max(0.0, trace) / sizes[name] for name, trace in traces.items()}
            for value in weights:
                name = value.name or ""
                if self.method == "eigenvalue":
                    found[name] = curvature.eigenvalue(name, self.iterations)
                task.advance()
        tensors = [self._tensor(place, found, diagonals) for place in places]
        context.put(self.table(self.method, losses[0].unit, chunks[:1], tensors, context))
        return False

    def _tensor(
        self, place: Place, found: dict[str, float], diagonals: dict[str, Floats]
    ) -> TensorSensitivity:
        name = place.weight.name or ""
        changes, share, rows = sampled_changes(place, self, diagonals.get(name))
        times = 1.0 if place.table else self.feedback
        choices = []
        for way, change in zip(place.ways, changes, strict=True):
            weight = np.float64(found[name]) if rows is None else rows
            error = 0.5 * float((weight * change.astype(np.float64) ** 2).sum()) * share
            choices.append(BitChoice(way.bits, way.group, way.bytes, times * error))
        labels = tuple(node_label(node) for node in place.nodes)
        size, kind = int(np.prod(place.shape)), place.nodes[0].op_type
        return TensorSensitivity(name, labels, kind, size, tuple(choices), found[name])
