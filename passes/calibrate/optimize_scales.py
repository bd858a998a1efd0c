"""Scales searched for: of weights and activations in turn, for the outputs that they give.

Ranges from a distribution of values (``calibrate``) say nothing of what the layer does with them.
Here the scales of each layer are those whose integer output points where the float one does. With
rows x of its input, W, b and scales S_x, S_w of its quantizers Q,

    maximise  cos(O, O'),     O = x W + b,     O' = Q(x; S_x) Q(W; S_w) + b

first S_w over factors [least, most] of its start with S_x fixed, then S_x with S_w fixed, and
again until neither changes, at most ``rounds`` times. Layers that read one tensor share S_x: the
mean of their cosines counts, with that of the tensor itself where an Add, Mul or Concat reads it.

S_w has a scale for each output channel m, and the cosine is that of the whole layer. Since

    cos^2(O, O') = 1 - min_t ||O - t O'||^2 / ||O||^2

channels separate for a fixed t = <O, O'> / <O', O'>: each takes the factor with the least
||O_m - t O'_m||^2, then t is computed anew; the cosine never falls.

The cosine does not see t, but what comes behind the layer does. ``measure=error``, the default,
fixes t = 1: the least ||O - O'||^2. A U-Net loses .4 dB by the cosine and gains .6 dB by the error.

The start is what ``calibrate`` found and max |w|: nothing gets worse on the rows. Ranges are left
in :class:`qcomp.quantization.TensorStatistics`, weights in
:class:`qcomp.quantization.ChosenWeights`; weights that a pass has chosen already keep their
integers.

``layers=auto`` leaves products over the positions of sequences (MatMul of another rank than 2) as
they are: a sentence transformer gains a tenth of a decibel by them and takes ten times as long.

Preconditions: ``calibrate`` ran directly before, on the same graph.
Preserved: everything; the graph does not change.
Cost: a run of the model over the data for each 32 MB of rows, then 2 ``rounds`` ``points`` products
of ``rows`` rows with each weight.
Source: Wu et al. 2020, "EasyQuant: Post-training Quantization via Scale Optimization",
arXiv:2006.16669 (there by the cosine, with 100 factors from 0.5 to 2).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from qcomp.errors import PassError, UsageError
from qcomp.integer_rules import integer_rules_of
from qcomp.passes.calibrate.batches import checked_batches
from qcomp.passes.calibrate.layer_rows import RowSample, layer_geometry
from qcomp.passes.calibrate.scale_search import METHOD, Key, Search, Unit
from qcomp.passes.graph.rewriting import static_shape
from qcomp.passes.quantize.static_plan import StaticPlan, plan_static, weight_axis
from qcomp.passes.quantize.weights import float_weight
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.quantization import ChosenWeights, TensorStatistics, rules_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.program import Program

__all__ = ["OptimizeScales"]

Floats = npt.NDArray[np.float32]

_BUDGET = 1 << 25
"""Bytes of rows that are held at a time."""


@dataclass(frozen=True)
class OptimizeScales(GraphPass):
    """Search the scales of weights and activations for the outputs of each layer (EasyQuant).

    Attributes:
        measure: ``error``, or the paper's ``cosine``.
        least: Smallest factor that is tried.
        most: Largest factor that is tried.
        points: Factors between them.
        rounds: Times that weights and activations take turns, at most.
        rows: Rows of a layer's input that the search looks at.
        layers: ``auto``: without products over positions of sequences; ``all``.
        weight_bits: As in ``quantize-static``.
        activation_bits: As in ``quantize-static``.
        weight_scales: As in ``quantize-static``.
        batch: Samples run at a time.
    """

    name: ClassVar[str] = "optimize-scales"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    measure: Literal["error", "cosine"] = "error"
    least: float = 0.5
    most: float = 1.2
    points: int = 18
    rounds: int = 2
    rows: int = 512
    layers: Literal["auto", "all"] = "auto"
    weight_bits: Literal[8, 7, 4] = 8
    activation_bits: Literal[8, 7] = 8
    weight_scales: Literal["channel", "tensor"] = "channel"
    batch: int = 8

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        if not 0.0 < self.least <= self.most:
            raise UsageError(f"optimize-scales: no factor lies in [{self.least}, {self.most}]")
        for name in ("points", "rounds", "rows", "batch"):
            if getattr(self, name) < 1:
                raise UsageError(f"optimize-scales: {name} is at least 1")
        if self.weight_bits not in (8, 7, 4) or self.activation_bits not in (8, 7):
            raise UsageError(
                f"optimize-scales: weights of {self.weight_bits} and activations of "
                f"{self.activation_bits} bits",
                hint="weights of 8, 7 or 4, activations of 8 or 7",
            )
        for name, known in (
            ("weight_scales", ("channel", "tensor")),
            ("layers", ("auto", "all")),
            ("measure", ("error", "cosine")),
        ):
            if getattr(self, name) not in known:
                raise UsageError(
                    f"optimize-scales: {name} is '{getattr(self, name)}'", hint=" or ".join(known)
                )

    def run(self, program: Program, context: Context) -> bool:
        """Search; the program stays as it is.

        Raises:
            PassError: No ranges to start from, or no calibration data.
            UsageError: Data that does not fit the model.
        """
        rules = rules_of(context)
        machine = integer_rules_of(context)
        if machine.power_of_two:  # its scales cannot be chosen so finely
            return False
        plan = plan_static(program.model, rules, machine)
        statistics = context.get(TensorStatistics)
        done = {} if statistics is None else statistics.methods
        units = [
            unit
            for unit in _units(plan, self.layers == "all")
            if done.get(unit.origin.name or "") != METHOD
        ]
        if not units:
            return False
        if statistics is None or context.calibration is None:
            raise PassError(
                "optimize-scales has no ranges to start from",
                why="no calibration ran in this pipeline",
                hint="give calibration data (--calib data.npz), put 'calibrate' before this pass",
            )
        chosen = dict((context.get(ChosenWeights) or ChosenWeights()).weights)
        ranges, methods = dict(statistics.ranges), dict(statistics.methods)
        with context.progress.task("searching scales", len(units)) as task:
            for part in _parts(units, self.rows):
                for unit, samples in self._read(program, part, context):
                    name = unit.origin.name or ""
                    if name not in ranges:
                        raise PassError(
                            f"the range of '{name}' was not measured",
                            why="the graph changed after 'calibrate'",
                            hint="put 'calibrate' directly before 'optimize-scales'",
                        )
                    search = Search(self, unit, samples, ranges[name], chosen, rules, machine)
                    ranges[name] = search.run()
                    methods[name] = METHOD
                    chosen.update(search.weights())
                    task.advance()
        context.put(replace(statistics, ranges=ranges, methods=methods))
        context.put(ChosenWeights(chosen))
        return False

    def _read(
        self, program: Program, units: list[Unit], context: Context
    ) -> Iterator[tuple[Unit, Mapping[Key, Floats]]]:
        """Run the data once; yield units with the rows of their layers' inputs."""
        from qcomp.execute import HybridSession

        assert context.calibration is not None
        samples: dict[Key, RowSample] = {}
        for key in (key for unit in units for key in unit.keys):
            seed = [context.seed, zlib.crc32(key[0].encode())]
            samples[key] = RowSample(key[1], self.rows, np.random.default_rng(seed))
        given = {value.name for value in program.model.graph.inputs}
        taps = list(dict.fromkeys(name for name, _ in samples if name not in given))
        session = HybridSession(program, taps=taps, only_taps=True)
        batches = checked_batches(program.model, context.calibration(), self.batch)
        for index, feeds in enumerate(batches):
            values = {**feeds, **session.run(feeds, taps, seed=context.seed + index)}
            for (name, _), sample in samples.items():
                sample.add(np.asarray(values[name]))
        left = [key for unit in units for key in unit.keys]
        rows: dict[Key, Floats] = {}
        for unit in units:
            for key in dict.fromkeys(unit.keys):
                if key not in rows:
                    rows[key] = samples[key].take()
            yield unit, rows
            for key in unit.keys:
                left.remove(key)
                if key not in left:
                    del rows[key]


def _units(plan: StaticPlan, sequences: bool) -> list[Unit]:
    """The activations that layers with weights read, in graph order.

    Args:
        plan: Of the graph.
        sequences: Whether products over the positions of sequences count as layers.
    """
    source = {node.outputs[0]: node.inputs[0] for node in plan.moves}
    units: dict[ir.Value, Unit] = {}
    carried: set[ir.Value] = set()
    for layer in plan.layers:
        for index in layer.activations:
            value = layer.node.inputs[index]
            assert value is not None
            origin = value
            while origin in source:
                moved = source[origin]
                assert moved is not None
                origin = moved
            if origin.name not in plan.measured:
                continue
            if not layer.weighted or not _is_layer(layer.node, sequences):
                carried.add(origin)
                continue
            unit = units.setdefault(origin, Unit(origin))
            shape = [int(dim) for dim in float_weight(layer.node.inputs[1]).shape.numpy()]
            unit.layers.append(layer)
            unit.keys.append((value.name or "", layer_geometry(layer.node, shape)))
    for unit in units.values():
        unit.carried = unit.origin in carried
    return list(units.values())


def _is_layer(node: ir.Node, sequences: bool) -> bool:
    """Whether a layer's scales are searched for."""
    if node.op_type == "MatMul" and not sequences:
        shape = static_shape(node.inputs[0])
        return shape is not None and len(shape) == 2
    return node.op_type in ("Conv", "Gemm", "MatMul")


def _parts(units: list[Unit], rows: int) -> Iterator[list[Unit]]:
    """Cut the units into pieces whose rows fit the budget together."""
    part: list[Unit] = []
    size = 0
    for unit in units:
        bytes_ = 0
        for layer in unit.layers:
            shape = [int(dim) for dim in float_weight(layer.node.inputs[1]).shape.numpy()]
            outputs = shape[weight_axis(layer.node)]
            group = layer_geometry(layer.node, shape).group
            bytes_ += 4 * rows * group * int(np.prod(shape)) // max(1, outputs)
        if part and size + bytes_ > _BUDGET:
            yield part
            part, size = [], 0
        part.append(unit)
        size += bytes_
    if part:
        yield part
