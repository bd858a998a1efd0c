"""What became of every operator and tensor of a compiled graph, out of its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

from qcomp.errors import UsageError, suggest
from qcomp.report.data import LayerLine, Report, TensorLine
from qcomp.run_plan import RunLine

__all__ = ["Explanation", "OperatorLine", "explain"]

State = Literal["quantized", "float", "kept"]


@dataclass(frozen=True, slots=True)
class OperatorLine:
    """One operator of the source.

    Attributes:
        name: Its name in the source.
        op: Its type.
        state: ``quantized``, ``float``, or ``kept`` where it was quantized before.
        scheme: ``static``, ``dynamic``, ``weights`` or ``float8``; "" in float.
        type: The weight's type, "" without one.
        runs: What ONNX Runtime runs in its place, "" if unknown.
        weight_sqnr: Signal to quantization noise of its weight in dB; None without one.
        output_sqnr: The same of its output, earlier layers quantized too; None if not measured.
        why: Why it was quantized so, or why it was not.
        theory: Its weight's error beside theory, in dB, see :mod:`qcomp.report.theory`.
    """

    name: str
    op: str
    state: State
    scheme: str = ""
    type: str = ""
    runs: str = ""
    weight_sqnr: float | None = None
    output_sqnr: float | None = None
    why: str = ""
    theory: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Operators, quantized ones first, and tensors, in graph order; how circuits are to be run."""

    operators: tuple[OperatorLine, ...]
    tensors: tuple[TensorLine, ...]
    runs: tuple[RunLine, ...] = ()


def explain(report: Report, names: Sequence[str] = ()) -> Explanation:
    """Say what every operator and tensor got, and why.

    Args:
        report: Of the artifact.
        names: Names or globs of tensors and operators; all of them where there are none. An
            operator brings the tensors that it reads.

    Raises:
        UsageError: Nothing was quantized, or a name matches nothing.
    """
    found = report.quantization
    if found is None or not (found.layers or found.left_in_float):
        if report.runs and not names:
            return Explanation((), (), report.runs)
        raise UsageError(
            "the artifact has no quantized graph to explain",
            hint="compile for cpu-int8 or cpu-dynamic-int8; 'qcomp inspect' shows what it holds",
        )
    operators = [_quantized(line) for line in found.layers]
    for op in found.left_in_float:
        state: State = "kept" if op.reason == "already quantized" else "float"
        operators.append(OperatorLine(op.layer, op.op, state, why=op.reason))
    tensors = found.tensors
    if not names:
        return Explanation(tuple(operators), tensors, report.runs)
    known = [*(line.name for line in operators), *(line.name for line in tensors)]
    for name in names:
        if not any(_matches(name, one) for one in known):
            raise UsageError(f"the artifact has no tensor '{name}'", hint=_near(name, known))
    chosen = {one for one in known if any(_matches(name, one) for name in names)}
    weights = {line.layer: line.weight for line in found.layers if line.layer in chosen}
    return Explanation(
        tuple(line for line in operators if line.name in chosen),
        tuple(
            line
            for line in tensors
            if line.name in chosen
            or line.name in weights.values()
            or any(layer in chosen for layer in line.layers)
        ),
    )


def _quantized(line: LayerLine) -> OperatorLine:
    why = line.why
    if line.runs and line.kernel and line.runs != line.kernel:
        why += f"{'; ' if why else ''}planned as {line.kernel}"
    return OperatorLine(
        line.layer,
        line.op,
        "quantized",
        line.scheme,
        line.bits,
        line.runs,
        line.weight_sqnr if line.weight else None,
        line.output_sqnr,
        why,
        line.theory,
    )


def _matches(pattern: str, name: str) -> bool:
    return pattern == name or fnmatchcase(name, pattern)


def _near(name: str, known: Sequence[str]) -> str:
    hint = suggest(name, dict.fromkeys(known))
    if hint.startswith("did you mean"):
        return hint
    return "'qcomp explain ARTIFACT' lists all names"
