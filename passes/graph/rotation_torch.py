"""Rotations learned by gradients: Cayley steps on what rounding costs.

The network is given with every rotation the identity: gains of normalizations folded, online
products in place. Its constants turn as functions of the matrices R, what layers read and what a
cache would hold is rounded, and the loss is how far the outputs are from those in float:

    loss = mean KL(softmax y || softmax y^)         or  |y^ - y|^2 / |y|^2.

:meth:`RotationLearner.learn` descends on this loss. :meth:`RotationLearner.learn_scales` descends
on a model of it. Rounding errors are spread evenly over all directions of a place, whichever way it
is turned, so they cost what their power does:

    loss = sum over places of c_p E[s_p^2],       s_p = max |x R| of a token,

with c_p measured once, the loss with nothing rounded but p over E[s_p^2]. What a place reads in
float does not depend on rotations before it, so a step takes a product of some tokens with R.

With G = dloss / dR a step stays on the orthogonal matrices (a Cayley transform); its length is by
the mean square of W, as in Cayley ADAM:

    W = (G R^T - R G^T) / 2,   M <- mean of W,   v <- mean of |W|^2 / n,   a = rate / sqrt(v)
    R <- (I + a/2 M)^-1 (I - a/2 M) R

Rounding is x^ = x + s (round(x / s) - x / s) with the bracket held fixed, so that gradients reach
x as if nothing was rounded, and the scale s: smaller maxima make smaller errors.

Source: Liu et al. 2024, arXiv:2405.16406, sections 3.2 and 3.3; Li et al. 2020, arXiv:2002.01113
(Cayley SGD and ADAM; we solve the equation that they iterate). The model by scales is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from qcomp.passes.graph.hadamard import MatrixRotation
from qcomp.passes.graph.online_products import Step
from qcomp.passes.graph.rewriting import is_constant
from qcomp.passes.torch_graph import as_torch, import_torch, run_nodes

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Place", "Recipe", "RotationLearner", "rounded_channels", "rounded_tokens"]

Tensor = Any  # torch has no types here
Float64 = npt.NDArray[np.float64]
Feeds = Mapping[str, npt.NDArray[np.generic]]


_JUDGES = 2
"""Batches on which the cost of a place is measured."""

_TOKENS, _TAKEN = 8192, 256
"""Tokens that are held, and taken in a step, when scales are learned."""

_KEEP_W, _KEEP_V = 0.9, 0.99
"""What stays of the means of W and of its square in a step."""


_KEPT = 1 << 26
"""Numbers of float outputs that are kept: 256 MB."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How rotations are learned; see the options of ``learn-rotations``."""

    steps: int
    rate: float
    loss: Literal["divergence", "squares"]
    weights: int


@dataclass(frozen=True, slots=True)
class Place:
    """An input of an operator that is rounded.

    Attributes:
        node: The operator.
        index: Its input.
        axis: Along which a row has one scale.
        bits: Of the integers.
        offset: Whether rows have an offset of their own, as caches do.
        steps: How the rows turn.
    """

    node: ir.Node
    index: int
    axis: int
    bits: int
    offset: bool
    steps: tuple[Step, ...] = ()


def rounded_tokens(x: Tensor, bits: int, axis: int, offset: bool) -> Tensor:
    """x^ with a scale for each row along an axis, as ``quantize-tokens`` rounds."""
    torch = import_torch("learn-rotations")
    if offset:
        low = x.amin(axis, keepdim=True)
        s = (x.amax(axis, keepdim=True) - low) / ((1 << bits) - 1)
    else:
        low, s = 0.0, x.abs().amax(axis, keepdim=True) / ((1 << (bits - 1)) - 1)
    s = s.clamp_min(1e-20)
    steps = ((x - low) / s).detach()
    return x + s * (torch.round(steps) - steps)


def rounded_channels(w: Tensor, bits: int, axis: int) -> Tensor:
    """A weight rounded with a scale for each output channel; ``axis`` is the one of its inputs."""
    return rounded_tokens(w, bits, axis, offset=False)


class RotationLearner:
    """A network as a function of the rotations of its constants.

    Args:
        nodes: Of the network with identities for rotations, in order.
        steps: Constant -> how it turns; ``Step.rotation`` tells which matrix.
        starts: Rotation -> the matrix to begin with, float64[n, n], and whether R 1 = 1 stays.
        places: What is rounded.
        layers: Weights that are rounded as well (``Recipe.weights``) -> the axis of their inputs.
        outputs: Names of the outputs.
        recipe: Loss and steps.
    """

    def __init__(
        self,
        nodes: Sequence[ir.Node],
        steps: Mapping[ir.Value, Sequence[Step]],
        starts: Mapping[MatrixRotation, tuple[Float64, bool]],
        places: Sequence[Place],
        layers: Mapping[ir.Value, int],
        outputs: Sequence[str],
        recipe: Recipe,
    ) -> None:
        torch = import_torch("learn-rotations")
        self._torch, self._recipe = torch, recipe
        self._nodes, self._outputs = list(nodes), list(outputs)
        self._kept: dict[int, Mapping[str, Tensor]] = {}
        self._room = _KEPT
        self._layers = {value.name or "": axis for value, axis in layers.items()}
        constants = [v for node in nodes for v in node.inputs if v is not None and is_constant(v)]
        self._plain = {v.name or "": as_torch(v) for v in dict.fromkeys([*steps, *constants])}
        self._steps = {value.name or "": list(chain) for value, chain in steps.items()}
        self._inputs: dict[tuple[ir.Node, int], Callable[[Tensor], Tensor]] = {}
        shared: dict[tuple[object, ...], _Rounding] = {}
        self._turning: list[Place] = []
        for place in places:
            value = place.node.inputs[place.index]
            key = (value, place.axis, place.bits, place.offset)
            if key not in shared and place.steps:
                self._turning.append(place)
            rounding = shared.setdefault(key, _Rounding(place))
            self._inputs[place.node, place.index] = rounding
        # A matrix that keeps 1 turns the others of an orthonormal basis that begins with it.
        self._bases: dict[MatrixRotation, Tensor | None] = {}
        self._free: dict[MatrixRotation, Tensor] = {}
        for rotation, (matrix, keeps_ones) in starts.items():
            basis = _basis_behind_ones(len(matrix)) if keeps_ones else None
            free = matrix if basis is None else basis.T @ matrix @ basis
            self._bases[rotation] = None if basis is None else torch.from_numpy(basis)
            self._free[rotation] = torch.from_numpy(np.ascontiguousarray(free))

    def learn(self, batches: Sequence[Feeds]) -> None:
        """Descend on the loss of the whole network, a batch a step."""
        descent = _Descent(self._free, self._recipe)
        for step in range(self._recipe.steps):
            free = self._parameters()
            self._loss(batches[step % len(batches)], free).backward()
            descent.step(free)

    def learn_scales(self, batches: Sequence[Feeds]) -> None:
        """Descend on the squares of the scales, weighed by what they cost."""
        rows = self._rows(batches)
        costs = self._costs(rows, batches[:_JUDGES])
        descent = _Descent(self._free, self._recipe)
        for step in range(self._recipe.steps):
            free = self._parameters()
            whole, loss = self._whole(free), self._torch.zeros(())
            for place, x in rows.items():
                first = step * _TAKEN % len(x)
                scales = _scales(x[first : first + _TAKEN], place, whole)
                loss = loss + costs[place] * scales.square().mean()
            loss.backward()
            descent.step(free)

    def _parameters(self) -> dict[MatrixRotation, Tensor]:
        return {r: R.float().requires_grad_(True) for r, R in self._free.items()}

    def _rows(self, batches: Sequence[Feeds]) -> dict[Place, Tensor]:
        """What the places that turn read in float, float32[tokens, n]."""
        torch = self._torch
        found: dict[Place, list[Tensor]] = {place: [] for place in self._turning}
        for batch in batches:
            values = {**self._plain, **_tensors(batch, torch)}
            with torch.no_grad():
                run_nodes(self._nodes, values)
            for place, parts in found.items():
                value = place.node.inputs[place.index]
                x = values[(value.name if value is not None else "") or ""]
                parts.append(x.reshape(-1, x.shape[-1]))
            if all(sum(map(len, parts)) >= _TOKENS for parts in found.values()):
                break
        return {place: torch.cat(parts) for place, parts in found.items()}

    def _costs(self, rows: Mapping[Place, Tensor], batches: Sequence[Feeds]) -> dict[Place, float]:
        """What a place costs: c."""
        found = {}
        free = {r: R.float() for r, R in self._free.items()}
        every = self._inputs
        with self._torch.no_grad():
            whole = self._whole(free)
            for place, x in rows.items():
                only = every[place.node, place.index]
                self._inputs = {key: change for key, change in every.items() if change is only}
                loss = np.mean([self._loss(batch, free).item() for batch in batches])
                power = _scales(x, place, whole).square().mean().item()
                found[place] = float(loss) / max(power, 1e-30)
        self._inputs = every
        return found

    def judge(self, batches: Sequence[Feeds]) -> float:
        """The mean loss."""
        with self._torch.no_grad():
            free = {r: R.float() for r, R in self._free.items()}
            return float(np.mean([float(self._loss(batch, free)) for batch in batches]))

    def matrices(self) -> dict[MatrixRotation, Float64]:
        """The orthogonal matrices, float64[n, n]."""
        found: dict[MatrixRotation, Float64] = {}
        for rotation, R in self._free.items():
            left, _, right = np.linalg.svd(R.numpy())
            basis = self._bases[rotation]
            inner = left @ right
            if basis is None:
                found[rotation] = inner
            else:
                B = basis.numpy()
                found[rotation] = np.full((len(B), len(B)), 1 / len(B)) + B @ inner @ B.T
        return found

    def _loss(self, batch: Feeds, free: Mapping[MatrixRotation, Tensor]) -> Tensor:
        torch = self._torch
        feeds = _tensors(batch, torch)
        wanted = self._wanted(batch, feeds)
        got = {**self._turned(free), **feeds}
        run_nodes(self._nodes, got, keep=self._outputs, inputs=self._inputs)
        total = 0.0
        for name in self._outputs:
            y, y_ = wanted[name], got[name]
            if not y.is_floating_point():
                continue
            if self._recipe.loss == "divergence":
                p = torch.log_softmax(y, -1)
                total = total + (p.exp() * (p - torch.log_softmax(y_, -1))).sum(-1).mean()
            else:
                total = total + (y_ - y).square().sum() / y.square().sum().clamp_min(1e-30)
        return total

    def _wanted(self, batch: Feeds, feeds: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The outputs in float, kept as long as they are not too many."""
        if id(batch) in self._kept:
            return self._kept[id(batch)]
        values = {**self._plain, **feeds}
        with self._torch.no_grad():
            run_nodes(self._nodes, values, keep=self._outputs)
        wanted = {name: values[name] for name in self._outputs}
        self._room -= sum(y.numel() for y in wanted.values())
        if self._room > 0:
            self._kept[id(batch)] = wanted
        return wanted

    def _whole(self, free: Mapping[MatrixRotation, Tensor]) -> dict[object, Tensor]:
        """R of each rotation."""
        whole: dict[object, Tensor] = {}
        for rotation, R in free.items():
            basis = self._bases[rotation]
            if basis is None:
                whole[rotation] = R
            else:
                B = basis.float()
                whole[rotation] = 1 / len(B) + B @ R @ B.T
        return whole

    def _turned(self, free: Mapping[MatrixRotation, Tensor]) -> dict[str, Tensor]:
        whole = self._whole(free)
        found: dict[str, Tensor] = {}
        for name, plain in self._plain.items():
            w = plain
            for step in self._steps.get(name, ()):
                if step.rotation not in whole:
                    continue  # it turned already
                R = whole[step.rotation]
                w = _turn(w, step, R)
            bits, axis = self._recipe.weights, self._layers.get(name)
            found[name] = w if axis is None or not bits else rounded_channels(w, bits, axis)
        return found


def _tensors(batch: Feeds, torch: Tensor) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in batch.items()}


def _turn(w: Tensor, step: Step, R: Tensor) -> Tensor:
    """:meth:`Step.turned` for tensors."""
    moved = w.movedim(step.axis, -1)
    if step.part == "outer":
        made = R.T @ moved.reshape(*moved.shape[:-1], len(R), -1)
    else:
        made = moved.reshape(*moved.shape[:-1], -1, len(R)) @ R
    return made.reshape(moved.shape).movedim(-1, step.axis)


def _scales(x: Tensor, place: Place, whole: Mapping[object, Tensor]) -> Tensor:
    """The largest magnitude of each row behind its rotations."""
    for step in place.steps:
        if step.rotation in whole:
            x = _turn(x, step, whole[step.rotation])
    return x.abs().amax(-1)


class _Descent:
    """Cayley steps with momentum, their length by the mean square of W (Cayley ADAM).

    Args:
        free: The matrices; replaced in place.
        recipe: Number and length of the steps: the rate is the root mean square angle of the first
            one and falls to 0 by a cosine.
    """

    def __init__(self, free: dict[MatrixRotation, Tensor], recipe: Recipe) -> None:
        self._free, self._recipe, self._done = free, recipe, 0
        self._first = dict.fromkeys(free, 0.0)
        self._second = dict.fromkeys(free, 0.0)

    def step(self, at: Mapping[MatrixRotation, Tensor]) -> None:
        """Take one step by the gradients of ``at``."""
        torch = import_torch("learn-rotations")
        recipe = self._recipe
        rate = recipe.rate * 0.5 * (1 + np.cos(np.pi * self._done / recipe.steps))
        self._done += 1
        whole = [1 - keep**self._done for keep in (_KEEP_W, _KEEP_V)]
        for r, R in self._free.items():
            if at[r].grad is None:
                continue
            G = at[r].grad.double()
            W = 0.5 * (G @ R.T - R @ G.T)
            M = self._first[r] = _KEEP_W * self._first[r] + (1 - _KEEP_W) * W
            square = W.square().sum().item() / len(R)
            v = self._second[r] = _KEEP_V * self._second[r] + (1 - _KEEP_V) * square
            a = rate / whole[0] / max((v / whole[1]) ** 0.5, 1e-30)
            eye = torch.eye(len(R), dtype=torch.float64)
            self._free[r] = torch.linalg.solve(eye + a / 2 * M, (eye - a / 2 * M) @ R)


class _Rounding:
    """Rounds a tensor once for all that read it."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._last: tuple[Tensor, Tensor] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if self._last is None or self._last[0] is not x:
            place = self._place
            self._last = x, rounded_tokens(x, place.bits, place.axis, place.offset)
        return self._last[1]


def _basis_behind_ones(n: int) -> Float64:
    """Orthonormal columns [n, n - 1] with sum 0 each."""
    ones = np.ones((n, 1))
    q, _ = np.linalg.qr(np.concatenate([ones, np.eye(n)[:, 1:]], axis=1))
    return np.ascontiguousarray(q[:, 1:])
