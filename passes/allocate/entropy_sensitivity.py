"""How sensitive a model is to the bits of each tensor, by the entropy of its layers' activations.

    error(l, c) = 1/2 log2(1 + |D_c X|^2 / (M N_l)),        N_l = 2^(2 h(Y_l)) / (2 pi e)

Y_l = W_l X are the M values of a layer's float result, h their differential entropy in bits (from a
histogram of 256 bins), N_l their entropy power, D_c X what way c of storing the weights moves them
by. For noise unrelated to Y_l this is the information in bits that a value of the result loses: a
Gaussian of power N_l has the same entropy. It is at most the loss by variance, since N_l is at most
the variance: a layer whose values crowd together has a small entropy and is disturbed by less.

It says nothing of what the model makes of a layer's result behind it, which
``measure-sensitivity`` does; it needs neither gradients nor runs of the graph behind a layer.

Preconditions: floating point, functions inlined; no circuits.
Preserved: everything; leaves a :class:`qcomp.sensitivity.Sensitivities` fact.
Cost: one run of the model on ``rows`` samples and a product of the layer's size for every way.
Source: entropy power: Shannon 1948, "A Mathematical Theory of Communication", section 21; bits by
the entropy of activations: Tao et al. 2024 (QuantMCU), arXiv:2401.13714.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from qcomp.ir.program import Program
from qcomp.ir.shapes import infer_shapes
from qcomp.passes.allocate.measure_sensitivity import TensorOptions, rounded
from qcomp.passes.allocate.output_error import constant_of, data_of, result_change
from qcomp.passes.allocate.storage import Place
from qcomp.passes.calibrate.layer_rows import Floats
from qcomp.passes.graph.rewriting import node_label
from qcomp.passes.quantize.entropy_blocks import entropy
from qcomp.passes.quantize.streams import Stream
from qcomp.passmanager import Context
from qcomp.sensitivity import BitChoice, TensorSensitivity

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["EntropySensitivity", "lost_information"]

_LEAST = 1e-12
"""Entropy power over mean square below which a layer's result counts as this."""


@dataclass(frozen=True)
class EntropySensitivity(TensorOptions):
    """Estimate what each layer's result loses by bits from the entropy of its activations."""

    name: ClassVar[str] = "entropy-sensitivity"

    def run(self, program: Program, context: Context) -> bool:
        """Estimate; the program stays as it is.

        Raises:
            PassError: No calibration data, or a graph that cannot be run.
        """
        if self.skips(program, context):
            return False
        places = self.places(program, context)
        if not places:
            return False
        chunks = self.data(program, context)
        by_node = {node_label(node): place for place in places for node in place.nodes}
        found: dict[str, tuple[float, list[float]]] = {}
        copy = Program(program.model.clone(), program.circuits, program.source)
        infer_shapes(copy)
        stream = Stream(copy, chunks, [value.name or "" for value in copy.model.graph.outputs])
        with context.progress.task(self.name, len(by_node)) as task:
            for node in copy.model.graph:
                if node_label(node) in by_node:
                    found[node_label(node)] = self._node(node, by_node[node_label(node)], stream)
                    task.advance()
        tensors = [self._tensor(place, found) for place in places]
        context.put(self.table("entropy", "bits a value", chunks, tensors, context))
        return False

    def _node(self, node: ir.Node, place: Place, stream: Stream) -> tuple[float, list[float]]:
        """The entropy of an operator's result, and what each way loses of it."""
        source, result = data_of(node), node.outputs[0]
        made = [] if source.producer() is None else [source]
        stream.run(stream.part(stream.missing(made), made))
        inputs = [np.asarray(chunk[source.name or ""]) for chunk in stream.chunks]
        stream.run(stream.part(stream.missing([result]), [result]))
        values = [np.asarray(chunk[result.name or ""], np.float32) for chunk in stream.chunks]
        flat = np.concatenate([y.reshape(-1) for y in values])
        float_weight = constant_of(node)
        losses = []
        for way in place.ways:
            change = rounded(place, way, self) - float_weight
            moved = sum(
                float(np.square(result_change(node, x, change, y.shape), dtype=np.float64).sum())
                for x, y in zip(inputs, values, strict=True)
            )
            losses.append(lost_information(flat, moved / max(1, flat.size)))
        return entropy(flat), losses

    def _tensor(
        self, place: Place, found: dict[str, tuple[float, list[float]]]
    ) -> TensorSensitivity:
        labels = tuple(node_label(node) for node in place.nodes)
        times = 1.0 if place.table else self.feedback
        choices = tuple(
            BitChoice(w.bits, w.group, w.bytes, times * sum(found[n][1][i] for n in labels))
            for i, w in enumerate(place.ways)
        )
        size, kind = int(np.prod(place.shape)), place.nodes[0].op_type
        largest = max(found[name][0] for name in labels)
        return TensorSensitivity(place.weight.name or "", labels, kind, size, choices, largest)


def lost_information(values: Floats | Sequence[float], noise: float) -> float:
    """Return ``1/2 log2(1 + noise / N)``, the bits that a value loses by noise of this power.

    Args:
        values: float[M], whose entropy power N counts.
        noise: Mean square of what is added.
    """
    array = np.asarray(values, np.float64)
    power = 2.0 ** (2 * entropy(array)) / (2 * math.pi * math.e)
    power = max(power, _LEAST * float(np.square(array).mean()), np.finfo(np.float64).tiny)
    return 0.5 * math.log2(1 + noise / power)
