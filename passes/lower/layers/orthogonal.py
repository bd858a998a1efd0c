"""orthogonal: a matrix product as two pyramids of RBS gates and a scale between them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qcomp.constructions.unary import Givens, givens_of, rbs, unary_loader
from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.ir.observable import Observable
from qcomp.ir.program import Readout
from qcomp.passes.lower.layers.layer import Linear, linear_of
from qcomp.passes.lower.layers.method import Built, Method, Options, Run

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.passes.lower.layers.glue import Glue

__all__ = ["METHOD"]

WIDEST = 12
"""Modes of a circuit that the method takes by itself; a wider matrix goes in blocks."""

BLOCK = 8
"""Rows and columns of such a block."""


@dataclass(frozen=True, slots=True)
class _Block:
    """One block of the matrix: ``W = (U signs) diag(scale) (V signs)^T``."""

    first: Givens
    scale: NDArray[np.float64]
    second: Givens


def _refuse(node: ir.Node, options: Options) -> str:
    layer = linear_of(node)
    if isinstance(layer, str):
        return layer
    if options.block < 0 or options.block == 1:
        return f"blocks of {options.block} rows"
    return ""


def _lower(glue: Glue, node: ir.Node, options: Options) -> Built:
    """Write ``x -> U^T x``, the scale, and ``z -> V z``.

    Each circuit has one mode more: half of the amplitude stays there as a reference, and the
    expectation value of ``(X X + Y Y) / 2`` of it and mode i is amplitude i with its sign. The norm
    is taken out and put back by the graph. XX of all pairs is one measurement setting, YY another.
    """
    layer = linear_of(node)
    assert isinstance(layer, Linear)
    rows, columns = layer.weight.shape
    size = options.block or (max(rows, columns) if max(rows, columns) <= WIDEST else BLOCK)
    n, m = min(size, rows), min(size, columns)
    n, m = max(n, 2), max(m, 2)
    tall, wide = math.ceil(rows / n), math.ceil(columns / m)
    weight = np.zeros((tall * n, wide * m))
    weight[:rows, :columns] = layer.weight
    rank = min(n, m)
    blocks = [
        [_block(weight[i * n : (i + 1) * n, j * m : (j + 1) * m]) for i in range(tall)]
        for j in range(wide)
    ]
    x = layer.rows(glue)
    if tall * n > rows:
        x = glue.matmul(x, np.eye(rows, tall * n))
    x = glue.reshape(x, [-1, 1, tall, n])
    first = [[b.first.angles for b in row] for row in blocks]
    z, names = _pyramid(glue, x, first, blocks[0][0].first, n, rank, inverse=False)
    scale = np.array([[b.scale for b in row] for row in blocks])  # [wide, tall, rank]
    z = glue.mul(z, glue.constant(scale))
    second = [[b.second.angles for b in row] for row in blocks]
    y, more = _pyramid(glue, z, second, blocks[0][0].second, m, m, inverse=True)
    axes = glue.constant([2], np.int64)
    y = glue.op("ReduceSum", [y, axes], {"keepdims": 0})  # over the blocks of rows
    y = glue.reshape(y, [-1, wide * m])
    if wide * m > columns:
        y = glue.matmul(y, np.eye(wide * m, columns))
    count = tall * wide
    times = count * layer.times
    runs = (Run(names, times, 2), Run(more, times, 2))
    note = "" if count == 1 else f"{count} blocks of {n} x {m} are rows of the same two circuits"
    return Built(layer.output(glue, y), runs, remark=note)


def _block(weight: NDArray[np.float64]) -> _Block:
    u, s, vt = np.linalg.svd(weight, full_matrices=False)
    first, second = givens_of(u), givens_of(vt.T)
    return _Block(first, s * first.signs * second.signs, second)


def _pyramid(
    glue: Glue,
    x: ir.Value,
    angles: list[list[NDArray[np.float64]]],
    shape: Givens,
    modes: int,
    read: int,
    *,
    inverse: bool,
) -> tuple[ir.Value, str]:
    """Write norm, angles, the circuit and the norm again.

    Args:
        glue: Where to.
        x: [rows, blocks, blocks, width]; a width below ``modes`` leaves the others empty.
        angles: Of the pyramid of each block.
        shape: Where its rotations stand.
        modes: Modes of the pyramid.
        read: Amplitudes that are read.
        inverse: Whether the pyramid runs backwards.
    """
    width = shape.signs.size if inverse else modes
    names = [f"x{i}" for i in range(width - 1)] + [f"w{i}" for i in range(shape.angles.size)]
    circuit = Circuit(modes + 1, 0, names, name=glue.label("pyramid"))
    loader = [Parameter(name) for name in names[: width - 1]]
    turns = [Parameter(name) for name in names[width - 1 :]]
    wires = range(1, modes + 1)
    circuit.x(0)
    rbs(circuit, math.pi / 4, 0, 1)
    unary_loader(circuit, loader, wires[:width])
    (shape.append_inverse if inverse else shape.append)(circuit, wires, turns)
    norm = glue.norm(x)
    inputs = [_loader_angles(glue, x, width)]
    if turns:
        table = np.array(angles)
        single = table.shape[:2] == (1, 1)
        inputs.append(glue.constant(table[0, 0] if single else table))
    pairs = [Observable.parse(f"0.5*X0*X{i + 1} + 0.5*Y0*Y{i + 1}") for i in range(read)]
    out = glue.circuit(circuit, Readout("expval", tuple(pairs)), inputs)
    return glue.mul(out, norm), circuit.name


def _loader_angles(glue: Glue, x: ir.Value, width: int) -> ir.Value:
    """Return ``atan2(|x[i + 1 :]|, x[i])``, the last with its sign, [..., width - 1]."""
    tails = np.tril(np.ones((width, width)), -1)[:, : width - 2] if width > 2 else None
    last = np.eye(width)[:, -1:]
    sine = glue.matmul(x, last)
    if tails is not None:
        rest = glue.op("Sqrt", [glue.matmul(glue.mul(x, x), tails)])
        sine = glue.op("Concat", [rest, sine], {"axis": -1})
    return glue.angle(sine, glue.matmul(x, np.eye(width)[:, :-1]))


METHOD = Method(
    name="orthogonal",
    summary="a MatMul or Gemm by its singular values: two pyramids of RBS gates on unary states",
    restores="sign by a reference mode, norm in the graph",
    exact=True,
    options=("block",),
    refuse=_refuse,
    lower=_lower,
)
