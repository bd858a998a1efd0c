"""From the facts of a compile to the lines of its report."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from qcomp.artifact_format import sha256
from qcomp.report.data import (
    BoundLine,
    BudgetLine,
    CheckLine,
    CircuitSection,
    FileLine,
    FloatLine,
    FusionLine,
    KeptLine,
    LayerLine,
    PassLine,
    Quantization,
    SuccessLine,
    TargetLine,
    TensorLine,
)
from qcomp.report.rounding import rounding_words
from qcomp.report.theory import against_theory

if TYPE_CHECKING:
    from qcomp.budget import Ledger
    from qcomp.ir.circuit import Circuit
    from qcomp.ir.program import Comparison
    from qcomp.largest_drop import KeptLayers
    from qcomp.passmanager import PassRecord
    from qcomp.quantization import (
        FeedbackErrors,
        FusionReport,
        NodeRules,
        QuantizationError,
        QuantizationRecord,
        QuantizedLayer,
    )
    from qcomp.target import Target

__all__ = [
    "bound_line",
    "budget_lines",
    "circuit_section",
    "comparison_lines",
    "file_lines",
    "pass_lines",
    "quantization_section",
    "success_line",
    "target_line",
    "versions",
]


def pass_lines(records: Iterable[PassRecord]) -> tuple[PassLine, ...]:
    """Return the lines of the passes table."""
    return tuple(
        PassLine(r.name, r.seconds, r.changed, dict(r.before), dict(r.after), r.check)
        for r in records
    )


def versions() -> Mapping[str, str]:
    """Return the versions that the bytes of an artifact may depend on."""
    packages = ("qcomp", "numpy", "onnx", "onnx-ir", "onnxruntime", "numba")
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except ModuleNotFoundError:  # qcomp used from a folder that was not installed
            found[name] = "not installed"
    return {"python": platform.python_version(), **found}


def budget_lines(ledger: Ledger) -> tuple[BudgetLine, ...]:
    """Return the lines of the error budget."""
    return tuple(
        BudgetLine(e.spender, e.kind, e.promised, e.spent, e.measure, e.predicted, e.measured)
        for e in ledger.entries
    )


def target_line(target: Target, effort: str = "", pipeline: str = "") -> TargetLine:
    """Return the line of a machine."""
    return TargetLine(target.name, target.title, target.kind, tuple(target.basis), effort, pipeline)


def comparison_lines(comparisons: Iterable[Comparison]) -> list[CheckLine]:
    """Return the checks of captured and lowered parts, a line for each dtype."""
    return [
        CheckLine(
            f"{comparison.what} and {comparison.against}",
            f"outputs on {comparison.rows} rows of inputs, computed in {dtype}",
            "measured",
            error,
            "relative to max(1, |value|)",
        )
        for comparison in comparisons
        for dtype, error in comparison.errors
    ]


def file_lines(folder: Path) -> tuple[FileLine, ...]:
    """Return a line for every file of a folder, by name, with its size and hash."""
    lines = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        lines.append(FileLine(name, path.stat().st_size, sha256(path)))
    return tuple(lines)


def circuit_section(
    name: str,
    after: Circuit,
    *,
    before: Mapping[str, int] | None = None,
    check: CheckLine | None = None,
    target: Target | None = None,
) -> CircuitSection:
    """Return the section of a circuit: its counts and drawings.

    Args:
        name: The circuit's name.
        after: The compiled circuit.
        before: ``stats().to_dict()`` of the source circuit.
        check: How equivalence was checked.
        target: The machine; where it is a device, the expected success is said.
    """
    from qcomp.report.draw import draw
    from qcomp.report.svg import circuit_svg

    return CircuitSection(
        name,
        dict(before or {}),
        after.stats().to_dict(),
        draw(after),
        check,
        success_line(after, target),
        circuit_svg(after),
    )


def bound_line(kept: KeptLayers | None) -> BoundLine | None:
    """Return what a largest drop cost; None where none was asked for."""
    if kept is None:
        return None
    quantized, reached = (
        (time / kept.times[0] for time in kept.times[1:]) if kept.times else (None, None)
    )
    return BoundLine(
        str(kept.drop),
        kept.metric,
        kept.source,
        kept.quantized,
        kept.reached,
        tuple(KeptLine(layer.node, layer.op_type, layer.decibels) for layer in kept.kept),
        kept.layers,
        kept.trials,
        kept.bytes_quantized,
        kept.bytes_reached,
        quantized,
        reached,
    )


def success_line(circuit: Circuit, target: Target | None) -> SuccessLine | None:
    """Return the line of a circuit's expected success; None where the target is no device."""
    device = None if target is None else target.hardware
    if target is None or device is None:
        return None
    from qcomp.mitigation.success import success_probability

    mapped = target.mapped or circuit.layout is not None
    found = success_probability(circuit, device, virtual=target.native.virtual, typical=not mapped)
    return SuccessLine(
        device.name,
        found.probability,
        found.gates,
        found.readout,
        found.idle,
        found.unknown,
        found.length,
        found.typical,
    )


def quantization_section(
    record: QuantizationRecord | None,
    error: QuantizationError | None = None,
    fusion: FusionReport | None = None,
    *,
    rules: NodeRules | None = None,
    rounding: FeedbackErrors | None = None,
    tensors: tuple[TensorLine, ...] = (),
) -> Quantization | None:
    """Return the section of quantization; None when nothing was quantized or measured.

    Args:
        record: What the quantizing passes did and left.
        error: What was measured.
        fusion: Which kernels run.
        rules: What the user asked of single operators.
        rounding: What error feedback did.
        tensors: Lines of :func:`qcomp.report.tensors.tensor_lines`.
    """
    if record is None and error is None and fusion is None:
        return None
    errors = {line.node: line for line in error.layers} if error else {}
    runs = {outcome.node: outcome.found for outcome in fusion.outcomes} if fusion else {}
    words = rounding_words(rounding)
    layers = []
    for layer in record.layers if record else ():
        found = errors.pop(layer.node, None)
        layers.append(
            LayerLine(
                layer.node,
                layer.op_type,
                layer.scheme,
                layer.weight_type,
                found.weight_sqnr if found else None,
                found.output_sqnr if found else None,
                layer.weight,
                layer.kernel,
                runs.get(layer.node, ""),
                _why(layer, rules, words.get(layer.node, "")),
                against_theory(layer.weight_type, found.weight_sqnr if found else None),
            )
        )
    layers += [
        LayerLine(e.node, e.op_type, weight_sqnr=e.weight_sqnr, output_sqnr=e.output_sqnr)
        for e in errors.values()
    ]
    floats = record.float_ops if record else ()
    measured = error if error and error.samples else fusion
    return Quantization(
        tuple(layers),
        tuple(FloatLine(op.node, op.op_type, op.reason) for op in floats),
        dict(error.outputs if error and error.samples else fusion.output_sqnr if fusion else {}),
        measured.samples if measured else 0,
        measured.data if measured else "",
        _fusion_lines(fusion) if fusion else (),
        fusion.note if fusion else "",
        tensors,
    )


_SCHEMES = {
    "static": "integers all through, with scales from calibration",
    "dynamic": "its weight in integers, its input quantized while the graph runs",
    "weights": "its weight alone in few bits, to make the file smaller",
    "float8": "8-bit floats all through, its weight stored in few bits",
}


def _why(layer: QuantizedLayer, rules: NodeRules | None, rounding: str) -> str:
    """Why a layer was quantized as it was."""
    asked = "" if rules is None else rules.options_of(layer.node, layer.op_type).reason
    return "; ".join(filter(None, (_SCHEMES.get(layer.scheme, ""), rounding, asked)))


def _fusion_lines(fusion: FusionReport) -> tuple[FusionLine, ...]:
    groups: dict[str, list[tuple[str, bool]]] = {}
    for outcome in fusion.outcomes:
        name = f"{outcome.node} (runs as {outcome.found or 'something else'})"
        groups.setdefault(outcome.planned, []).append((name, outcome.integer))
    return tuple(
        FusionLine(
            kernel,
            len(group),
            sum(integer for _, integer in group),
            tuple(name for name, integer in group if not integer),
        )
        for kernel, group in groups.items()
    )
