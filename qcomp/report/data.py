"""The report as typed values, and its JSON form.

Everything but the title is optional: a section without content is left out of the page.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args, get_origin

from qcomp.errors import SourceError
from qcomp.report.accuracy import AccuracyLine, BoundLine, KeptLine
from qcomp.report.front import FrontSection
from qcomp.run_plan import RunLine

__all__ = [
    "SCHEMA",
    "VERSION",
    "AccuracyLine",
    "BoundLine",
    "BudgetLine",
    "CheckLine",
    "CircuitSection",
    "FileLine",
    "FloatLine",
    "FusionLine",
    "KeptLine",
    "LayerLine",
    "PassLine",
    "Quantization",
    "Report",
    "Result",
    "Sizes",
    "SourceLine",
    "SuccessLine",
    "TargetLine",
    "TensorLine",
]

SCHEMA = "qcomp-report"
"""Name of the JSON format."""

VERSION = 1
"""Version of the JSON format; a reader of version n reads all versions up to n."""

Result = Literal["proved", "measured", "not checked", "failed"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SourceLine:
    """What was compiled: its name, the frontend that read it, bytes, and SHA-256 in hexadecimal."""

    name: str
    frontend: str = ""
    bytes: int | None = None
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class TargetLine:
    """One machine that was compiled for, and the pipeline that was run for it."""

    name: str
    title: str = ""
    kind: str = ""
    basis: tuple[str, ...] = ()
    effort: str = ""
    pipeline: str = ""


@dataclass(frozen=True, slots=True)
class FileLine:
    """One file of the artifact."""

    name: str
    bytes: int
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes before and after; None where there is nothing to count.

    Attributes:
        source: The source file.
        graphs: The ONNX files written, together.
        weights_before: Weights of the source graph.
        weights_after: Weights of the graphs written.
        files: Every file of the artifact.
    """

    source: int | None = None
    graphs: int | None = None
    weights_before: int | None = None
    weights_after: int | None = None
    files: tuple[FileLine, ...] = ()


@dataclass(frozen=True, slots=True)
class PassLine:
    """What one pass did; the fields of :class:`qcomp.passmanager.PassRecord`."""

    name: str
    seconds: float
    changed: bool
    before: Mapping[str, int] = field(default_factory=dict)
    after: Mapping[str, int] = field(default_factory=dict)
    check: str = ""


@dataclass(frozen=True, slots=True)
class LayerLine:
    """One quantized layer.

    Attributes:
        layer: Name of the operator in the source graph.
        op: Its operator type.
        scheme: ``static``, ``dynamic``, ``weights`` or ``float8``.
        bits: The weight's integer type, as ``s8`` or ``u4/32`` (bits/group); "" without weight.
        weight_sqnr: Signal-to-quantization-noise ratio of its weight, dB; inf when exact.
        output_sqnr: The same of its output, earlier layers quantized too; None if not measured.
        weight: Name of its weight in the source.
        kernel: The integer kernel that was planned for it.
        runs: The operator that ONNX Runtime runs in its place; "" if not looked at.
        why: Why it was quantized so.
        theory: Its weight's error beside what theory says of Gaussian weights, in dB, see
            :func:`qcomp.report.theory.against_theory`.
    """

    layer: str
    op: str
    scheme: str = ""
    bits: str = ""
    weight_sqnr: float | None = None
    output_sqnr: float | None = None
    weight: str = ""
    kernel: str = ""
    runs: str = ""
    why: str = ""
    theory: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TensorLine:
    """One tensor of the graph that was written.

    Attributes:
        name: Its name in the source, where it has one there.
        role: ``activation``, ``weight``, ``table``, ``bias`` or ``constant``.
        type: As ``u8``, ``s8``, ``s4/32`` (blocks of 32 share a scale), ``s8/row``, ``f32``.
        layers: Operators that read it.
        scale_low: Smallest scale, None without one.
        scale_high: Largest scale.
        scales: Number of scales.
        zero_point: The integer that stands for 0, where there is one for the whole tensor.
        low: Smallest value that the type covers with the largest scale.
        high: Largest such value.
        minimum: Smallest value that calibration saw.
        maximum: Largest value that calibration saw.
        method: How its range was chosen, or its values were rounded; "" if nothing was.
        why: Why it has this type and scale.
    """

    name: str
    role: str
    type: str
    layers: tuple[str, ...] = ()
    scale_low: float | None = None
    scale_high: float | None = None
    scales: int = 0
    zero_point: int | None = None
    low: float | None = None
    high: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    method: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class FloatLine:
    """One operator that stayed in float, and why."""

    layer: str
    op: str
    reason: str


@dataclass(frozen=True, slots=True)
class FusionLine:
    """One integer kernel: layers that were planned for it, and those that really run in it.

    Attributes:
        kernel: The kernel.
        planned: Layers planned for it.
        achieved: Layers that run in an integer kernel.
        missed: Names of the others, with what runs in their place.
    """

    kernel: str
    planned: int
    achieved: int
    missed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Quantization:
    """Quantization of the graph.

    Attributes:
        layers: Quantized layers in graph order.
        left_in_float: Operators left in float.
        outputs: Graph output -> SQNR, dB.
        samples: Samples that outputs were compared on; 0 for none.
        data: Where the samples came from: ``calibration`` or ``generated``; "" for none.
        fusions: Integer kernels planned and achieved; empty if not looked at.
        note: What else there is to say, such as why outputs were not compared.
        tensors: Tensors of the graphs that were written.
    """

    layers: tuple[LayerLine, ...] = ()
    left_in_float: tuple[FloatLine, ...] = ()
    outputs: Mapping[str, float] = field(default_factory=dict)
    samples: int = 0
    data: str = ""
    fusions: tuple[FusionLine, ...] = ()
    note: str = ""
    tensors: tuple[TensorLine, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckLine:
    """One check that was made, or that was not.

    Attributes:
        what: What was to be shown.
        how: The method, in words.
        result: ``proved`` (exactly), ``measured`` (then ``error`` says how far apart),
            ``not checked``, or ``failed``.
        error: The largest difference seen.
        measure: What the error measures, such as ``operator norm``.
    """

    what: str
    how: str = ""
    result: Result = "not checked"
    error: float | None = None
    measure: str = ""

    @property
    def sentence(self) -> str:
        """The result in plain words."""
        if self.result == "measured" and self.error is not None:
            unit = f" ({self.measure})" if self.measure else ""
            return f"measured, error {self.error:.2g}{unit}"
        return self.result


@dataclass(frozen=True, slots=True)
class SuccessLine:
    """The expected success probability of a circuit on its device.

    Attributes:
        device: The device's name.
        probability: Product of (1 - error rate) over gates and measurements; None if unknown.
        gates: The part of gates whose rates are known.
        readout: The part of measurements whose rates are known.
        idle: The factor of relaxation in idle times; None if unknown.
        unknown: Operations without a known rate.
        seconds: How long one run takes; None if unknown.
        typical: Whether medians over the device were taken, the circuit not being mapped to it.
    """

    device: str
    probability: float | None = None
    gates: float = 1.0
    readout: float = 1.0
    idle: float | None = None
    unknown: tuple[str, ...] = ()
    seconds: float | None = None
    typical: bool = False

    @property
    def sentence(self) -> str:
        """The figures in plain words."""
        bound = self.gates * self.readout * (1.0 if self.idle is None else self.idle)
        if self.probability is None:
            return f"unknown, at most {bound:.3g}: no rates of {', '.join(self.unknown)}"
        text = f"{self.probability:.3g} (gates {self.gates:.3g}, readout {self.readout:.3g})"
        if self.idle is not None:
            text += f"; {bound:.3g} with idle times"
        if self.seconds is not None:
            text += f"; {1e6 * self.seconds:,.3g} µs a run"
        return text + ("; medians of the device, the circuit is not mapped" if self.typical else "")


@dataclass(frozen=True, slots=True)
class CircuitSection:
    """One circuit.

    Attributes:
        name: Its name.
        before: Counts before, :meth:`qcomp.ir.stats.Stats.to_dict`.
        after: Counts after.
        drawing: The compiled circuit as text.
        check: How equivalence was checked.
        success: How likely it runs without a fault on its device; None without a device.
        svg: The compiled circuit as SVG made by :func:`qcomp.report.svg.circuit_svg`; for the page,
            not in JSON.
    """

    name: str
    before: Mapping[str, int] = field(default_factory=dict)
    after: Mapping[str, int] = field(default_factory=dict)
    drawing: str = ""
    check: CheckLine | None = None
    success: SuccessLine | None = None
    svg: str = field(default="", compare=False, repr=False, metadata={"json": False})


@dataclass(frozen=True, slots=True)
class BudgetLine:
    """One line of the error budget; the fields of :class:`qcomp.budget.Entry`."""

    spender: str
    kind: str
    promised: float
    spent: float
    measure: str
    predicted: float | None = None
    measured: float | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What one compile did and how it is known to be right.

    Attributes:
        title: Heading of the page.
        source: What was compiled.
        targets: What it was compiled for.
        seed: Seed of everything random.
        cpu_seconds: CPU time of the whole compile.
        versions: Package -> version.
        sizes: Bytes before and after.
        passes: Every pass in the order it ran.
        quantization: Quantization of the graph.
        circuits: Every circuit.
        accuracy: Figures on labelled samples.
        bound: What ``--max-drop`` kept in float; None without one.
        checks: What was checked, and what was not.
        budget: The error budget's ledger.
        runs: How the circuits of a hybrid model are to be run.
        front: Of ``qcomp sweep``.
        warnings: What the user should know, one sentence each.
    """

    title: str = "qcomp report"
    source: SourceLine | None = None
    targets: tuple[TargetLine, ...] = ()
    seed: int | None = None
    cpu_seconds: float | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    sizes: Sizes | None = None
    passes: tuple[PassLine, ...] = ()
    quantization: Quantization | None = None
    circuits: tuple[CircuitSection, ...] = ()
    accuracy: tuple[AccuracyLine, ...] = ()
    bound: BoundLine | None = None
    checks: tuple[CheckLine, ...] = ()
    budget: tuple[BudgetLine, ...] = ()
    runs: tuple[RunLine, ...] = ()
    front: FrontSection | None = None
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """Return plain data for JSON, with the format's name and version first."""
        body = _encode(self)
        assert isinstance(body, dict)
        return {"schema": SCHEMA, "version": VERSION, **body}

    def to_json(self) -> str:
        """Return JSON text, one fact a line; numbers that JSON lacks are texts such as "inf"."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def to_html(self) -> str:
        """Return one self-contained HTML page."""
        from qcomp.report.page import render

        return render(self)

    @staticmethod
    def from_json(text: str) -> Report:
        """Read what :meth:`to_json` wrote.

        Raises:
            SourceError: If the text is no report, or one of a newer version.
        """
        try:
            data = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise SourceError("this is no JSON", why=str(error)) from None
        if not isinstance(data, dict) or data.pop("schema", None) != SCHEMA:
            raise SourceError(
                "this is no report of qcomp", hint=f'its first entry is "schema": "{SCHEMA}"'
            )
        version = data.pop("version", None)
        if not isinstance(version, int) or not 1 <= version <= VERSION:
            raise SourceError(
                f"the report has version {version}, this qcomp reads versions up to {VERSION}",
                hint="upgrade qcomp",
            )
        report = _decode(data, Report, "report")
        assert isinstance(report, Report)
        return report


# --- plain data <-> dataclasses --------------------------------------------------------------


def _encode(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: _encode(getattr(value, f.name))
            for f in dataclasses.fields(value)
            if f.metadata.get("json", True)
        }
    if isinstance(value, Mapping):
        return {str(key): _encode(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value))
    return value


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _decode(value: object, hint: Any, where: str) -> object:  # noqa: ANN401  a type expression
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        inner = next(a for a in arguments if a is not type(None))
        return _decode(value, inner, where)
    if origin is Literal and value in arguments:
        return value
    if origin is tuple and isinstance(value, list):
        return tuple(_decode(v, arguments[0], f"{where}[{i}]") for i, v in enumerate(value))
    if origin is Mapping and isinstance(value, dict):
        return {k: _decode(v, arguments[1], f"{where}.{k}") for k, v in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return _decode_dataclass(value, hint, where)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is float and value in ("inf", "-inf", "nan"):
        return float(str(value))
    plain = hint in (str, int, bool) and isinstance(value, hint)
    if plain and isinstance(value, bool) == (hint is bool):
        return value
    raise SourceError(f"the report's entry '{where}' cannot be {value!r:.60}")


def _decode_dataclass(value: dict[str, object], hint: Any, where: str) -> object:  # noqa: ANN401
    known = {f.name for f in dataclasses.fields(hint) if f.metadata.get("json", True)}
    unknown = sorted(set(value) - known)
    if unknown:
        raise SourceError(f"the report's entry '{where}' has no part '{unknown[0]}'")
    hints = _hints(hint)
    parts = {k: _decode(v, hints[k], f"{where}.{k}") for k, v in value.items()}
    try:
        return hint(**parts)
    except TypeError:
        missing = [
            f.name
            for f in dataclasses.fields(hint)
            if f.name not in parts
            and f.default is dataclasses.MISSING
            and f.default_factory is dataclasses.MISSING
        ]
        raise SourceError(f"the report's entry '{where}' lacks {', '.join(missing)}") from None
