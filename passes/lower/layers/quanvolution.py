"""quanvolution: each filter of a Conv as a small circuit over the image's patches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qcomp.ir.circuit import Circuit
from qcomp.ir.program import Readout
from qcomp.passes.lower.layers.amplitudes import (
    append_loader,
    load_angles,
    loaded_numbers,
    loader_size,
)
from qcomp.passes.lower.layers.layer import Linear, linear_of, only_squared
from qcomp.passes.lower.layers.method import Built, Method, Options, Run

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.passes.lower.layers.glue import Glue

__all__ = ["METHOD"]

WIDEST = 12
"""Qubits of a circuit."""


def _refuse(node: ir.Node, options: Options) -> str:
    layer = linear_of(node)
    if isinstance(layer, str):
        return layer if node.op_type == "Conv" else f"a {node.op_type} has no patches"
    if layer.windows is None:
        return f"a {node.op_type} has no patches"
    if loader_size(layer.weight.shape[0] + 1) > WIDEST:
        return f"patches of {layer.weight.shape[0]} numbers take more than {WIDEST} qubits"
    return ""


def _lower(glue: Glue, node: ir.Node, options: Options) -> Built:
    """Write ``p = |<0| L(w')^* L(x') |0>|^2`` of patches x and filters w, L the amplitude loader.

    With a component more, ``x' = (x / |x|, 1) / sqrt 2`` and w' alike, ``x.w = |x| |w| (2 sqrt p -
    1)`` with its sign. Where the graph only squares the output, the component is left out.
    """
    layer = linear_of(node)
    assert isinstance(layer, Linear)
    rows, columns = layer.weight.shape
    squared = layer.bias is None and only_squared(node) and rows > 1
    features = rows if squared else rows + 1
    n = loader_size(features)
    x = layer.rows(glue)
    norm = glue.norm(x)
    weight = layer.weight.T
    lengths = np.linalg.norm(weight, axis=1)
    given = x if squared else glue.op("Concat", [x, norm], {"axis": -1})
    vectors = weight if squared else np.concatenate([weight, lengths[:, None]], axis=1)
    angles = glue.reshape(load_angles(glue, given, features), [-1, 1, (1 << n) - 1])
    circuit, _ = append_loader(Circuit(n), features, range(n), "x")
    filters, _ = append_loader(Circuit(n), features, range(n), "w")
    circuit.params = (*circuit.params, *filters.params)
    circuit = circuit.compose(filters.inverse())
    circuit.name = glue.label("filter")
    shares = glue.circuit(
        circuit, Readout("probs"), [angles, glue.constant(loaded_numbers(vectors))]
    )
    first = glue.op("Gather", [shares, glue.constant(0, np.int64)], {"axis": -1})
    root = glue.root(glue.reshape(first, [-1, columns]))
    cosine = root if squared else glue.sub(glue.mul(root, 2.0), 1.0)
    y = glue.mul(glue.mul(cosine, norm), glue.constant(lengths))
    restores = "squared amplitudes only, which is what the graph reads; norm in the graph"
    return Built(
        layer.output(glue, y),
        (Run(circuit.name, columns * layer.times, 1),),
        restores=restores if squared else "",
        remark=f"{layer.times} patches, {columns} filters",
    )


METHOD = Method(
    name="quanvolution",
    summary="a Conv, each filter a small circuit that runs over the patches",
    restores="sign by a component more, norm in the graph",
    exact=True,
    options=(),
    refuse=_refuse,
    lower=_lower,
)
