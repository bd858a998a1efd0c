"""A change A B of low rank in every weight, for what rounded activations and merged channels cost.

With x~ the input of a layer W in the float program and x its input in the program that was changed,
W' there, all activations rounded by token and all layers before corrected,

    A B = argmin over rank r of || x~ W - x (W' + A B) ||^2 + damping mean(diag H) ||A B||^2

has a closed form: with H = x^T x, G = x^T x~, R R^T = H + damping mean(diag H) I and the singular
values of R^-1 (G W - H W') = U S V^T,

    A = R^-T U_r S_r,     B = V_r^T.

A quarter of the rows is kept back: a layer that does not gain on them stays as it is.

Cost: one run of both programs; K^3 and N K^2 multiplications a layer, memory 4 K^2 doubles.
Source: Liu et al. 2023, arXiv:2310.08041 (QLLM), section 4.2. Ours: the closed form of reduced-rank
regression (Izenman 1975) on each layer's output in place of gradient steps on blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from qcomp.ir.program import Program
from qcomp.ir.shapes import infer_shapes
from qcomp.passes.calibrate.quotient_search import matrix
from qcomp.passes.calibrate.quotients import inner_axis
from qcomp.passes.graph.rewriting import Editor, node_label, read_weight
from qcomp.passes.quantize.learn_rounding_graph import Stream
from qcomp.passes.quantize.token_scales import TokenScales

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["LowRank", "low_rank_changes"]

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

_LEARNED = 0.75
"""Share of the rows that a change is found on."""


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """The change of one weight.

    Attributes:
        left: A, float32[K, r].
        right: B, float32[r, N].
        gain: Decibels of the layer's output on the rows that were kept back.
    """

    left: Floats
    right: Floats
    gain: float

    def added(self, W: Floats) -> Floats:
        """W + A B of [K, N]."""
        return W + self.left @ self.right


@dataclass(slots=True)
class _Moments:
    """Sums over rows: of outputs y = x~ W only their square is needed.

    Attributes:
        inner: H float64[K', K'].
        cross: G float64[K', K].
        floats: x~^T x~ float64[K, K].
    """

    inner: Doubles
    cross: Doubles
    floats: Doubles

    @staticmethod
    def of(changed: int, source: int) -> _Moments:
        """No rows yet."""
        shapes = ((changed, changed), (changed, source), (source, source))
        return _Moments(*(np.zeros(shape) for shape in shapes))

    def add(self, x: Floats, floats: Floats) -> None:
        """Take in rows of both programs."""
        self.inner += x.T @ x
        self.cross += x.T @ floats
        self.floats += floats.T @ floats

    def error(self, W: Floats, changed: Floats) -> float:
        """``|| x~ W - x W' ||^2``."""
        total = np.einsum("kn,kn->", W, self.floats @ W) - 2 * np.einsum(
            "kn,kn->", changed, self.cross @ W
        )
        return float(total + np.einsum("kn,kn->", changed, self.inner @ changed))


def low_rank_changes(
    program: Program,
    original: Program,
    layers: Mapping[str, ir.TensorProtocol],
    chunks: Sequence[Mapping[str, Array]],
    *,
    tokens: int,
    rank: int,
    damping: float,
) -> dict[str, LowRank]:
    """Return the changes of the layers that gain, by name.

    Args:
        program: What was changed; it stays as it is.
        original: The float program, whose layers have the same names.
        layers: Names of MatMul and Gemm in the order of the graph, with the weights W that give
            the outputs that they should have.
        chunks: Calibration data.
        tokens: Bits that activations are rounded to.
        rank: r.
        damping: Share of the mean of diag(H) that holds changes back.
    """
    model = program.model.clone()
    twin = Program(model, program.circuits, program.source)
    nodes = {node_label(node): node for node in model.graph}
    sources = {node_label(node): node for node in original.model.graph}
    editor = Editor(model)
    scales = TokenScales(editor, tokens)
    groups: dict[ir.Value, list[str]] = {}
    rounded: dict[ir.Value, ir.Value] = {}
    for name in layers:
        node = nodes[name]
        x = node.inputs[0]
        assert x is not None
        if x not in rounded:
            pair = scales.add(x, node)
            made = editor.node("Mul", pair, name=f"{x.name}_token_Mul", before=node)
            rounded[x] = made.outputs[0]
        node.replace_input_with(0, rounded[x])
        groups.setdefault(rounded[x], []).append(name)
    infer_shapes(twin)
    streams = [Stream(twin, chunks, ()), Stream(original, chunks, ())]
    found: dict[str, LowRank] = {}
    for value, names in groups.items():
        source = sources[names[0]].inputs[0]
        assert source is not None
        inputs = [value, source]
        for stream, wanted in zip(streams, inputs, strict=True):
            targets = [] if wanted.producer() is None else [wanted]
            stream.run(stream.part(stream.missing(targets), targets))
        learned, kept = _moments(streams, [wanted.name or "" for wanted in inputs])
        for name in names:
            flip = inner_axis(nodes[name]) == 1
            with read_weight(layers[name]) as stored:
                W = np.array(stored.T if flip else stored, np.float32)
            changed = matrix(nodes[name]).T
            change = _change(W, changed, learned, kept, rank, damping)
            weight = nodes[name].inputs[1]
            assert weight is not None
            if change is not None and len(list(weight.uses())) == 1:
                found[name] = change
                _put(weight, change, flip=flip)
    return found


def _moments(streams: Sequence[Stream], names: Sequence[str]) -> tuple[_Moments, _Moments]:
    """Moments of the rows that changes are found on, and of those that are kept back."""
    found: tuple[_Moments, _Moments] | None = None
    for chunks in zip(*(stream.chunks for stream in streams), strict=True):
        x, floats = (
            np.asarray(chunk[name], np.float32).reshape(-1, np.asarray(chunk[name]).shape[-1])
            for chunk, name in zip(chunks, names, strict=True)
        )
        if found is None:
            widths = x.shape[1], floats.shape[1]
            found = _Moments.of(*widths), _Moments.of(*widths)
        cut = int(_LEARNED * len(x))
        found[0].add(x[:cut], floats[:cut])
        found[1].add(x[cut:], floats[cut:])
    assert found is not None
    return found


def _change(
    W: Floats, changed: Floats, learned: _Moments, kept: _Moments, rank: int, damping: float
) -> LowRank | None:
    """The change of one layer, None where it does not gain."""
    import scipy.linalg

    H = learned.inner
    mean = float(np.trace(H)) / len(H)
    if not np.isfinite(mean) or mean <= 0 or not np.isfinite(learned.cross).all():
        return None
    try:
        R = np.linalg.cholesky(H + damping * mean * np.eye(len(H)))
    except np.linalg.LinAlgError:
        return None
    left = learned.cross @ W - H @ changed
    U, S, V = scipy.linalg.svd(
        scipy.linalg.solve_triangular(R, left, lower=True), full_matrices=False
    )
    A = scipy.linalg.solve_triangular(R, U[:, :rank] * S[:rank], lower=True, trans="T")
    change = LowRank(A.astype(np.float32), V[:rank].astype(np.float32), 0.0)
    before, after = kept.error(W, changed), kept.error(W, change.added(changed))
    if not 0 <= after < before:
        return None
    gain = float(10.0 * np.log10(before / max(after, 1e-300)))
    return LowRank(change.left, change.right, gain)


def _put(value: ir.Value, change: LowRank, *, flip: bool) -> None:
    """Let a weight of the twin be the changed one, computed when it is needed."""
    import onnx_ir as ir

    before = value.const_value
    assert before is not None

    def compute() -> ir.TensorProtocol:
        W = np.asarray(before.numpy(), np.float32)
        made = change.added(W.T if flip else W)
        return ir.tensor(np.ascontiguousarray(made.T if flip else made), name=value.name)

    shape = ir.Shape(before.shape.numpy())
    value.const_value = ir.LazyTensor(compute, dtype=before.dtype, shape=shape, name=value.name)
