"""hadamard: a Conv as scales between two Walsh-Hadamard transforms, which are circuits or adds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qcomp.constructions.multiplexers import walsh
from qcomp.ir.circuit import Circuit
from qcomp.ir.program import Readout
from qcomp.passes.lower.layers.amplitudes import append_loader, load_angles
from qcomp.passes.lower.layers.layer import Linear, linear_of, only_squared
from qcomp.passes.lower.layers.method import Built, Method, Options, Run

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.passes.lower.layers.glue import Glue

__all__ = ["METHOD", "fit_frequencies"]

Array = NDArray[np.float64]

WIDEST = 12
"""Qubits of a circuit, the reference among them."""

FORMS = ("", "circuit", "adds")


def _refuse(node: ir.Node, options: Options) -> str:
    layer = linear_of(node)
    if isinstance(layer, str):
        return layer
    if options.form not in FORMS:
        return f"it has no form '{options.form}': circuit or adds"
    if layer.windows is None:
        if _factor(layer.weight) is None:
            return "its matrix is no Walsh-Hadamard matrix, c (-1)^popcount(i & j) of 2^n rows"
        size = len(layer.weight)
    else:
        if layer.windows.out != layer.windows.size:
            return "its output is not of its input's size, so it is no product of frequencies"
        size = int(np.prod(_padded(layer.windows.size)))
    if options.form != "adds" and size.bit_length() > WIDEST:
        return f"{size} numbers take more than {WIDEST} qubits; the form 'adds' takes them"
    return ""


def _padded(size: tuple[int, ...]) -> tuple[int, ...]:
    """Return axes of 2^n, together at least 2."""
    wide = [1 << (n - 1).bit_length() for n in size]
    return (*wide[:-1], max(wide[-1], 2))


def _factor(weight: Array) -> float | None:
    """Return c where a matrix is c times the Walsh-Hadamard matrix of Sylvester's order."""
    size = len(weight)
    if size < 2 or size & (size - 1) or weight.shape != (size, size) or not weight[0, 0]:
        return None
    factor = float(weight[0, 0])
    wanted = factor * size * walsh(np.eye(size))
    return factor if np.abs(weight - wanted).max() <= 1e-6 * abs(factor) else None


def _lower(glue: Glue, node: ir.Node, options: Options) -> Built:
    """Write ``y = H (M_k (H x)_k) / N`` of a Conv, or ``c H x`` of a MatMul that is a transform.

    A product of frequencies is a convolution over the XOR of places, ``sum_j a[j] x[i ^ j]``, in
    place of the one over their differences. What M_k are fits best is computed from data.
    """
    layer = linear_of(node)
    assert isinstance(layer, Linear)
    if layer.windows is not None:
        return _conv(glue, layer, options)
    factor = _factor(layer.weight)
    assert factor is not None
    squared = layer.bias is None and only_squared(node)
    y, runs = _transform(glue, layer.rows(glue), len(layer.weight), options, 1, squared=squared)
    restores = "squared amplitudes only, which is what the graph reads; norm in the graph"
    return Built(
        layer.output(glue, glue.mul(y, factor)),
        runs,
        restores=restores if squared and runs else "",
        remark="" if runs else _ADDS,
        exact=True,
    )


_ADDS = "additions and subtractions by butterflies, no products"


def _conv(glue: Glue, layer: Linear, options: Options) -> Built:
    assert layer.windows is not None
    size, wide = layer.windows.size, _padded(layer.windows.size)
    axes, total = len(size), int(np.prod(wide))
    channels, out = layer.windows.channels, layer.weight.shape[1]
    seen = glue.data(layer.data)
    matrices, error = fit_frequencies(layer, wide, seen)
    x = glue.double(layer.data)
    if wide != size:
        more = [w - n for w, n in zip(wide, size, strict=True)]
        x = glue.op("Pad", [x, glue.constant([0] * (axes + 4) + more, np.int64)])
    first, runs = _transform(glue, glue.reshape(x, [-1, total]), total, options, channels)
    first = glue.reshape(first, [-1, channels, total])
    first = glue.op("Transpose", [first], {"perm": [2, 0, 1]})
    mixed = glue.op("MatMul", [first, glue.constant(matrices / total)])
    mixed = glue.op("Transpose", [mixed], {"perm": [1, 2, 0]})
    y, more_runs = _transform(glue, glue.reshape(mixed, [-1, total]), total, options, out)
    y = glue.reshape(y, [-1, out, *wide])
    if wide != size:
        places = [glue.constant(v, np.int64) for v in ([0] * axes, size, range(2, axes + 2))]
        y = glue.op("Slice", [y, *places])
    if layer.bias is not None:
        y = glue.add(y, glue.constant(layer.bias.reshape(-1, *[1] * axes)))
    to = "the calibration data" if seen is not None else "white noise, as there is no data"
    note = f"A fit to {to}: the relative error of its output is {error:.2g}"
    if error > 0.01:
        note += ", the least that scales can have: train the model on, or take another method"
    return Built(
        y,
        runs + more_runs,
        remark=note if runs else f"{note}; {_ADDS} but the scales",
        exact=error < 1e-9,
    )


def fit_frequencies(
    layer: Linear, wide: tuple[int, ...], images: Array | None
) -> tuple[Array, float]:
    """Return the best M_k of ``y_k = x_k M_k``, and how far it is from the convolution.

    Least squares for each frequency k of the Walsh-Hadamard transform, over rows of data; without
    data what white noise would give, the diagonal blocks ``h_k^T A h_k`` of the layer's matrix.

    Args:
        layer: A convolution.
        wide: Its image's axes, padded to powers of two.
        images: float64[rows, channels, ...]; None without data.

    Returns:
        (float64[N, channels, out], the relative error of the outputs, 0 for none).
    """
    windows = layer.windows
    assert windows is not None
    total, channels = int(np.prod(wide)), windows.channels
    if images is None:
        count = channels * int(np.prod(windows.size))
        images = np.eye(count).reshape(count, channels, *windows.size)
    frame = [(0, 0), (0, 0)]
    axes = len(windows.size)
    pads = [(windows.pads[i], windows.pads[axes + i]) for i in range(axes)]
    rows = np.pad(images, frame + pads).reshape(len(images), -1)[:, windows.places]
    outputs = np.moveaxis(rows @ layer.weight, -1, 1).reshape(len(images), -1, *windows.size)
    more = [(0, w - n) for w, n in zip(wide, windows.size, strict=True)]
    x = walsh(np.pad(images, frame + more).reshape(len(images), channels, total)) * total
    y = walsh(np.pad(outputs, frame + more).reshape(len(images), -1, total)) * total
    given, wanted = np.moveaxis(x, -1, 0), np.moveaxis(y, -1, 0)  # [N, rows, channels]
    gram = np.swapaxes(given, 1, 2) @ given
    ridge = 1e-12 * np.trace(gram, axis1=1, axis2=2) / channels + 1e-300
    gram += ridge[:, None, None] * np.eye(channels)
    found = np.linalg.solve(gram, np.swapaxes(given, 1, 2) @ wanted)
    power = float((wanted**2).sum())
    left = float(((given @ found - wanted) ** 2).sum())
    return np.asarray(found, np.float64), float(np.sqrt(left / power)) if power else 0.0


def _transform(
    glue: Glue, x: ir.Value, size: int, options: Options, times: int, *, squared: bool = False
) -> tuple[ir.Value, tuple[Run, ...]]:
    """Write ``H x`` of rows [rows, N], its entries 1 and -1; ``|H x|`` where only that is read.

    The circuit has the state ``(|0> x / |x| + |1> e_0) / sqrt 2`` and H on all qubits, so the share
    of (0, k) less that of (1, k) is ``(H x)_k / (N |x|)``, with its sign.
    """
    if options.form == "adds":
        half = 1
        while half < size:
            pairs = glue.reshape(x, [-1, 2, half])
            a = glue.op("Gather", [pairs, glue.constant([0], np.int64)], {"axis": 1})
            b = glue.op("Gather", [pairs, glue.constant([1], np.int64)], {"axis": 1})
            x = glue.op("Concat", [glue.add(a, b), glue.sub(a, b)], {"axis": 1})
            half *= 2
        return glue.reshape(x, [-1, size]), ()
    n = size.bit_length() - 1
    norm = glue.norm(x)
    wires = n if squared else n + 1
    features = size if squared else size + 1
    given = x if squared else glue.op("Concat", [x, norm], {"axis": -1})
    circuit = Circuit(wires, name=glue.label("hadamard"))
    circuit, _ = append_loader(circuit, features, range(wires), "x")
    for wire in range(wires):
        circuit.h(wire)
    circuit.name = glue.label("hadamard")
    shares = glue.circuit(circuit, Readout("probs"), [load_angles(glue, given, features)])
    if squared:
        y = glue.mul(glue.root(glue.mul(shares, float(size))), norm)
    else:
        low, high = (
            glue.op("Gather", [shares, glue.constant(np.arange(size) + start, np.int64)],
                    {"axis": -1})
            for start in (0, size)
        )  # fmt: skip
        y = glue.mul(glue.mul(glue.sub(low, high), float(size)), norm)
    return y, (Run(circuit.name, times, 1),)


METHOD = Method(
    name="hadamard",
    summary="a Conv that keeps the size, fitted by scales between two Walsh-Hadamard transforms; a "
    "MatMul that is such a transform, exactly",
    restores="sign by a reference state, norm in the graph",
    exact=False,
    options=("form",),
    refuse=_refuse,
    lower=_lower,
)
