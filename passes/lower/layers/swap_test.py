"""swap-test: each output of a matrix product as the overlap of two amplitude-encoded vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qcomp.constructions.swap_test import append_swap_test, bell_signs
from qcomp.ir.circuit import Circuit
from qcomp.ir.observable import Observable
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

WIDEST = 10
"""Qubits of a register; the Bell form reads 4^n probabilities."""

FORMS = ("", "bell", "ancilla")


def _refuse(node: ir.Node, options: Options) -> str:
    layer = linear_of(node)
    if isinstance(layer, str):
        return layer
    if options.form not in FORMS:
        return f"it has no form '{options.form}': bell or ancilla"
    if loader_size(layer.weight.shape[0] + 1) > WIDEST:
        return f"{layer.weight.shape[0]} inputs take registers of more than {WIDEST} qubits"
    return ""


def _lower(glue: Glue, node: ir.Node, options: Options) -> Built:
    """Write ``p = |<x'|w'>|^2`` for each output and what is made of it.

    With a component more, ``x' = (x / |x|, 1) / sqrt 2`` and w' alike, the overlap is
    ``(cos + 1) / 2 >= 0``, so ``x.w = |x| |w| (2 sqrt p - 1)`` with its sign. Where the graph only
    squares the output, ``|x.w| = |x| |w| sqrt p`` is enough, and the component is left out.
    """
    layer = linear_of(node)
    assert isinstance(layer, Linear)
    rows, columns = layer.weight.shape
    squared = layer.bias is None and only_squared(node)
    features = max(2, rows) if squared else rows + 1
    n = loader_size(features)
    x = layer.rows(glue)
    norm = glue.norm(x)
    weight = layer.weight.T
    lengths = np.linalg.norm(weight, axis=1)
    if squared:
        given = x if rows == features else glue.matmul(x, np.eye(rows, features))
        vectors = np.pad(weight, ((0, 0), (0, features - rows)))
    else:
        given = glue.op("Concat", [x, norm], {"axis": -1})
        vectors = np.concatenate([weight, lengths[:, None]], axis=1)
    angles = glue.reshape(load_angles(glue, given, features), [-1, 1, (1 << n) - 1])
    form = options.form or "bell"
    circuit = Circuit(2 * n + (form == "ancilla"), name=glue.label("overlap"))
    circuit, _ = append_loader(circuit, features, range(n), "x")
    circuit, _ = append_loader(circuit, features, range(n, 2 * n), "w")
    append_swap_test(circuit, range(n), range(n, 2 * n), 2 * n if form == "ancilla" else None)
    circuit.name = glue.label("overlap")
    trained = loaded_numbers(vectors)
    inputs = [angles, glue.constant(trained[0] if columns == 1 else trained)]
    if form == "ancilla":
        readout = Readout("expval", (Observable.z(2 * n),))
        overlap = glue.circuit(circuit, readout, inputs)
    else:
        shares = glue.circuit(circuit, Readout("probs"), inputs)
        overlap = glue.matmul(shares, bell_signs(n)[:, None])
    root = glue.root(glue.reshape(overlap, [-1, columns]))
    cosine = root if squared else glue.sub(glue.mul(root, 2.0), 1.0)
    y = glue.mul(glue.mul(cosine, norm), glue.constant(lengths))
    restores = "squared amplitudes only, which is what the graph reads; norm in the graph"
    return Built(
        layer.output(glue, y),
        (Run(circuit.name, columns * layer.times, 1),),
        restores=restores if squared else "",
        remark=f"swap tests in the form '{form}'",
    )


METHOD = Method(
    name="swap-test",
    summary="a MatMul or Gemm, each output by a swap test of amplitude-encoded vectors",
    restores="sign by a component more, norm in the graph",
    exact=True,
    options=("form",),
    refuse=_refuse,
    lower=_lower,
)
