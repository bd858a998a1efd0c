"""How much worse a model's output is if one tensor alone is rounded: measured, one at a time.

    error(l, b) = L(f(x; W_l -> Q_b(W_l)), f(x; W))

L is the Kullback-Leibler divergence, in nats a token or row, where the output is logits over a
vocabulary or classes or comes from Softmax, else the squared difference over the squared output.

The float program runs once, operator by operator that is looked at; behind each, what is left of
the graph is a session of its own that starts at the operator's result y = W X. A rounded weight is
W + D, so that y + D X is handed to it and neither the front of the graph nor the float weight is
computed again. Only values that later operators read are held.

Preconditions: a graph without circuits; types and shapes are known.
Cost: for each operator half the graph, on average, times the ways that are measured, on the rows
that are given. Memory: what is live at one place of the graph, and the outputs, of these rows.
Source: the sensitivity of Cai et al. 2020 (ZeroQ), arXiv:2001.00281, equation 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from qcomp.ir.program import Program
from qcomp.ir.shapes import infer_shapes
from qcomp.passes.analyze.output_loss import OutputLoss
from qcomp.passes.calibrate.layer_rows import Floats, layer_geometry, weight_columns
from qcomp.passes.graph.rewriting import constant_tensor, node_label, read_weight
from qcomp.passes.quantize.streams import Stream

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Probe", "Rounded", "constant_of", "data_of", "measure", "result_change"]

Array = npt.NDArray[np.generic]
Rounded = Callable[[], Floats]
"""Makes a tensor as it will be stored, real numbers in its own shape."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What is put in place of an operator's constant.

    Attributes:
        run: Tensors that the rest of the graph runs with.
        parts: Makes D of some output channels, float32[K, channels], for each tensor whose change
            of the operator's result is wanted.
    """

    run: Sequence[Rounded]
    parts: Callable[[], Sequence[Floats]]


def measure(
    program: Program,
    probes: Mapping[str, Probe],
    chunks: Sequence[Mapping[str, Array]],
    losses: Sequence[OutputLoss],
) -> Iterator[tuple[str, list[float], list[float]]]:
    """Yield, for each operator in graph order, what each rounded constant costs.

    Args:
        program: In float; it is not changed.
        probes: Name of an operator -> what to put in place of its constant.
        chunks: Rows of data.
        losses: The outputs that count.

    Yields:
        Operator, error of the outputs for each tensor that is run, and the squared change of the
        operator's own result for each that is not, in some unit of its own.
    """
    program = Program(program.model.clone(), program.circuits, program.source)
    infer_shapes(program)
    names = [loss.name for loss in losses]
    whole = Stream(program, chunks, names)
    whole.run(whole.part(whole.missing(list(program.model.graph.outputs))))
    real = [{name: chunk[name] for name in names} for chunk in whole.chunks]
    stream = Stream(program, chunks, names)
    for node in program.model.graph:
        probe = probes.get(node_label(node))
        if probe is None:
            continue
        source, result = data_of(node), node.outputs[0]
        made = [] if source.producer() is None else [source]
        stream.run(stream.part(stream.missing(made), made))
        inputs = [np.asarray(chunk[source.name or ""]) for chunk in stream.chunks]
        stream.run(stream.part(stream.missing([result]), [result]))
        tail = stream.tail()
        errors = []
        for rounded in probe.run:
            change = rounded() - constant_of(node)
            lost, scale = np.zeros(len(losses)), np.zeros(len(losses))
            for chunk, x, floats in zip(stream.chunks, inputs, real, strict=True):
                y = np.asarray(chunk[result.name or ""], np.float32)
                got = tail(
                    {**chunk, result.name or "": y + result_change(node, x, change, y.shape)}
                )
                for index, loss in enumerate(losses):
                    lost[index], scale[index] = np.add(
                        (lost[index], scale[index]), loss.of(floats[loss.name], got[loss.name])
                    )
            errors.append(
                float(np.divide(lost, scale, out=np.zeros_like(lost), where=scale > 0).sum())
            )
        yield node_label(node), errors, [_moved(node, inputs, d) for d in probe.parts()]


def _moved(node: ir.Node, inputs: Sequence[Array], change: Floats) -> float:
    """Squared change of some output channels, each float32[K, channels] of ``change``."""
    if node.op_type in ("Gather", "GatherND") or node.op_type == "Conv":
        return float(np.vdot(change, change))
    total = 0.0
    for x in inputs:
        y = np.asarray(x, np.float32).reshape(-1, x.shape[-1]) @ change
        total += float(np.vdot(y, y))
    return total


def data_of(node: ir.Node) -> ir.Value:
    """What an operator reads beside its constant."""
    value = node.inputs[1 if node.op_type in ("Gather", "GatherND") else 0]
    assert value is not None
    return value


def constant_of(node: ir.Node) -> Floats:
    """An operator's constant, in its own shape."""
    tensor = constant_tensor(node.inputs[0 if node.op_type in ("Gather", "GatherND") else 1])
    assert tensor is not None
    with read_weight(tensor) as array:
        return np.array(array, np.float32)


def result_change(node: ir.Node, x: Array, change: Floats, shape: tuple[int, ...]) -> Floats:
    """What an operator's result moves by if its constant does."""
    if node.op_type == "Gather":
        return np.asarray(change[x.astype(np.int64)], np.float32)
    if node.op_type == "GatherND":
        return np.asarray(change[x[..., 0].astype(np.int64)], np.float32)
    geometry = layer_geometry(node, change.shape)
    columns = weight_columns(node, change, geometry.group)
    rows = np.asarray(x, np.float32)
    if not geometry.kernel:
        return (rows.reshape(-1, rows.shape[-1]) @ columns[0]).reshape(shape)
    windows = geometry.windows(rows)
    rank = len(geometry.kernel)
    count = windows.shape[0]
    spatial = windows.shape[2 : 2 + rank]
    order = (0, *range(2, 2 + rank), 1, *range(2 + rank, 2 + 2 * rank))
    flat = windows.transpose(order).reshape(count * int(np.prod(spatial)), geometry.group, -1)
    y = np.concatenate([flat[:, g] @ columns[g] for g in range(geometry.group)], axis=1)
    back = y.reshape(count, *spatial, -1)
    return np.ascontiguousarray(np.moveaxis(back, -1, 1)).reshape(shape)
