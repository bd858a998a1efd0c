"""How sensitive a model's output is to the bits of each tensor: one tensor at a time is rounded.

    error(l, b, g) = L(f(x; W_l -> Q_bg(W_l)), f(x; W_l))

Every tensor takes every number of bits in turn, in blocks of the first group, and the outputs are
compared with float's (:mod:`qcomp.passes.allocate.output_error`: divergence in nats for logits,
else squared error). Other groups move the operator's own result by more or less, and

    error(l, b, g') = error(l, b, g) |D_bg' X|^2 / |D_bg X|^2,        D = Q(W) - W

which is what the output's change is to second order, if it points nowhere else; ``measured=all``
runs them, too. Weights are rounded to nearest on fitted grids; error feedback, which rounds better,
gains about as much everywhere.

Without calibration data, ``generate-data`` in front makes some.

Preconditions: floating point, functions inlined; no circuits. Graphs with more than 512 MiB of
weights are left out.
Preserved: everything; leaves a :class:`qcomp.sensitivity.Sensitivities` fact.
Cost: for each tensor half a run of the model on ``rows`` samples for each number of bits.
Source: Cai et al. 2020 (ZeroQ), arXiv:2001.00281, section 3.2 and equation 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from qcomp.errors import PassError, UsageError
from qcomp.model_file import model_bytes
from qcomp.node_rules import name_nodes
from qcomp.passes.allocate.output_error import Array, Probe, measure
from qcomp.passes.allocate.storage import Form, Place, Way, find_places
from qcomp.passes.analyze.output_loss import output_loss
from qcomp.passes.calibrate.batches import checked_batches
from qcomp.passes.calibrate.layer_rows import Floats, layer_geometry, weight_columns, weight_like
from qcomp.passes.graph.rewriting import constant_tensor, node_label, read_weight
from qcomp.passes.quantize.blocked_weights import GROUPS
from qcomp.passes.quantize.grids import Fit, Grid
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.quantization import GeneratedData, rules_of
from qcomp.sensitivity import BitChoice, Sensitivities, TensorSensitivity

if TYPE_CHECKING:
    from qcomp.ir.program import Program

__all__ = ["MeasureSensitivity", "TensorOptions", "rounded", "sampled_changes"]

_LARGEST = 1 << 29
"""Bytes of float weights up to which a graph is run."""


@dataclass(frozen=True)
class TensorOptions(GraphPass):
    """Which tensors are looked at, and the ways to store them: what all sensitivities share.

    Attributes:
        bits: To choose from, 2 to 8.
        groups: Blocks to choose from; the first is the one that is measured.
        form: How ``quantize-weights`` will store layers, or ``static``: a scale an output channel,
            as ``quantize-static`` does.
        symmetric: Whether blocks will have no zero points.
        fit: How grids are fitted.
        tables: Whether tables that are looked up may have other bits than 8.
        convolutions: Whether convolutions get bits, too, as ``quantize-static`` will store them.
        rows: Calibration samples, at most.
        feedback: What error feedback behind will leave of the error of a layer rounded to nearest;
            tables are rounded without it.
        needs_data: Whether to refuse where no calibration data was given.
    """

    preserves: ClassVar[Guarantee] = Guarantee.EXACT
    takes_circuits: ClassVar[bool] = False
    """Whether a graph may have circuits in it."""

    bits: tuple[int, ...] = (2, 4, 8)
    groups: tuple[int, ...] = (32, 16, 64, 128)
    form: Form = "matmulnbits"
    symmetric: bool = False
    fit: Fit = "lsq"
    tables: bool = True
    convolutions: bool = False
    rows: int = 4
    feedback: float = 1.0
    needs_data: bool = True

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        if not self.bits or any(not 2 <= b <= 8 for b in self.bits):
            raise UsageError(f"{self.name}: bits are 2 to 8", hint="bits=[2,4,8]")
        if not self.groups or any(g not in GROUPS for g in self.groups):
            known = ", ".join(map(str, GROUPS))
            raise UsageError(f"{self.name}: groups are some of {known}", hint="groups=[32,16]")
        if self.form not in ("matmulnbits", "int8", "static"):
            raise UsageError(
                f"{self.name}: form is '{self.form}'", hint="'matmulnbits', 'int8' or 'static'"
            )
        if self.rows < 1:
            raise UsageError(f"{self.name}: rows is at least 1")
        if not 0 < self.feedback <= 1:
            raise UsageError(f"{self.name}: feedback is above 0 and at most 1", hint="0.35")

    def places(self, program: Program, context: Context) -> list[Place]:
        """The tensors, with operators named."""
        name_nodes(program.model.graph)
        return find_places(
            program.model,
            rules_of(context),
            self.bits,
            self.groups,
            self.form,
            symmetric=self.symmetric,
            tables=self.tables,
            convolutions=self.convolutions,
        )

    def data(self, program: Program, context: Context) -> list[dict[str, Array]]:
        """The first rows of the calibration data.

        Raises:
            PassError: There is none.
        """
        if context.calibration is None:
            raise PassError(
                f"{self.name} has no data to run the model on",
                hint="give calibration data (--calib data.npz, or --calib generated)",
            )
        chunks: list[dict[str, Array]] = []
        left = self.rows
        for feeds in checked_batches(program.model, context.calibration(), self.rows):
            count = max((a.shape[0] for a in feeds.values() if a.ndim), default=1)
            if count > left and chunks:
                break
            chunks.append(feeds)
            left -= count
            if left <= 0:
                break
        return chunks

    def skips(self, program: Program, context: Context) -> str:
        """Why sensitivities are not looked for here; "" where they are."""
        if context.calibration is None and not self.needs_data:
            return "there is no data"
        if program.circuits and not self.takes_circuits:
            return "the graph has circuits in it"
        if model_bytes(program.model) > _LARGEST:
            return f"the graph has more than {_LARGEST >> 20} MiB of weights"
        return ""

    def table(
        self,
        method: str,
        unit: str,
        chunks: Sequence[Mapping[str, Array]],
        tensors: Sequence[TensorSensitivity],
        context: Context,
    ) -> Sensitivities:
        """The common result."""
        rows = sum(max((a.shape[0] for a in f.values() if a.ndim), default=1) for f in chunks)
        made = context.get(GeneratedData) is not None
        data = "generated" if made else "calibration"
        return Sensitivities(method, unit, rows, data, tuple(tensors))


@dataclass(frozen=True)
class MeasureSensitivity(TensorOptions):
    """Measure what the outputs lose if one tensor at a time is rounded.

    Attributes:
        measured: Whether the model runs with each number of ``bits``, with ``one`` of them (the
            largest up to 4), or with ``all`` groups of each, too.
        loss: ``kl``, ``squared``, or ``auto``: by what the outputs are.
    """

    name: ClassVar[str] = "measure-sensitivity"
    takes_circuits: ClassVar[bool] = True

    measured: Literal["one", "bits", "all"] = "bits"
    loss: Literal["auto", "kl", "squared"] = "auto"

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        super().__post_init__()
        if self.measured not in ("one", "bits", "all") or self.loss not in (
            "auto",
            "kl",
            "squared",
        ):
            raise UsageError(
                f"{self.name}: measured is '{self.measured}', loss is '{self.loss}'",
                hint="measured=one, bits or all; loss=auto, kl or squared",
            )

    def run(self, program: Program, context: Context) -> bool:
        """Measure; the program stays as it is.

        Raises:
            PassError: No calibration data, or a graph that cannot be run.
        """
        if self.skips(program, context):
            return False
        places = self.places(program, context)
        chunks = self.data(program, context)
        losses = output_loss(program, self.loss)
        probes = {}
        for place in places:
            for node in place.nodes:
                run = [partial(rounded, place, way, self) for way in self._run(place)]
                probes[node_label(node)] = Probe(run, partial(_parts, place, self))
        found: dict[str, dict[Way, float]] = {}
        with context.progress.task(self.name, len(probes)) as task:
            by_node = {node_label(n): place for place in places for n in place.nodes}
            for label, errors, moves in measure(program, probes, chunks, losses):
                found[label] = self._all_ways(by_node[label], errors, moves)
                task.advance()
        tensors = []
        for place in places:
            names = tuple(node_label(node) for node in place.nodes)
            times = 1.0 if place.table else self.feedback
            choices = tuple(
                BitChoice(w.bits, w.group, w.bytes, times * sum(found[n][w] for n in names))
                for w in place.ways
            )
            kind, size = place.nodes[0].op_type, int(np.prod(place.shape))
            name = place.weight.name or ""
            tensors.append(TensorSensitivity(name, names, kind, size, choices))
        context.put(self.table("output", losses[0].unit, chunks, tensors, context))
        return False

    def _run(self, place: Place) -> list[Way]:
        """The ways that the model runs with."""
        if self.measured == "all":
            return list(place.ways)
        found: dict[int, Way] = {}
        for way in sorted(place.ways, key=lambda w: self._rank(w.group)):
            found.setdefault(way.bits, way)
        if self.measured == "bits":
            return list(found.values())
        few = [way for way in found.values() if way.bits <= _FEW]
        return [max(few or found.values(), key=lambda w: w.bits if few else -w.bits)]

    def _rank(self, group: int) -> int:
        return self.groups.index(group) if group in self.groups else -1

    def _all_ways(
        self, place: Place, errors: Sequence[float], moves: Sequence[float]
    ) -> dict[Way, float]:
        """The error of every way, of those that were run and the operator's own change."""
        run = dict(zip(self._run(place), errors, strict=True))
        moved = dict(zip(place.ways, moves, strict=True))
        found = {}
        for way in place.ways:
            near = min(run, key=lambda r: (r != way, abs(r.bits - way.bits)))
            times = moved[way] / moved[near] if moved[near] and near != way else 1.0
            found[way] = run[near] * times
        return found


_FEW = 4
"""Bits up to which errors are large enough to be measured."""

_CHANNELS = 96
"""Output channels on which the ways to store one tensor are compared with each other."""


def _columns(place: Place, array: npt.NDArray[np.generic] | None = None) -> Floats:
    """A tensor, or another one of its shape, as float32[channels or rows, values of each]."""
    if array is None:
        tensor = constant_tensor(place.weight)
        assert tensor is not None
        with read_weight(tensor) as found:
            array = np.array(found, np.float32)
    if place.table:
        return np.asarray(array, np.float32)
    node = place.nodes[0]
    geometry = layer_geometry(node, array.shape)
    columns = weight_columns(node, array, geometry.group)
    return np.ascontiguousarray(columns.transpose(0, 2, 1)).reshape(place.shape)


def _round(rows: Floats, way: Way, place: Place, options: TensorOptions) -> Floats:
    whole = place.table and not way.group
    fit: Fit = "minmax" if whole else options.fit
    symmetric = whole or options.symmetric or place.form == "static"
    grid = Grid(way.bits, way.group, symmetric, fit, positive=place.form == "static")
    grids = grid.fitted(rows)
    return np.asarray(grids.real(grids.round(rows)), np.float32)


def rounded(place: Place, way: Way, options: TensorOptions) -> Floats:
    """A tensor rounded to nearest, in its own shape."""
    real = _round(_columns(place), way, place, options)
    if place.table:
        return real
    node = place.nodes[0]
    tensor = constant_tensor(place.weight)
    assert tensor is not None
    shape = tensor.shape.numpy()
    group = layer_geometry(node, shape).group
    columns = real.reshape(group, place.shape[0] // group, -1).transpose(0, 2, 1)
    return np.asarray(weight_like(node, columns, shape), np.float32)


def _parts(place: Place, options: TensorOptions) -> list[Floats]:
    """D of evenly spaced channels for every way, float32[K, channels]."""
    return [change.T for change in sampled_changes(place, options)[0]]


def sampled_changes(
    place: Place, options: TensorOptions, beside: npt.NDArray[np.generic] | None = None
) -> tuple[list[Floats], float, Floats | None]:
    """What every way moves evenly spaced channels by.

    Args:
        place: The tensor.
        options: How it is rounded.
        beside: An array of the tensor's shape, of which the same channels are wanted.

    Returns:
        float32[channels, K] for every way, all channels over these, and those of the other array.
    """
    rows = _columns(place)
    step = max(1, len(rows) // _CHANNELS)
    some = np.ascontiguousarray(rows[::step])
    changes = [_round(some, way, place, options) - some for way in place.ways]
    other = None if beside is None else _columns(place, beside)[::step]
    return changes, len(rows) / len(some), other
