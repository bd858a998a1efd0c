"""Backend ``onnx_int``: a quantized ONNX file, and the proof that it runs as planned.

What is written is checked before success is reported: ``onnx.checker`` accepts the file, ONNX
Runtime loads it, and in the graph that ONNX Runtime makes of it each quantized layer is looked
up: is it an integer kernel, or did it stay in float? The answer, and the distance of the outputs
from float, is a :class:`qcomp.quantization.FusionReport` in the context.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from qcomp.errors import TargetError
from qcomp.quantization import (
    FloatReference,
    FusionOutcome,
    FusionReport,
    QuantizationError,
    QuantizationRecord,
    QuantizedLayer,
)
from qcomp.registry import load

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.program import Program
    from qcomp.passmanager import Context
    from qcomp.target import Target

__all__ = ["INTEGER_KERNELS", "OnnxIntBackend", "fusion_outcomes"]

INTEGER_KERNELS = frozenset(
    {
        "ConvInteger",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "GatherBlockQuantized",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "QGemm",
        "QLinearAdd",
        "QLinearAveragePool",
        "QLinearConcat",
        "QLinearConv",
        "QLinearGlobalAveragePool",
        "QLinearLeakyRelu",
        "QLinearMatMul",
        "QLinearMul",
        "QLinearSigmoid",
    }
)
"""Operators of ONNX Runtime that compute with integers of at most 8 bits."""

_LOOKUPS = frozenset({"Gather", "GatherND"})
"""Operators that copy rows of integers as they are."""

_NAMED_LAYERS = 8

_TOLERATED = (
    "Field 'shape' of 'type' is required but missing",
    "No Op registered for SimplifiedLayerNormalization",
)
"""Faults of sources that ONNX Runtime does not mind: inputs of any rank, its own operator in ONNX's
domain. It says itself whether it loads the file."""


class OnnxIntBackend:
    """Writes a quantized program as ``.onnx`` and checks that it loads and fuses."""

    name = "onnx_int"

    def write(self, program: Program, out: Path, target: Target, context: Context) -> list[Path]:
        """Write ``program`` to the file ``out``.

        Args:
            program: The quantized program, or one classical stage of it; unchanged on return.
            out: The file. Large tensors go to ``out`` + ``.data`` beside it.
            target: The machine; the kernels it counts on are in ``fusions``.
            context: Holds the quantizing passes' record; takes the fusion report.

        Returns:
            The files written.

        Raises:
            TargetError: The checker or ONNX Runtime refuses the file.
            QcompError: The file cannot be written.
        """
        with context.progress.task(f"saving {out.name}", None) as task:
            files: list[Path] = load("services", "save-program")(
                program, out, progress=lambda _: task.advance()
            )
        _check_file(files[0], target)
        if not program.circuit_nodes():
            if target.integers is None or target.integers.is_cpu:
                self._report(program, files[0], context)
            else:
                self._load(program, files[0], target.integers.provider, context)
        return files

    def _load(self, program: Program, path: Path, provider: str, context: Context) -> None:
        """Load the file on this machine; its kernels are those of a provider that is not here."""
        from qcomp.execute import Session

        Session(path)
        error = self._error(program, context)
        context.put(
            FusionReport(
                (),
                {},
                {} if error is None else error.outputs,
                0 if error is None else error.samples,
                "" if error is None else error.data,
                f"compared on this machine's CPU, in the integers that '{provider}' takes: its own "
                "kernels were not looked at",
            )
        )

    def _report(self, program: Program, path: Path, context: Context) -> None:
        import onnx_ir as ir

        from qcomp.execute import optimized

        record = context.get(QuantizationRecord) or QuantizationRecord()
        mine = [layer for layer in record.layers if _belongs(layer, program.model)]
        # The file, not the program: lazy weights are not computed a second time.
        graph = optimized(ir.load(path))
        outcomes = fusion_outcomes(program.model, graph, mine)
        kernels = Counter(node.op_type for node in graph.graph)
        before = context.get(FusionReport)
        if before is not None:  # an earlier stage of the same program
            known = {outcome.node for outcome in outcomes}
            outcomes = (*(o for o in before.outcomes if o.node not in known), *outcomes)
            kernels.update(before.kernels)
        error = self._error(program, context)
        note = "" if error is not None and error.samples else "outputs were not compared with float"
        report = FusionReport(
            outcomes,
            dict(sorted(kernels.items())),
            {} if error is None else error.outputs,
            0 if error is None else error.samples,
            "" if error is None else error.data,
            note,
        )
        context.put(report)
        if report.unfused:
            names = ", ".join(f"'{o.node}'" for o in report.unfused[:_NAMED_LAYERS])
            more = len(report.unfused) - _NAMED_LAYERS
            context.warn(
                f"{len(report.unfused)} of {len(outcomes)} quantized layers do not run as integer "
                f"kernels in ONNX Runtime: {names}" + (f" and {more} more" if more > 0 else "")
            )

    @staticmethod
    def _error(program: Program, context: Context) -> QuantizationError | None:
        """The measured error; measured now if no pass of the pipeline did."""
        error = context.get(QuantizationError)
        reference = context.get(FloatReference)
        if error is None and reference is not None and not reference.program.circuits:
            load("passes", "quantization-error")().run(program, context)
            error = context.get(QuantizationError)
        return error


def _check_file(path: Path, target: Target) -> None:
    """Let ``onnx.checker`` judge the file; large data beside it is not read."""
    import onnx

    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        if any(text in str(error) for text in _TOLERATED):
            return
        raise TargetError(
            f"the graph for '{target.name}' is not valid ONNX",
            where=path.name,
            why=str(error).strip().partition("\n")[0],
            hint="this is a fault of qcomp: please report it with the model",
        ) from error


def _belongs(layer: QuantizedLayer, model: ir.Model) -> bool:
    """Whether a layer lies in this graph (one stage of several)."""
    if layer.quantized in model.graph.initializers:
        return True
    name = layer.quantized or layer.output  # integers may be a table's, turned over
    return any(value.name == name for node in model.graph for value in node.outputs)


def _names(model: ir.Model, weight: str) -> Iterator[str]:
    """Names that the runtime may give a weight: repacked from blocks, or cast and folded."""
    yield weight
    yield f"{weight}_T"
    value = model.graph.initializers.get(weight)
    for usage in value.uses() if value is not None else ():
        if usage.node.op_type == "Cast":
            yield usage.node.outputs[0].name or ""


def fusion_outcomes(
    model: ir.Model, optimised: ir.Model, layers: list[QuantizedLayer]
) -> tuple[FusionOutcome, ...]:
    """Look up each quantized layer in ONNX Runtime's optimised graph.

    A layer with a weight is found by the initializer that holds its integers, another one by its
    node's name or the integer tensor that it writes. Integers that were to be made of fewer bits
    when the graph is loaded have to be an initializer by then.

    Args:
        model: The quantized graph.
        optimised: What the runtime made of it, see :func:`qcomp.execute.optimized`.
        layers: The layers to look up.
    """
    produced = {v.name: node for node in model.graph for v in node.outputs}
    made = {v.name: node for node in optimised.graph for v in node.outputs if v.name}
    by_input: dict[str, list[ir.Node]] = {}
    by_output: dict[str, ir.Node] = {}
    by_name: dict[str, ir.Node] = {}
    for node in optimised.graph:
        for name in dict.fromkeys(v.name for v in node.inputs if v is not None and v.name):
            by_input.setdefault(name, []).append(node)
        by_output.update({v.name: node for v in node.outputs if v.name})
        by_name[node.name or ""] = node
    outcomes = []
    for layer in layers:
        if layer.quantized:
            readers = next(
                (by_input[n] for n in _names(model, layer.quantized) if n in by_input), []
            )
            # A table may be looked up in, and be the matrix of a layer as well.
            same = [n for n in readers if (n.op_type in _LOOKUPS) == (layer.kernel in _LOOKUPS)]
            found = next(iter(same or readers), None)
        else:
            dequantize = produced.get(layer.output)
            integers = dequantize.inputs[0] if dequantize is not None else None
            name = "" if integers is None else integers.name or ""
            found = by_name.get(layer.node) or by_output.get(name)
        kind = "" if found is None else found.op_type
        maker = made.get(layer.quantized)
        if maker is not None:  # the weight is made anew in every run
            outcomes.append(FusionOutcome(layer.node, layer.kernel, maker.op_type, False))
            continue
        integer = kind in INTEGER_KERNELS or (kind in _LOOKUPS and kind == layer.kernel)
        if layer.scheme == "weights" and layer.kernel == layer.op_type:  # looked up, then in float
            integer = bool(kind)
        outcomes.append(FusionOutcome(layer.node, layer.kernel, kind, integer))
    return tuple(outcomes)
