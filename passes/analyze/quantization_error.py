"""How far quantization moved every weight and every layer's output.

    SQNR = 10 log10( sum |r|^2 / sum |r - q|^2 )   in dB

r is the float program's value, q the quantized program's. Outputs are compared with all earlier
layers quantized too, so the figure falls along the graph where errors add up. Both programs run
on calibration data if there is any, else on generated inputs (standard normal values, random
token ids), which is said in the result. Weights of
more than 16 million values are compared on 512 evenly spaced output channels; runs of models
whose float weights exceed 512 MiB are left out.

Preconditions: a quantizing pass ran in this pipeline.
Preserved: everything; leaves a :class:`qcomp.quantization.QuantizationError` fact.
Cost: one run of both programs over at most ``samples`` samples; one pass over the weights.
Source: Krishnamoorthi 2018, arXiv:1806.08342; SQNR as in Nagel et al. 2021, arXiv:2106.08295.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from qcomp.budget import NOISE
from qcomp.errors import QcompError
from qcomp.passes.analyze.output_loss import output_loss
from qcomp.passes.calibrate.batches import checked_batches, generated_batch
from qcomp.passes.graph.rewriting import (
    constant_tensor,
    int_attribute,
    node_label,
    read_weight,
    static_shape,
)
from qcomp.passes.quantize.dequantized_weights import dequantized_weight, stored_weight
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.quantization import (
    FloatReference,
    LayerError,
    QuantizationError,
    QuantizationRecord,
    QuantizedLayer,
    SqnrSum,
    StoredCaches,
    sqnr,
)
from qcomp.sensitivity import AllocatedBits

if TYPE_CHECKING:
    from qcomp.ir.program import Program

__all__ = ["MeasureQuantizationError"]

_POOR = 10.0
"""Decibels below which an output deserves a warning."""

_RUN_LIMIT = 1 << 29
"""Bytes of float weights up to which both programs are run."""

_VALUES = 1 << 25
"""Numbers of compared values that are held at a time, if a sample has not more (128 MB)."""

_WEIGHT_LIMIT = 1 << 24
"""Values of a weight up to which all of it is compared."""

_CHANNELS = 512
"""Output channels, evenly spaced, on which a larger weight is compared."""

Feeds = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class MeasureQuantizationError(GraphPass):
    """Compare the quantized program with the float one, layer by layer.

    Attributes:
        samples: Samples to run, at most.
        batch: Samples run at a time.
    """

    name: ClassVar[str] = "quantization-error"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    samples: int = 64
    batch: int = 4

    def run(self, program: Program, context: Context) -> bool:
        """Measure; the program stays as it is."""
        reference = context.get(FloatReference)
        record = context.get(QuantizationRecord)
        if reference is None or record is None or not record.layers:
            return False
        weights = {}
        with context.progress.task("measuring weights", len(record.layers)) as task:
            for layer in record.layers:
                weights[layer.node] = _weight_sqnr(layer, reference.program, program)
                task.advance()
        outputs: dict[str, float] = {}
        layers: dict[str, float] = {}
        count, data = 0, ""
        if context.get(StoredCaches) is not None:
            context.warn(
                "outputs were not compared with float: the cache comes in and goes out in "
                "integers; 'quantization-error' before 'quantize-cache' measures all else"
            )
        elif _float_bytes(reference.program) <= _RUN_LIMIT:
            data = "generated" if context.calibration is None else "calibration"
            try:
                count, outputs, layers = self._compare(reference.program, program, record, context)
            except QcompError as error:
                if context.calibration is not None:
                    raise
                data = ""
                context.warn(
                    f"outputs were not compared with float on made-up inputs: {error.what}"
                )
        result = QuantizationError(
            tuple(
                LayerError(layer.node, layer.op_type, weights[layer.node], layers.get(layer.source))
                for layer in record.layers
            ),
            outputs,
            count,
            data,
        )
        context.put(result)
        for name, decibels in outputs.items():
            if decibels < _POOR:
                context.warn(
                    f"the output '{name}' has only {decibels:.1f} dB of signal over quantization "
                    f"noise, on {count} samples of {data} data"
                )
        if data == "calibration" and outputs and min(outputs.values()) > 0.0:
            noise = float(10.0 ** (-min(outputs.values()) / 10.0))
            context.ledger.spend(self.name, 1.0, noise, NOISE)
        return False

    def _batches(self, program: Program, context: Context) -> Iterator[Feeds]:
        if context.calibration is None:
            yield generated_batch(program.model, context.rng(self.name), min(self.samples, 16))
            return
        taken = 0
        for feeds in checked_batches(program.model, context.calibration(), self.batch):
            if taken >= self.samples:
                return
            taken += _count(feeds)
            yield feeds

    def _compare(
        self, before: Program, after: Program, record: QuantizationRecord, context: Context
    ) -> tuple[int, dict[str, float], dict[str, float]]:
        """Run both; return samples, SQNR of graph outputs and of layer outputs (source names)."""
        from qcomp.execute import HybridSession

        pairs = {layer.source: layer.output for layer in record.layers}
        outputs = [value.name or "" for value in after.model.graph.outputs]
        plain = HybridSession(before, taps=list(pairs))
        quantized = HybridSession(after, taps=list(pairs.values()))
        sums = {name: SqnrSum() for name in (*outputs, *pairs)}
        allocated = context.get(AllocatedBits)
        losses = [] if allocated is None else output_loss(before, "auto")
        lost = np.zeros((len(losses), 2))
        count = 0
        with context.progress.task("comparing with float", None) as task:
            batches = _pieces(before, list(sums), self._batches(before, context))
            for index, feeds in enumerate(batches):
                real = plain.run(feeds, seed=context.seed + index)
                got = quantized.run(feeds, seed=context.seed + index)
                for name, total in sums.items():
                    a = np.asarray(real[name])
                    if np.issubdtype(a.dtype, np.number):
                        total.add(a, np.asarray(got[pairs.get(name, name)]))
                for index, loss in enumerate(losses):
                    lost[index] += loss.of(real[loss.name], got[loss.name])
                count += _count(feeds)
                task.advance()
        if allocated is not None and losses[0].unit == allocated.unit:
            moved, scale = lost.T
            measured = np.divide(moved, scale, out=np.zeros_like(moved), where=scale > 0).sum()
            _enter(allocated, record, float(measured), context)
        return (
            count,
            {name: sums[name].decibels for name in outputs},
            {name: sums[name].decibels for name in pairs},
        )


def _enter(
    allocated: AllocatedBits, record: QuantizationRecord, measured: float, context: Context
) -> None:
    """Enter in the ledger what bits were shared out for, what they were spent on, and the outcome.

    Raises:
        PassError: In checked mode, an error that was limited is larger.
    """
    stored = {layer.weight for layer in record.layers}
    spent = sum(c.error for weight, c in allocated.chosen.items() if weight in stored)
    limit = allocated.max_error
    if context.verify_each and limit is not None:
        spent = max(spent, measured)
    # Of one sum, in another order, the last digits may differ.
    promised = max(allocated.error, spent) if limit is None else limit
    context.ledger.spend(
        "allocate-bits",
        promised,
        spent,
        allocated.unit,
        predicted=allocated.error,
        measured=measured,
    )


def _pieces(program: Program, names: Sequence[str], batches: Iterable[Feeds]) -> Iterator[Feeds]:
    """The batches, cut where the values of those names would take too much memory."""
    inputs = [v for v in program.model.graph.inputs if not v.is_initializer()]
    fixed = any((shape := static_shape(v)) and shape[0] is not None for v in inputs)
    values = {v.name: v for node in program.model.graph for v in node.outputs}
    last = [shape[-1] or 1 for n in names if (shape := static_shape(values.get(n)))]
    for feeds in batches:
        lengths = {array.shape[0] for array in feeds.values() if array.ndim}
        inner = max(
            (int(np.prod(a.shape[1:])) for a in feeds.values() if a.dtype.kind in "iu"), default=1
        )
        step = max(1, _VALUES // max(1, inner * sum(last)))
        if fixed or len(lengths) != 1 or step >= max(lengths):
            yield feeds
            continue
        for start in range(0, max(lengths), step):
            yield {n: a[start : start + step] if a.ndim else a for n, a in feeds.items()}


def _count(feeds: Feeds) -> int:
    return max((array.shape[0] for array in feeds.values() if array.ndim), default=1)


def _float_bytes(program: Program) -> int:
    values = program.model.graph.initializers.values()
    return sum(v.const_value.nbytes for v in values if v.const_value is not None)


def _weight_sqnr(layer: QuantizedLayer, before: Program, after: Program) -> float | None:
    """SQNR of a layer's weight in dB; None for a layer without one."""
    value = before.model.graph.initializers.get(layer.weight)
    levels = stored_weight(after.model, layer.quantized)
    tensor = constant_tensor(value)
    if value is None or levels is None or tensor is None:
        return None
    matrix = layer.op_type in ("Gemm", "MatMul")
    by_rows = not matrix or any(
        node_label(usage.node) == layer.node and int_attribute(usage.node, "transB") == 1
        for usage in value.uses()
    )
    axis = 0 if by_rows else 1
    channels = None
    if tensor.size > _WEIGHT_LIMIT:
        channels = np.linspace(0, tensor.shape.numpy()[axis] - 1, _CHANNELS).astype(np.int64)
    stored, rows_out = dequantized_weight(levels, channels)
    if matrix and by_rows != rows_out:
        stored = stored.T
    with read_weight(tensor) as real:
        return sqnr(real if channels is None else real.take(channels, axis), stored)
