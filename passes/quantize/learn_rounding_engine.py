"""Integers of the weights of one block, learned by gradient descent on its output.

For each weight W with scales s and zero points z,

    W_q = s (clip(floor(W / s) + h(V), lo, hi)),   h(V) = clip(1.2 sigmoid(V) - 0.1, 0, 1)
    loss = |f(W_q, x_q) - f(W, x)|^2 / |f(W_n, x_q) - f(W, x)|^2
           + lambda mean(1 - |2 h(V) - 1|^beta)

x is the block's input in float, x_q what the quantized layers before make of it, W_n the weight
rounded to nearest. beta falls from 20 to 2 after a fifth of the steps, so that h ends at 0 or 1.
With ``freedom=grid`` a weight is not bound to its two neighbours: W / s is learned itself, rounded
with a straight-through gradient. Scales may be learned beside either of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from qcomp.passes.quantize.learn_rounding_torch import TorchBlock
from qcomp.passes.torch_graph import import_torch
from qcomp.quantization import ChosenWeight

if TYPE_CHECKING:
    from qcomp.passes.quantize.learn_rounding_graph import Layer

__all__ = [
    "Grid",
    "Recipe",
    "Rows",
    "choose_grid",
    "chosen_weight",
    "distance",
    "hard_weights",
    "learn",
    "nearest",
]

Floats = npt.NDArray[np.float32]
Array = npt.NDArray[np.generic]
Tensor = Any  # torch has no types here

_SHRINKS = np.linspace(0.35, 1.05, 15)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a block is learned; see the options of ``learn-rounding``."""

    steps: int
    batch: int
    loss: Literal["mse", "lp", "cosine"]
    freedom: Literal["neighbours", "grid"]
    optimizer: Literal["adam", "adamw", "sgd"]
    rate: float
    scales: bool
    penalty: float


@dataclass(slots=True)
class Grid:
    """Scales and zero points of one weight in blocks.

    The weight is seen as float32[N, B, group]: rows that share nothing, then blocks, zeros at the
    end of the last one.

    Attributes:
        w: The weight so.
        scale: float32[N, B, 1].
        zero: float32[N, B, 1], integers.
        low: Lowest level.
        high: Highest level.
        back: From [N, B, group] to the weight's own shape.
    """

    w: Floats
    scale: Floats
    zero: Floats
    low: int
    high: int
    back: Callable[[Any], Any]

    def copy(self) -> Grid:
        """The same, to be changed."""
        return replace(self)

    def real(self, levels: Floats) -> Floats:
        """The weight that integers stand for."""
        found = self.back((levels - self.zero) * self.scale)
        return np.ascontiguousarray(found, np.float32)


def choose_grid(
    weight: Floats,
    axis: int,
    bits: int,
    group: int,
    symmetric: bool,
    signed_scales: bool,
    importance: Floats | None = None,
    searched: bool = True,
) -> Grid:
    """Search scales (and zero points) with the least squared error of the weight.

    Args:
        weight: Of a Conv, Gemm or MatMul.
        axis: Output channels.
        bits: 2 to 8.
        group: Weights that share a scale; 0 for a channel, -1 for all.
        symmetric: Whether there are no zero points.
        signed_scales: Whether a scale may be negative, so that either end can have the extra level.
        importance: Mean square of each input channel, float32[K]; it weighs the errors.
        searched: Whether scales are searched; else the largest value has the lowest or highest
            level, as quantizing passes have it.
    """
    moved = np.moveaxis(weight, axis, 0)
    rows = moved.reshape(1, -1) if group == -1 else moved.reshape(moved.shape[0], -1)
    shape, size = moved.shape, group
    if group > 0 and weight.ndim > 2:  # blocks along input channels, one for each kernel position
        rows = np.moveaxis(moved, 1, -1).reshape(-1, moved.shape[1])
    if group <= 0:
        size = rows.shape[1]
    count = -(-rows.shape[1] // size)
    w = np.pad(rows, ((0, 0), (0, count * size - rows.shape[1]))).reshape(-1, count, size)
    weights = np.ones_like(w)
    if importance is not None:
        spread = importance.reshape(1, -1, *[1] * (moved.ndim - 2))
        wide = np.broadcast_to(np.maximum(spread, 1e-3 * spread.mean() + 1e-30), moved.shape)
        if group > 0 and weight.ndim > 2:
            wide = np.moveaxis(wide, 1, -1)
        flat = wide.reshape(rows.shape)
        weights = np.pad(flat, ((0, 0), (0, count * size - rows.shape[1]))).reshape(w.shape)

    def back(x: Any) -> Any:  # an array or a tensor
        flat = x.reshape(x.shape[0], -1)[:, : rows.shape[1]]
        if group > 0 and weight.ndim > 2:
            inner = (shape[0], *shape[2:], shape[1])
            return (
                np.moveaxis(flat.reshape(inner), -1, 1)
                if isinstance(x, np.ndarray)
                else (flat.reshape(inner).movedim(-1, 1))
            )
        flat = flat.reshape(shape)
        return np.moveaxis(flat, 0, axis) if isinstance(x, np.ndarray) else flat.movedim(0, axis)

    half = 1 << (bits - 1)
    low, high = -half, half - 1
    if bits == 8 and symmetric and not signed_scales:
        low = -127
    scale, zero = _search(w, weights, low, high, symmetric, signed_scales, searched)
    return Grid(w, scale, zero, low, high, back)


def _search(
    w: Floats,
    weights: Floats,
    low: int,
    high: int,
    symmetric: bool,
    signed_scales: bool,
    searched: bool,
) -> tuple[Floats, Floats]:
    top, bottom = w.max(2, keepdims=True), w.min(2, keepdims=True)
    peak = np.maximum(top, -bottom)
    peak = np.where(peak > 0, peak, np.float32(1))
    sign = np.where(top > -bottom, -1.0, 1.0) if signed_scales else np.ones_like(peak)
    best = np.full(peak.shape, np.inf)
    scale, zero = peak / -low, np.zeros_like(peak)
    candidates: list[tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]] = []
    for shrink in _SHRINKS if searched else np.ones(1):
        if not symmetric:
            width = np.maximum(top, 0) - np.minimum(bottom, 0)
            step = np.where(width > 0, shrink * width / (high - low), 1.0)
            middle = shrink * (np.maximum(top, 0) + np.minimum(bottom, 0)) / 2
            for start in (shrink * np.minimum(bottom, 0), middle - (high - low) / 2 * step):
                candidates.append((step, np.clip(np.rint(low - start / step), low, high)))
            continue
        for levels in (-low, high) if searched else (-low if signed_scales else high,):
            candidates.append((sign * shrink * peak / levels, np.zeros_like(peak)))
    for step, point in candidates:
        q = np.clip(np.rint(w / step) + point, low, high) - point
        error = (weights * (w - q * step) ** 2).sum(2, keepdims=True)
        better = error < best
        best = np.where(better, error, best)
        scale, zero = np.where(better, step, scale), np.where(better, point, zero)
    return scale.astype(np.float32), zero.astype(np.float32)


def nearest(grid: Grid) -> Floats:
    """Integers rounded to nearest, [N, B, group]."""
    return np.clip(np.rint(grid.w / grid.scale) + grid.zero, grid.low, grid.high).astype(np.float32)


def chosen_weight(
    grid: Grid, levels: Floats, axis: int, group: int, symmetric: bool, bits: int, method: str
) -> ChosenWeight:
    """The integers as quantizing passes take them."""
    q = np.ascontiguousarray(grid.back(levels)).astype(np.int8)
    if group <= 0:
        dims: tuple[int, ...] = () if group == -1 else (q.shape[axis],)
        scale, zero = grid.scale.reshape(dims), grid.zero.reshape(dims)
        along, blocks = axis, None
    else:
        along, blocks = (1 - axis if q.ndim == 2 else 1), group
        if q.ndim == 2:
            scale, zero = (part[:, :, 0] for part in (grid.scale, grid.zero))
            if axis == 1:
                scale, zero = scale.T, zero.T
        else:
            inner = (q.shape[0], *q.shape[2:], -1)
            scale, zero = (
                np.moveaxis(part.reshape(inner), -1, 1) for part in (grid.scale, grid.zero)
            )
    points = None if symmetric else np.ascontiguousarray(zero).astype(np.int8)
    scales = np.asarray(np.ascontiguousarray(scale), np.float32).reshape(scale.shape)
    return ChosenWeight(q, scales, points, along, blocks, bits, method)


class Rows:
    """Inputs and targets of a block in PyTorch, with minibatches of random rows.

    Values that are the same in all chunks (shapes, tables) are handed on as they are. Where another
    value has no axis of rows, a minibatch is a chunk.

    Args:
        chunks: Values by name, chunk by chunk.
        target: Name of the block's result in float, chunk by chunk.
    """

    def __init__(self, chunks: Sequence[Mapping[str, Array]], target: Sequence[Array]) -> None:
        torch = import_torch("learn-rounding")
        self._torch = torch
        tensors = [
            {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in chunk.items()}
            for chunk in chunks
        ]
        self.target = [torch.from_numpy(np.ascontiguousarray(array)) for array in target]
        rows = [t.shape[0] if t.dim() else 0 for t in self.target]
        self._fixed: dict[str, Tensor] = {}
        self._mixed = len(set(rows)) == 1 and rows[0] > 0
        for name in tensors[0] if tensors else ():
            parts = [chunk[name] for chunk in tensors]
            same = all(p.shape == parts[0].shape and torch.equal(p, parts[0]) for p in parts[1:])
            if same and len(parts) > 1:
                self._fixed[name] = parts[0]
            elif any(not p.dim() or p.shape[0] != n for p, n in zip(parts, rows, strict=True)):
                self._mixed = False
        self.chunks = tensors
        self._all: dict[str, Tensor] = {}
        if self._mixed:
            names = [name for name in tensors[0] if name not in self._fixed]
            self._all = {name: torch.cat([chunk[name] for chunk in tensors]) for name in names}
            self._goal = torch.cat(self.target)
            self.chunks = [
                {**self._fixed, **{n: self._all[n][i : i + rows[0]] for n in names}}
                for i in range(0, len(self._goal), rows[0])
            ]

    def draw(self, count: int, rng: np.random.Generator) -> tuple[dict[str, Tensor], Tensor]:
        """A minibatch of ``count`` rows (a chunk where rows cannot be mixed), and its target."""
        if not self._mixed:
            index = int(rng.integers(len(self.chunks)))
            return dict(self.chunks[index]), self.target[index]
        whole = len(self.target[0]) if self._shaped() else count
        order = rng.permutation(len(self._goal))[:whole]
        picked = self._torch.from_numpy(order)
        taken = {name: tensor[picked] for name, tensor in self._all.items()}
        return {**self._fixed, **taken}, self._goal[picked]

    def _shaped(self) -> bool:
        """Whether values hold lengths, so that every minibatch has to be as long as a chunk."""
        return any(not t.is_floating_point() and t.dim() <= 1 for t in self._fixed.values())


def learn(
    block: TorchBlock,
    output: str,
    layers: Sequence[Layer],
    grids: Sequence[Grid],
    rows: Rows,
    recipe: Recipe,
    rng: np.random.Generator,
    behind: int = 0,
) -> list[Floats]:
    """Learn the integers of a block; scales of the grids change where they are learned too.

    Args:
        block: Its nodes.
        output: Name of its result.
        layers: Its weights.
        grids: Where they start.
        rows: What it reads, and its result in float.
        recipe: How.
        rng: Draws the rows.
        behind: Bits that the result is rounded to, a scale a token, for a second term of the loss:
            the result is then one that this rounding, which the next layer sees, changes little.
            0 for none.

    Returns:
        Levels of each grid, [N, B, group].
    """
    torch = import_torch("learn-rounding")
    soft = [_Soft(grid, recipe, torch) for grid in grids]
    base = distance(block, output, layers, [nearest(g) for g in grids], grids, rows, recipe)
    base = max(base, 1e-30)
    groups = [{"params": [s.free for s in soft], "lr": recipe.rate}]
    if recipe.scales:
        groups.append({"params": [s.stretch for s in soft], "lr": 0.02 * recipe.rate})
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    optimizer = kinds[recipe.optimizer](groups)
    count = sum(s.free.numel() for s in soft)
    warm = recipe.steps // 5
    for step in range(recipe.steps):
        values, goal = rows.draw(recipe.batch, rng)
        for layer, s in zip(layers, soft, strict=True):
            real = s.grid.back(s.real(recipe))
            for place, flip in layer.places:
                values[place.name or ""] = real.T if flip else real
        y = block.run(values)[output]
        loss = _loss(y, goal, recipe.loss, torch) / base
        if behind:
            loss = loss + _loss(_rounded(y, behind, torch), goal, recipe.loss, torch) / base
        if recipe.freedom == "neighbours" and step >= warm:
            done = (step - warm) / max(1, recipe.steps - warm)
            beta = 20.0 - 18.0 * done
            open_ = sum((1.0 - (2.0 * s.up() - 1.0).abs().pow(beta)).sum() for s in soft)
            loss = loss + recipe.penalty * open_ / count
        for part in optimizer.param_groups:
            first = recipe.rate if part is optimizer.param_groups[0] else 0.02 * recipe.rate
            part["lr"] = first * 0.5 * (1.0 + float(np.cos(np.pi * step / recipe.steps)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    levels = []
    for s in soft:
        s.settle()
        levels.append(s.levels(recipe))
    return levels


class _Soft:
    """The learned parts of one weight."""

    def __init__(self, grid: Grid, recipe: Recipe, torch: Any) -> None:
        self.grid, self._torch = grid, torch
        self.w, self.scale, self.zero = (
            torch.from_numpy(np.ascontiguousarray(part)) for part in (grid.w, grid.scale, grid.zero)
        )
        steps = self.w / self.scale
        self.floor = torch.floor(steps)
        rest = steps - self.floor
        if recipe.freedom == "grid":
            self.free = steps.clone().requires_grad_(True)
        else:
            p = ((rest + 0.1) / 1.2).clamp(1e-4, 1 - 1e-4)
            self.free = torch.log(p / (1 - p)).requires_grad_(True)
        self.stretch = torch.zeros_like(self.scale).requires_grad_(recipe.scales)

    def up(self) -> Tensor:
        """h(V)."""
        return (1.2 * self._torch.sigmoid(self.free) - 0.1).clamp(0.0, 1.0)

    def real(self, recipe: Recipe) -> Tensor:
        """The weight that the next step computes with."""
        torch, grid = self._torch, self.grid
        if recipe.freedom == "grid":
            steps = self.free + (torch.round(self.free) - self.free).detach()
        else:
            steps = self.floor + self.up()
        levels = (steps + self.zero).clamp(grid.low, grid.high) - self.zero
        return levels * self.scale * torch.exp(self.stretch)

    def levels(self, recipe: Recipe) -> Floats:
        """The integers in the end."""
        grid, torch = self.grid, self._torch
        with torch.no_grad():
            if recipe.freedom == "grid":
                steps = torch.round(self.free)
            else:
                steps = self.floor + (self.up() >= 0.5)
            return np.asarray((steps + self.zero).clamp(grid.low, grid.high).numpy(), np.float32)

    def settle(self) -> None:
        """Write learned scales into the grid."""
        with self._torch.no_grad():
            self.grid.scale = (self.scale * self._torch.exp(self.stretch)).numpy()


def _rounded(y: Tensor, bits: int, torch: Any) -> Tensor:
    """Rounded with a scale a token; gradients pass straight through."""
    top = float((1 << (bits - 1)) - 1)
    scale = y.detach().abs().amax(dim=-1, keepdim=True).clamp(min=1e-30) / top
    return y + (torch.round(y / scale) * scale - y).detach()


def _loss(y: Tensor, goal: Tensor, kind: str, torch: Any) -> Tensor:
    error = y - goal
    if kind == "lp":
        return error.abs().pow(2.4).mean()
    if kind == "cosine":
        flat, other = y.reshape(len(y), -1), goal.reshape(len(goal), -1)
        return (1.0 - torch.nn.functional.cosine_similarity(flat, other, dim=1)).mean()
    return error.pow(2).mean()


def distance(
    block: TorchBlock,
    output: str,
    layers: Sequence[Layer],
    levels: Sequence[Floats],
    grids: Sequence[Grid],
    rows: Rows,
    recipe: Recipe | None = None,
) -> float:
    """Mean loss of integers over all chunks; the squared error without a recipe."""
    torch = import_torch("learn-rounding")
    real = [grid.real(q) for grid, q in zip(grids, levels, strict=True)]
    weights = hard_weights(layers, real, torch)
    loss = "mse" if recipe is None else recipe.loss
    total = 0.0
    with torch.no_grad():
        for chunk, goal in zip(rows.chunks, rows.target, strict=True):
            total += float(_loss(block.run({**chunk, **weights})[output], goal, loss, torch))
    return total / max(1, len(rows.chunks))


def hard_weights(layers: Sequence[Layer], real: Sequence[Floats], torch: Any) -> dict[str, Tensor]:
    """Weights by the names that they have in the twin."""
    weights = {}
    for layer, w in zip(layers, real, strict=True):
        for place, flip in layer.places:
            weights[place.name or ""] = torch.from_numpy(np.array(w.T if flip else w))
    return weights
