"""Rotations learned for rounded activations, folded into weights: SpinQuant.

    min over R_1 ... R_4  of  loss(float outputs, outputs with rounded activations, keys, values)

R_1 turns the residual stream, R_2 the values of each attention's heads: both are folded into
weights. R_4 turns what a down-projection reads and R_3 queries and keys, while the graph runs, by
dense products with small matrices that need not be Hadamard's: they are learned as well, at no
cost for the graph (ours; ``factors=false`` is the paper's choice). All begin as ``rotate`` draws
them and move by Cayley steps (:mod:`qcomp.passes.graph.rotation_torch`). What is folded, what is
refused and what is checked is what :mod:`qcomp.passes.graph.rotate` says of itself: the function
stays.

Activations are rounded with a scale a token, keys and values with a scale and an offset a token
and head, as ``quantize-tokens`` does it behind this pass. Weights stay in float while rotations are
learned, since error feedback (``gptq``) chooses their integers afterwards; ``weights=4`` rounds
them to nearest meanwhile, with ``method=loss``.

The loss is the divergence of the outputs' distributions from those in float (the paper: cross
entropy on the next token), so labels are not needed; ``loss=squares`` is for outputs that are no
logits. ``method=loss`` descends on it, as the paper does; ``method=scales`` on the squares of the
tokens' scales, each place weighed by what its rounding costs: a third of the time, and better on
our decoder. It descends on what layers read alone: keys and values turn with the rotations that
they share with layers, R_3 stays a Hadamard matrix, and ``kv`` counts only where the result is
judged; ``method=loss`` descends on them too. A quarter of the samples is not learned on: where the
learned rotations are not better on them, those that the search began with stay, and a warning says
so.

Preconditions: calibration data; PyTorch; ``fold-constants`` and ``take-apart`` ran; before
``calibrate``.
Preserved: the function, up to float32 rounding of the weights; products are taken in float64.
Cost: with ``loss`` every step is a run forward and back through the network on ``batch`` samples;
with ``scales`` products of 256 tokens with R. Memory: the values of a batch in the network, and
8,192 tokens of what layers read.
Source: Liu et al. 2024, arXiv:2405.16406, section 3 (we read the abstract and the authors' code).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from qcomp.errors import PassError, UsageError
from qcomp.passes.calibrate.batches import checked_batches
from qcomp.passes.graph.hadamard import MatrixRotation, Rotation, has_hadamard, no_size
from qcomp.passes.graph.online_products import Step
from qcomp.passes.graph.residual_stream import reduced_axis
from qcomp.passes.graph.rewriting import constant_tensor, int_attribute
from qcomp.passes.graph.rotate import Rotate
from qcomp.passes.graph.rotation_torch import Place, Recipe, RotationLearner
from qcomp.passes.graph.turning import Draw, Draws, Turner
from qcomp.passes.graph.written_attention import kept_value, written_attentions
from qcomp.passes.torch_graph import import_torch, untranslated
from qcomp.passmanager import Context
from qcomp.quantization import rules_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.program import Program
    from qcomp.node_rules import NodeRules

__all__ = ["LearnRotations", "LearnedRotations"]

Float64 = npt.NDArray[np.float64]
Starts = dict[MatrixRotation, tuple[Float64, bool]]
"""Rotation -> its matrix, and whether it keeps the vector of ones."""

_METHODS = ("scales", "loss")

_HELD = 4
"""One batch in so many is kept back to judge."""


@dataclass(frozen=True)
class LearnRotations(Rotate):
    """Learn the rotations of stream and heads on the quantized network (SpinQuant).

    Attributes:
        bits: Of activations while learning: 4 or 8; 0 leaves them in float.
        kv: Of keys and values: 4, 8 or 0.
        weights: Of weights: 0 leaves them in float.
        method: What is descended on: ``scales``, or the ``loss`` of the whole network (the
            paper's; ``steps=400,rate=0.01``).
        factors: Whether what turns while the graph runs is learned, too; else Hadamard matrices.
        steps: Cayley steps; 0 leaves everything at Hadamard matrices.
        rate: Root mean square angle of the first step; it falls to 0 by a cosine.
        rows: Calibration samples, a quarter of them to judge.
        batch: Samples a step.
        loss: ``divergence`` of logits, or ``squares`` of other outputs.
    """

    name: ClassVar[str] = "learn-rotations"

    online: bool = True
    keys: bool = True
    bits: int = 4
    kv: int = 4
    weights: int = 0
    method: Literal["scales", "loss"] = "scales"
    factors: bool = True
    steps: int = 800
    rate: float = 0.02
    rows: int = 128
    batch: int = 8
    loss: Literal["divergence", "squares"] = "divergence"

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        for option in ("bits", "kv", "weights"):
            if getattr(self, option) not in (0, *range(2, 9)):
                raise UsageError(
                    f"{self.name}: {option} is {getattr(self, option)}", hint="2 to 8, or 0: float"
                )
        if not (self.bits or self.kv or self.weights):
            raise UsageError(f"{self.name}: nothing is rounded", hint="bits=4 or kv=4")
        if self.steps < 0 or min(self.rows, self.batch) < 1 or not self.rate > 0.0:
            raise UsageError(
                f"{self.name}: an option is too small",
                hint="steps >= 0, rows and batch >= 1, rate > 0",
            )
        for option, allowed in (("loss", ("divergence", "squares")), ("method", _METHODS)):
            if getattr(self, option) not in allowed:
                raise UsageError(
                    f"{self.name}: {option} is '{getattr(self, option)}'", hint=" or ".join(allowed)
                )
        if self.method == "scales" and not self.bits:
            raise UsageError(
                f"{self.name}: the scales of activations that stay in float cost nothing",
                hint="bits=4, or method=loss",
            )
        if self.method == "scales" and self.weights:
            raise UsageError(
                f"{self.name}: scales are those of activations, weights={self.weights} has none",
                hint="method=loss, or leave 'weights' out",
            )

    def draws(self, program: Program, context: Context, done: Collection[tuple[str, str]]) -> Draws:
        """The learned matrices, in the order in which they are asked for."""
        torch = import_torch(self.name)
        if context.calibration is None:
            raise PassError(f"{self.name} has no calibration data", hint="--calib data.npz")
        form = program.copy()
        inner = Context(seed=context.seed)
        inner.put(rules_of(context))
        work = Turner(form.model, inner, set(done), self.name)
        kinds = [_Start(context, f"rotate.{kind}") for kind in ("stream", "heads")]
        kinds.append(_Start(context, None, self.factors))
        self.turn(work, Draws(*(kind.draw for kind in kinds)))
        starts = {r: start for kind in kinds for r, start in kind.found.items()}
        if starts and self.steps:
            threads = torch.get_num_threads()
            torch.set_num_threads(1)  # sums have one order
            try:
                starts = self._learned(program, form, work, inner, starts, context)
            finally:
                torch.set_num_threads(threads)
        return Draws(*(kind.learned(starts) for kind in kinds))

    def _learned(
        self,
        program: Program,
        form: Program,
        work: Turner,
        inner: Context,
        starts: Starts,
        context: Context,
    ) -> Starts:
        """Matrices in place of those to start with, for the same rotations."""
        nodes = list(form.model.graph)
        missing = untranslated(nodes)
        if missing:
            kind, label = next(iter(missing.items()))
            raise PassError(
                f"{self.name}: {', '.join(missing)} has no gradient here",
                where=label,
                why=f"the network as a whole is learned on, {kind} is part of it",
                hint="'rotate' turns the network by Hadamard matrices without learning",
            )
        places, layers = self._places(form.model.graph, rules_of(inner), work.steps)
        if not places and not layers:
            context.warn(f"{self.name}: no layer is rounded: nothing is learned")
            return starts
        recipe = Recipe(self.steps, self.rate, self.loss, self.weights)
        outputs = [value.name or "" for value in form.model.graph.outputs]
        learner = RotationLearner(nodes, work.steps, starts, places, layers, outputs, recipe)
        batches, left = [], self.rows
        assert context.calibration is not None
        for feeds in checked_batches(program.model, context.calibration(), self.batch):
            batches.append(feeds)
            left -= self.batch
            if left <= 0:
                break
        judged = batches[_HELD - 1 :: _HELD] or batches
        before = learner.judge(judged)
        learned_on = [b for i, b in enumerate(batches) if i % _HELD != _HELD - 1]
        (learner.learn if self.method == "loss" else learner.learn_scales)(learned_on)
        after = learner.judge(judged)
        context.put(LearnedRotations(before, after))
        if not after < before:
            context.warn(
                f"{self.name}: learned rotations lose {after:.3g} on samples held back, those to"
                f" start with {before:.3g}: the latter stay"
            )
            return starts
        return {r: (matrix, starts[r][1]) for r, matrix in learner.matrices().items()}

    def _places(
        self, graph: ir.Graph, rules: NodeRules, steps: Mapping[ir.Value, tuple[Step, ...]]
    ) -> tuple[list[Place], dict[ir.Value, int]]:
        """What is rounded while learning: inputs of layers, caches, and weights."""
        places: list[Place] = []
        layers: dict[ir.Value, int] = {}
        for node in graph:
            weight = node.inputs[1] if len(node.inputs) > 1 else None
            if node.domain or node.op_type not in ("Gemm", "MatMul") or weight is None:
                continue
            tensor = constant_tensor(weight)
            if tensor is None or len(tensor.shape) != 2 or int_attribute(node, "transA"):
                continue
            if rules.options(node).excluded:
                continue
            if self.bits:
                inner = reduced_axis(node)
                turns = tuple(
                    replace(step, axis=-1) for step in steps.get(weight, ()) if step.axis == inner
                )
                places.append(Place(node, 0, -1, self.bits, offset=False, steps=turns))
            if self.weights:
                layers[weight] = reduced_axis(node)
        for attention in written_attentions(graph) if self.kv else ():
            for keys, node in ((True, attention.scores), (False, attention.mixed)):
                if not rules.options(node).excluded:
                    kept = kept_value(node, keys)
                    places.append(Place(kept.reader, kept.index, kept.axis, self.kv, offset=True))
        return places, layers


@dataclass(frozen=True, slots=True)
class LearnedRotations:
    """What learning did.

    Attributes:
        before: Loss on samples held back of the rotations that the search began with.
        after: Of the learned ones.
    """

    before: float
    after: float


class _Start:
    """Identities that stand for rotations, with the matrices to begin with."""

    def __init__(self, context: Context, kind: str | None, free: bool = True) -> None:
        self._context = context
        self._free = free
        self._rng = None if kind is None else context.rng(kind)
        self.found: Starts = {}

    def draw(self, what: str, n: int, keeps_ones: bool) -> MatrixRotation | None:
        """The identity in place of the next rotation; online ones begin as Hadamard matrices."""
        if self._rng is None and not has_hadamard(n):
            return None
        if not self._free:
            return MatrixRotation(Rotation(np.ones(n)).matrix())
        if self._rng is None:
            start = Rotation(np.ones(n)).matrix()
        elif has_hadamard(n):
            start = Rotation.random(n, self._rng, keeps_ones=keeps_ones).matrix()
        else:
            start = _random_orthogonal(n, self._rng, keeps_ones)
        rotation = MatrixRotation(np.eye(n))
        self.found[rotation] = (start, keeps_ones)
        return rotation

    def learned(self, matrices: Starts) -> Draw:
        """What gives the matrices in the order in which :meth:`draw` was asked."""
        left = iter(self.found)

        def draw(what: str, n: int, keeps_ones: bool) -> MatrixRotation | None:
            if self._rng is None and not has_hadamard(n):
                self._context.warn(f"learn-rotations: {no_size(what, n)}")
                return None
            if not self._free:
                return self.draw(what, n, keeps_ones)
            return MatrixRotation(matrices[next(left)][0])

        return draw


def _random_orthogonal(n: int, rng: np.random.Generator, keeps_ones: bool) -> Float64:
    """An orthogonal matrix of a size that has no Hadamard matrix."""
    q, r = np.linalg.qr(rng.standard_normal((n, n)))
    made: Float64 = q * np.sign(np.diag(r))
    if not keeps_ones:
        return made
    w = made.sum(axis=0) - 1.0  # the reflection that takes R^T 1 to 1
    return made - np.outer(made @ w, 2.0 / float(w @ w) * w)
