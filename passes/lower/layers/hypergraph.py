"""hypergraph: a product with weights of one size and any sign, of inputs 1 and -1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qcomp.constructions.multiplexers import gray_code, multiplexed_rotation, walsh
from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.ir.program import Readout
from qcomp.passes.graph.rewriting import constant_array
from qcomp.passes.lower.layers.layer import Linear, linear_of, only_squared
from qcomp.passes.lower.layers.method import Built, Method, Options, Run

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.passes.lower.layers.glue import Glue

__all__ = ["METHOD"]

WIDEST = 10
"""Qubits of a circuit."""


def _refuse(node: ir.Node, options: Options) -> str:
    layer = linear_of(node)
    if isinstance(layer, str):
        return layer
    sizes = np.abs(layer.weight)
    if not (sizes == sizes[:1]).all() or not sizes.all():
        return "its weights are no signs: in a column all have to be c or -c"
    if layer.windows is not None and any(layer.windows.pads):
        return "its padding is zeros, which are no signs"
    if not _is_binary(layer.data):
        return "its inputs are no signs: no Sign, and no Where of 1 and -1, makes them"
    if (2 * layer.weight.shape[0] - 1).bit_length() > WIDEST:
        return f"{layer.weight.shape[0]} inputs take more than {WIDEST} qubits"
    return ""


def _is_binary(value: ir.Value) -> bool:
    maker = value.producer()
    if maker is None:
        return False
    if maker.op_type in ("Flatten", "Reshape", "Identity", "Cast"):
        first = maker.inputs[0]
        return first is not None and _is_binary(first)
    if maker.op_type == "Where":
        parts = [constant_array(part) for part in maker.inputs[1:]]
        return all(part is not None and bool((np.abs(part) == 1).all()) for part in parts)
    return bool(maker.op_type == "Sign")


def _lower(glue: Glue, node: ir.Node, options: Options) -> Built:
    """Write ``H^N, D(i * w), H^N`` and the probability ``p = |i.w / m|^2`` of |0...0>.

    Inputs and weights are padded by P ones to m = 2^N. With P at least the number of inputs the sum
    is not negative, so ``i.w = m sqrt p - P`` with its sign. The diagonal of signs is RZ and CX by
    a Gray code, so one circuit serves all inputs and weights.
    """
    layer = linear_of(node)
    assert isinstance(layer, Linear)
    rows, columns = layer.weight.shape
    squared = only_squared(node) and layer.bias is None and not rows & (rows - 1) and rows > 1
    n = max(1, (rows if squared else 2 * rows) - 1).bit_length()
    size = 1 << n
    signs = np.ones((columns, size))
    signs[:, :rows] = np.sign(layer.weight.T)
    scale = np.abs(layer.weight[0])
    x = layer.rows(glue)
    x = glue.matmul(x, np.eye(rows, size))
    if size > rows:
        ones = np.zeros(size)
        ones[rows:] = 1.0
        x = glue.add(x, glue.constant(ones))
    product = glue.mul(glue.reshape(x, [-1, 1, size]), glue.constant(signs))
    # phases pi (1 - s) / 2; what is left of the constant 1 is a global phase
    angles = glue.mul(glue.matmul(product, _rotations(n)), -np.pi / 2)
    circuit = Circuit(n, 0, [f"z{j}" for j in range(size - 1)], name=glue.label("perceptron"))
    for wire in range(n):
        circuit.h(wire)
    start = 0
    for k in range(n - 1, -1, -1):
        slots = [Parameter(f"z{j}") for j in range(start, start + (1 << k))]
        multiplexed_rotation(circuit, "z", slots, range(k), k)
        start += 1 << k
    for wire in range(n):
        circuit.h(wire)
    shares = glue.circuit(circuit, Readout("probs"), [angles])
    first = glue.reshape(glue.matmul(shares, np.eye(size, 1)), [-1, columns])
    total = glue.mul(glue.root(first), float(size))
    y = total if size == rows else glue.sub(total, float(size - rows))
    y = glue.mul(y, glue.constant(scale))
    restores = "squared amplitudes only, which is what the graph reads"
    return Built(
        layer.output(glue, y),
        (Run(circuit.name, columns * layer.times, 1),),
        restores=restores if squared else "",
        remark="exact for inputs 1 and -1; an input of 0 is a phase of pi / 2",
    )


def _rotations(n: int) -> NDArray[np.float64]:
    """Return what takes 2^n signs to the RZ of :func:`diagonal`, float64[2^n, 2^n - 1]."""
    weights = walsh(np.eye(1 << n))  # [x, parity]
    parts = [-2.0 * weights[:, (1 << k) : (2 << k)][:, gray_code(k)] for k in range(n - 1, -1, -1)]
    return np.concatenate(parts, axis=1)


METHOD = Method(
    name="hypergraph",
    summary="a MatMul or Gemm of signs (binary weights behind a Sign): hypergraph states",
    restores="sign by padding with ones",
    exact=True,
    options=(),
    refuse=_refuse,
    lower=_lower,
)
