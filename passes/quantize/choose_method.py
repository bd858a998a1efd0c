"""Per layer, the method of rounding that measures the least output error, within a budget of work.

Every candidate rounds the layer behind the layers that are rounded already, and is judged by the
same figure, the squared output error against float's outputs

    E(W^) = ||W X~ - W^ X||^2 - ||W (X~ - X)||^2

(:func:`qcomp.passes.quantize.error_feedback.descent.output_errors`; X~ comes from the float model,
X from the layers before as they are rounded). Output channels that rounding to nearest serves
better keep it, whatever the method.

| method          | what it is                                            | work              |
|-----------------|-------------------------------------------------------|-------------------|
| `rounding`      | to nearest, on the grid of ``fit``                    | 48 N K            |
| `lsq`, `hqq`    | to nearest, on grids fitted by Lloyd, or to |.|^0.7   | 48, 144 N K       |
| `gptq`          | error feedback, columns as they come                  | K^3/1.5 + d N K^2 |
| `gptq-ordered`  | error feedback, the largest diag(H) first             | K^3/1.5 + d N K^2 |
| `gptaq`         | and against float's outputs                           | + 2 K^3           |
| `gptaq-ordered` | the same in that order                                | + 2 K^3           |
| `gpfq`          | greedy path following                                 | N K^2             |

d is 1 for the updates, 1 more for a descent at the end (``sweeps``) and 2 for each of its
``refits`` (:mod:`qcomp.passes.quantize.error_feedback.descent`). A unit of work is what ``gptq``
takes for the layer; ``budget`` units may be spent on each, so that the model takes as many times
GPTQ's work at most (the moments of the inputs, which all share, and ``rivals`` apart). Candidates
that would pass it are left out, cheap ones never. Nothing depends on the time that work takes: the
same data give the same choice.
``awq``, ``rotate`` and ``smooth-activations`` change the graph for all layers and stand before.

The least error of each layer is not the least of the model: what is nearer to float behind one
layer may be taken the wrong way by the next. So ``rivals`` round the whole model once more, a
method each, and of these and the choice layer by layer the one stays whose outputs are nearest to
float's on some rows that nothing was rounded on (16 are kept back, of 64 or more).

Preconditions: calibration data; ``quantize-weights`` or ``quantize-static`` behind it stores them.
Preserved: everything; the graph does not change.
Cost: above; a run of the float model beside the rounded one, memory as for ``gptaq``.
Source: ours; the methods are those of arXiv:2210.17323, arXiv:2504.02692 and arXiv:2201.11113.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from qcomp.errors import UsageError, suggest
from qcomp.execute import HybridSession
from qcomp.ir.program import Program
from qcomp.model_file import model_bytes
from qcomp.passes.analyze.output_loss import distance, output_loss
from qcomp.passes.calibrate.batches import checked_batches
from qcomp.passes.quantize.error_feedback.finished import Done
from qcomp.passes.quantize.error_feedback.layerwise import ErrorFeedback, Ready
from qcomp.passes.quantize.error_feedback.rows import (
    Problem,
    RoundedRows,
)
from qcomp.passes.quantize.gpfq import Gpfq
from qcomp.passes.quantize.gptaq import Gptaq
from qcomp.passes.quantize.gptq import Gptq
from qcomp.passes.quantize.grids import Grids
from qcomp.passmanager import Context
from qcomp.quantization import ChosenWeights, FeedbackErrors

__all__ = ["METHODS", "ChooseMethod"]

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

METHODS = (
    "rounding",
    "lsq",
    "hqq",
    "gptq",
    "gptq-ordered",
    "gptaq",
    "gptaq-ordered",
    "gpfq",
)
"""What may be chosen from."""

_LARGEST = 1 << 29
"""Bytes of float weights up to which whole models are compared."""

_JUDGED = 16
"""Samples that they are compared on."""

_ENOUGH = 48
"""Samples that have to be left to round weights on."""

_NEAREST = ("rounding", "lsq", "hqq")


@dataclass(frozen=True)
class _Nearest(ErrorFeedback):
    """Rounding to nearest as a method among others."""

    name: ClassVar[str] = "rounding"

    sweeps: int = 0
    refits: int = 0

    def choose(self, problem: Problem) -> tuple[Bytes, Grids, str]:
        """Round to nearest."""
        return problem.nearest.round(problem.weight), problem.nearest, ""


@dataclass(frozen=True)
class ChooseMethod(ErrorFeedback):
    """Round each layer by the method that measures the least output error.

    Attributes:
        methods: What is tried; ``rounding`` always is.
        budget: Units of work for each layer: times GPTQ's.
        rivals: Methods for the whole model that the outputs are compared with; none for none.
    """

    name: ClassVar[str] = "choose-method"
    asymmetric: ClassVar[bool] = True

    methods: tuple[str, ...] = ("lsq", "gptq-ordered", "gptaq-ordered", "gptaq")
    budget: float = 6.0
    rivals: tuple[str, ...] = ("gptq-ordered",)

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        super().__post_init__()
        for method in (*self.methods, *self.rivals):
            if method not in METHODS:
                raise UsageError(
                    f"choose-method: there is no method '{method}'", hint=suggest(method, METHODS)
                )
        if self.symmetric and "hqq" in (*self.methods, *self.rivals):
            raise UsageError(
                "choose-method: hqq moves zero points, which symmetric=true fixes",
                hint="leave it out",
            )
        if self.budget < 0:
            raise UsageError(f"choose-method: budget is at least 0, not {self.budget:g}")

    def run(self, program: Program, context: Context) -> bool:
        """Choose integers layer by layer, and against those of single methods.

        Raises:
            PassError: No calibration data, or a weight with NaN or infinity.
            UsageError: Data that does not fit the model, or bits that no layer can have.
        """
        if not self.rivals or context.calibration is None:
            return super().run(program, context)
        if program.circuits or model_bytes(program.model) > _LARGEST:
            return super().run(program, context)
        used, held = self._held_back(program, context)
        start = context.branch()
        replace(self, rows=used, rivals=()).run(program, context)
        before = start.get(ChosenWeights) or ChosenWeights()
        made = context.get(ChosenWeights) or ChosenWeights()
        if made.weights.keys() == before.weights.keys():
            return False
        judge = _Judge(program, held)
        least = judge.of(made)
        for method in self.rivals:
            rival = start.branch()
            replace(self._candidate(method), rows=used).run(program, rival)
            weights = rival.need(ChosenWeights, self.name)
            if (error := judge.of(weights)) < least:
                least = error
                said = f"{method} for all layers by choose-method"
                new = {
                    name: weight if name in before.weights else replace(weight, method=said)
                    for name, weight in weights.weights.items()
                }
                context.put(ChosenWeights(new))
                errors = rival.need(FeedbackErrors, self.name)
                context.put(replace(errors, method=errors.method.replace("gptq", self.name)))
        return False

    def _held_back(self, program: Program, context: Context) -> tuple[int, Mapping[str, Array]]:
        """How many samples weights are rounded on, and those behind them that judge.

        Of fewer samples than a judge would leave enough of, all do both.
        """
        assert context.calibration is not None
        batches = list(
            islice(
                checked_batches(program.model, context.calibration(), _JUDGED),
                -(-self.rows // _JUDGED) + 1,
            )
        )
        sizes = [max((a.shape[0] for a in f.values() if a.ndim), default=1) for f in batches]
        before = sum(sizes[:-1])
        if before < _ENOUGH:
            return self.rows, batches[0]
        return min(self.rows, before), batches[-1]

    def choose(self, problem: Problem) -> tuple[Bytes, Grids, str]:
        """Round to nearest: what is tried is tried layer by layer."""
        return problem.nearest.round(problem.weight), problem.nearest, ""

    def work(self, method: str, rows: int, columns: int) -> float:
        """Units of work that a method takes for a matrix of so many rows and columns."""
        passes = 2 + 2 * self.refits if self.sweeps else 1
        unit = columns**3 / 1.5 + passes * rows * columns**2
        if method in _NEAREST:
            return (144 if method == "hqq" else 48) * rows * columns / unit
        if method == "gpfq":
            return rows * columns**2 / unit
        return 1.0 + (2 * columns**3 / unit if method.startswith("gptaq") else 0.0)

    def tried(self, ready: Ready) -> Sequence[ErrorFeedback]:
        """The passes of the methods that the budget allows."""
        return [self._candidate(method) for method in self._allowed(ready)[0]]

    def _allowed(self, ready: Ready) -> tuple[list[str], list[str]]:
        """The methods that the budget allows for a layer, and those that it does not."""
        allowed: list[str] = []
        left_out: list[str] = []
        spent = 0.0
        for method in dict.fromkeys(("rounding", *self.methods)):
            work = self.work(method, *ready.shape)
            if spent + work > self.budget and method not in _NEAREST:
                left_out.append(method)
                continue
            spent += work
            allowed.append(method)
        return allowed, left_out

    def _result(self, ready: Ready, parts: Sequence[RoundedRows]) -> Done:
        """The method of the least error, of what became of a layer by each."""
        allowed, left_out = self._allowed(ready)
        size = len(ready.shared)
        made = {method: parts[i * size : (i + 1) * size] for i, method in enumerate(allowed)}
        errors = {method: sum(part.left for part in found) for method, found in made.items()}
        best = min(errors, key=errors.__getitem__)
        chosen, error, warning = super()._result(ready, made[best])
        return (
            replace(chosen, method=f"{best} by choose-method"),
            replace(error, rounded=errors["rounding"], tried=errors, left_out=tuple(left_out)),
            warning,
        )

    def _candidate(self, method: str) -> ErrorFeedback:
        """The pass that rounds by a method, with this one's options."""
        same = {f.name: getattr(self, f.name) for f in fields(ErrorFeedback)}
        if method in _NEAREST:
            fit = self.fit if method == "rounding" else method
            return _Nearest(**{**same, "fit": fit, "sweeps": 0, "refits": 0})
        if method == "gpfq":
            return Gpfq(**{**same, "sweeps": 0})
        kind = Gptaq if method.startswith("gptaq") else Gptq
        return kind(**same, order="activation" if method.endswith("-ordered") else "natural")


class _Judge:
    """Compares a model whose weights are rounded with float, by its outputs.

    Args:
        program: In float.
        feeds: Rows.
    """

    def __init__(self, program: Program, feeds: Mapping[str, Array]) -> None:
        self._program, self._feeds = program, feeds
        self._losses = output_loss(program, "auto")
        self._real = HybridSession(program).run(feeds)

    def of(self, chosen: ChosenWeights) -> float:
        """What the outputs lose by these integers."""
        import onnx_ir as ir

        model = self._program.model.clone()
        for name, weight in chosen.weights.items():
            value = model.graph.initializers.get(name)
            if value is not None:
                value.const_value = ir.tensor(weight.real(), name=name)
        program = Program(model, self._program.circuits, self._program.source)
        return distance(self._losses, self._real, HybridSession(program).run(self._feeds))
