"""Learned rounding: the integers of weights that change the outputs of layers or blocks least.

Rounding each weight to the nearest integer is not what keeps a layer's output: errors of one
channel's weights add up. With the inputs x_q that the quantized layers before it make, a layer or a
block f is given the integers that minimise

    |f(W_q, x_q) - f(W, x)|^2          (the Relu or Clip behind a layer is part of f)

by gradient descent on a relaxation (:mod:`qcomp.passes.quantize.learn_rounding_engine`), from the
front of the graph to its end. Scales are searched first, and learned beside in blocks. Of what was
learned and rounding to nearest, each block keeps what has the smaller error on rows that it was
not learned on.

* ``granularity=layer``, ``freedom=neighbours``, ``scales=false``: AdaRound, each layer by itself,
  each weight up or down.
* ``granularity=block``: residual and transformer blocks as a whole, with the degrees of freedom
  that ``freedom`` and ``scales`` give. Which loss, optimizer and freedom serve best is what
  arXiv:2308.07662 asks; the defaults are what did best on the models of ``benchmarks``.
* ``granularity=entropy``, ``scheme=tokens``: Q-VLM's partition by the entropy of activations
  (:mod:`qcomp.passes.quantize.entropy_blocks`), for few bits of activations.

The integers go to the quantizing pass behind this one (:class:`qcomp.quantization.ChosenWeights`).

Preconditions: calibration data; PyTorch. Directly before ``quantize-static`` (behind
``calibrate``), ``quantize-weights`` or ``quantize-tokens``.
Preserved: the graph; nothing in it changes.
Cost: ``steps`` times forward and backward through each block on ``batch`` rows, and two runs of the
program over ``rows``. Memory: the values between two blocks for these rows, and one block.
Source: Nagel et al. 2020, arXiv:2004.10568 (AdaRound), equations 21-25; Yvinec et al. 2023,
arXiv:2308.07662; Li et al. 2021, arXiv:2102.05426 (blocks).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from qcomp.errors import PassError, UsageError, suggest
from qcomp.node_rules import name_nodes
from qcomp.passes.calibrate.batches import checked_batches
from qcomp.passes.quantize.entropy_blocks import entropies, entropy_blocks, only_from
from qcomp.passes.quantize.learn_rounding_engine import (
    Grid,
    Recipe,
    Rows,
    choose_grid,
    chosen_weight,
    distance,
    hard_weights,
    learn,
    nearest,
)
from qcomp.passes.quantize.learn_rounding_graph import (
    Layer,
    Stream,
    Twin,
    Unit,
    blocks_of,
    layers_of,
    make_twin,
)
from qcomp.passes.quantize.learn_rounding_torch import TorchBlock, one_thread, unknown_operators
from qcomp.passes.quantize.static_plan import weight_axis
from qcomp.passes.quantize.weights import float_weight
from qcomp.passes.torch_graph import import_torch
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.quantization import ChosenWeight, ChosenWeights, LearnedRounding, TensorStatistics

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.program import Program

__all__ = ["LearnRounding"]

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float32]

_ENTROPY_CHUNKS = 4
"""Chunks of rows that entropies are measured on."""

_HELD = 4
"""One chunk of rows in so many is kept back to judge."""

_CHOICES = {
    "scheme": ("auto", "static", "weights", "tokens"),
    "granularity": ("layer", "block", "entropy"),
    "loss": ("mse", "lp", "cosine"),
    "freedom": ("neighbours", "grid"),
    "optimizer": ("adam", "adamw", "sgd"),
}


@dataclass(frozen=True)
class LearnRounding(GraphPass):
    """Learn how weights are rounded, from calibration data, with PyTorch.

    Attributes:
        bits: Of weights, 2 to 8, where no override says otherwise.
        group: Weights that share a scale, along input channels; 0: an output channel, -1: a tensor.
        symmetric: Whether there are no zero points; integer kernels want none.
        scheme: Which pass takes the integers: ``static``, ``weights``, ``tokens``
            (``quantize-tokens``), or ``auto``: ``static`` if activations were calibrated, else
            ``weights``.
        activations: Bits of activations with ``scheme=tokens``: 8 or 4.
        granularity: ``layer``, ``block``, or ``entropy``: blocks joined where the value between
            them has a high entropy.
        span: Blocks that are learned as one; at most so many with ``entropy``.
        tower: Name of a graph input: blocks that depend on no other one are learned with the
            rounding of their results in the loss.
        steps: Gradient steps a layer or block.
        rows: Calibration samples to learn on; a third more is used to judge.
        batch: Samples a step.
        loss: ``mse``, ``lp`` (2.4th power) or ``cosine``.
        freedom: ``neighbours`` (up or down) or ``grid`` (any integer).
        scales: Whether scales are learned beside.
        optimizer: ``adam``, ``adamw`` or ``sgd``.
        rate: Learning rate, falling to 0 by a cosine.
        penalty: Weight of the term that makes h(V) whole, see the engine.
    """

    name: ClassVar[str] = "learn-rounding"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    bits: int = 8
    group: int = 0
    symmetric: bool = True
    scheme: Literal["auto", "static", "weights", "tokens"] = "auto"
    activations: Literal[8, 4] = 8
    granularity: Literal["layer", "block", "entropy"] = "block"
    span: int = 1
    tower: str = ""
    steps: int = 200
    rows: int = 192
    batch: int = 16
    loss: Literal["mse", "lp", "cosine"] = "mse"
    freedom: Literal["neighbours", "grid"] = "grid"
    scales: bool = True
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    rate: float = 0.02
    penalty: float = 1.0

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        for option, allowed in _CHOICES.items():
            if getattr(self, option) not in allowed:
                raise UsageError(
                    f"learn-rounding: {option} is '{getattr(self, option)}'",
                    hint=f"{option} is one of {', '.join(allowed)}",
                )
        if not 2 <= self.bits <= 8:
            raise UsageError(f"learn-rounding: bits is {self.bits}", hint="2 to 8")
        if self.group < -1 or self.steps < 0 or min(self.rows, self.batch, self.span) < 1:
            raise UsageError(
                "learn-rounding: an option is too small",
                hint="group >= -1, steps >= 0, rows, batch and span >= 1",
            )
        if self.activations not in (8, 4):
            raise UsageError(
                f"learn-rounding: activations is {self.activations}", hint="8 or 4 bits"
            )
        if not self.rate > 0.0 or not self.penalty >= 0.0:
            raise UsageError("learn-rounding: rate is positive, penalty not negative")

    def run(self, program: Program, context: Context) -> bool:
        """Choose integers; the graph stays as it is.

        Raises:
            UsageError: PyTorch is not installed, or the data do not fit the model.
            PassError: There are no calibration data, or integer kernels are asked to take blocks.
        """
        torch = import_torch("learn-rounding")
        if context.calibration is None:
            raise PassError("learn-rounding has no calibration data", hint="--calib data.npz")
        scheme = self.scheme
        if scheme == "auto":
            scheme = "static" if context.get(TensorStatistics) is not None else "weights"
        if scheme == "static" and (self.group > 0 or not self.symmetric):
            raise PassError(
                "integer kernels take weights with a scale a channel or tensor and no zero points",
                hint="learn-rounding{group=0}, or scheme=weights with 'quantize-weights'",
            )
        name_nodes(program.model.graph)
        self._check_tower(program)
        twin = make_twin(program, context, scheme, self.bits, self.activations)
        if not twin.layers:
            return False
        work = _Work(self, program, twin, context)
        with one_thread(torch):
            weights = work.run()
        before = context.get(ChosenWeights) or ChosenWeights()
        context.put(before.joined(weights))
        context.put(work.account)
        return False

    def _check_tower(self, program: Program) -> None:
        names = [value.name or "" for value in program.model.graph.inputs]
        if self.tower and self.tower not in names:
            raise UsageError(
                f"learn-rounding: the graph has no input '{self.tower}'",
                hint=suggest(self.tower, names),
            )

    def recipe(self) -> Recipe:
        """What the engine is told."""
        return Recipe(
            self.steps,
            self.batch,
            self.loss,
            self.freedom,
            self.optimizer,
            self.rate,
            self.scales,
            self.penalty,
        )


class _Work:
    """One run of the pass."""

    def __init__(
        self, options: LearnRounding, program: Program, twin: Twin, context: Context
    ) -> None:
        from qcomp.ir.program import Program
        from qcomp.ir.shapes import infer_shapes

        self.options, self.twin, self.context = options, twin, context
        self.rng = context.rng(options.name)
        floating = Program(program.model.clone(), program.circuits, program.source)
        infer_shapes(floating)
        nodes = {node.name: node for node in floating.model.graph}
        for layer in twin.layers:
            layer.node = nodes[layer.node.name]
        self.units = layers_of(twin.layers)
        if options.granularity != "layer":
            span = options.span if options.granularity == "block" else 1
            self.units = blocks_of(floating.model.graph, twin.layers, span)
        chunks = list(self._chunks(program))
        self.learned_on = [i for i in range(len(chunks)) if len(chunks) == 1 or i % _HELD != 3]
        self.judged_on = [i for i in range(len(chunks)) if i not in self.learned_on] or [0]
        if len(chunks) < _HELD and len(chunks) > 1:
            self.learned_on, self.judged_on = list(range(len(chunks) - 1)), [len(chunks) - 1]
        if options.granularity == "entropy":
            stream = Stream(floating, chunks[:_ENTROPY_CHUNKS], ())
            self.units = entropy_blocks(self.units, entropies(self.units, stream), options.span)
        self.tower = only_from(floating.model.graph, options.tower)
        targets = [unit.target.name or "" for unit in self.units]
        self.floats = Stream(floating, chunks, targets)
        self.quantized = Stream(twin.program, chunks, ())
        self.account = LearnedRounding({}, {})
        self.weights: dict[str, ChosenWeight] = {}

    def _chunks(self, program: Program) -> Iterator[dict[str, Array]]:
        """Batches of the calibration data, up to the rows that are asked for."""
        assert self.context.calibration is not None
        wanted, taken = self.options.rows * _HELD // (_HELD - 1), 0
        size = max(1, min(self.options.batch, wanted // _HELD))
        whole: int | None = None
        for feeds in checked_batches(program.model, self.context.calibration(), size):
            rows = max((array.shape[0] for array in feeds.values() if array.ndim), default=1)
            whole = rows if whole is None else whole
            if rows != whole:
                continue  # a rest: minibatches are mixed of chunks of one length
            yield dict(feeds)
            taken += rows
            if taken >= wanted:
                return

    def run(self) -> dict[str, ChosenWeight]:
        queue = deque(self.units)
        with self.context.progress.task("learning rounding", len(self.twin.layers)) as task:
            while queue:
                unit = queue.popleft()
                apart = self._unit(unit)
                queue.extendleft(reversed(apart))
                if not apart:
                    task.advance(len(unit.layers))
        kept = sum(learned for learned, _ in self.account.layers.values())
        if kept < len(self.account.layers) and self.options.steps:
            self.context.warn(
                f"learn-rounding: {kept} of {len(self.account.layers)} weights have learned "
                "integers; the others are rounded to nearest, which did better on rows held back"
            )
        return self.weights

    def _unit(self, unit: Unit) -> list[Unit]:
        """Learn one unit; return its layers as units where it cannot be learned as a whole."""
        name = unit.target.name or ""
        output = self.quantized.value(self.twin.outputs.get(name, name))
        nodes = self.quantized.missing([output])
        readers = {reader for layer in unit.layers for reader in layer.readers}
        core = _behind(nodes, readers)
        unknown = unknown_operators(core)
        if unknown:
            self.account.refused[unit.label] = unknown
            self.context.warn(
                f"learn-rounding: the block {unit.label} holds {', '.join(unknown)}, which has no "
                "gradient here: learned layer by layer"
            )
            apart = layers_of(unit.layers)
            self.floats.want(each.target.name or "" for each in apart)
            return apart
        self.floats.run(self.floats.part(self.floats.missing([unit.target]), [unit.target]))
        goals = [chunk[name] for chunk in self.floats.chunks]
        inside = set(core)
        self.quantized.run(self.quantized.part([node for node in nodes if node not in inside]))
        part = self.quantized.part(core, [output])
        handed = [value.name or "" for value in part.inputs]
        chunks = [{n: chunk[n] for n in handed} for chunk in self.quantized.chunks]
        self._learn(unit, TorchBlock(core, handed), output.name or "", chunks, goals)
        self.quantized.run(part)
        self.floats.forget([name])
        return []

    def _learn(
        self,
        unit: Unit,
        block: TorchBlock,
        output: str,
        chunks: Sequence[dict[str, Array]],
        goals: Sequence[Array],
    ) -> None:
        options, layers = self.options, unit.layers
        rows = Rows([chunks[i] for i in self.learned_on], [goals[i] for i in self.learned_on])
        judge = Rows([chunks[i] for i in self.judged_on], [goals[i] for i in self.judged_on])
        real = [
            np.asarray(float_weight(layer.node.inputs[1]).numpy(), np.float32) for layer in layers
        ]
        plain = [self._grid(layer, w, None, False) for layer, w in zip(layers, real, strict=True)]
        power = _input_power(block, layers, real, rows)
        grids = [
            self._grid(layer, w, part, True)
            for layer, w, part in zip(layers, real, power, strict=True)
        ]
        tries: list[tuple[str, list[Grid], list[Floats]]] = [
            ("", plain, [nearest(grid) for grid in plain]),
            ("round to nearest, scale searched", grids, [nearest(grid) for grid in grids]),
        ]
        if options.steps:
            learned = [grid.copy() for grid in grids]
            behind = options.activations if unit.target in self.tower else 0
            levels = learn(block, output, layers, learned, rows, options.recipe(), self.rng, behind)
            tries.append((f"learned rounding by {options.granularity}", learned, levels))
        errors = [distance(block, output, layers, q, g, judge) for _, g, q in tries]
        best = int(np.argmin(errors))
        method, found, levels = tries[best]
        gain = 10.0 * float(np.log10(max(errors[0], 1e-30) / max(errors[best], 1e-30)))
        for layer, grid, q in zip(layers, found, levels, strict=True):
            axis = weight_axis(layer.node)
            text = f"{method}, {gain:+.1f} dB" if method else ""
            group = options.group if layer.group is None else layer.group
            weight = chosen_weight(grid, q, axis, group, options.symmetric, layer.bits, text)
            self.weights[layer.weight] = weight
            layer.put(weight.real())
            self.account.layers[layer.weight] = (best == 2, gain)

    def _grid(self, layer: Layer, weight: Floats, power: Floats | None, searched: bool) -> Grid:
        return choose_grid(
            weight,
            weight_axis(layer.node),
            layer.bits,
            self.options.group if layer.group is None else layer.group,
            self.options.symmetric,
            not self.twin.static and (self.options.scheme != "tokens" or layer.bits <= 4),
            power,
            searched,
        )


def _behind(nodes: Sequence[ir.Node], readers: set[ir.Node]) -> list[ir.Node]:
    """The nodes that depend on some of them, these included, in order."""
    made: set[ir.Value] = set()
    found = []
    for node in nodes:
        if node in readers or any(value in made for value in node.inputs):
            found.append(node)
            made.update(node.outputs)
    return found


def _input_power(
    block: TorchBlock, layers: Sequence[Layer], real: Sequence[Floats], rows: Rows
) -> list[Floats | None]:
    """Mean square of each input channel of the layers; None for grouped convolutions."""
    torch: Any = import_torch("learn-rounding")
    with torch.no_grad():
        values = block.run({**rows.chunks[0], **hard_weights(layers, real, torch)})
    powers: list[Floats | None] = []
    for layer, weight in zip(layers, real, strict=True):
        read = layer.readers[0].inputs[0]
        x = values[(read.name if read is not None else "") or ""]
        axis = 1 if layer.node.op_type == "Conv" else x.dim() - 1
        others = [i for i in range(x.dim()) if i != axis]
        power = np.asarray(x.pow(2).mean(dim=others).numpy(), np.float32)
        inner = weight.shape[1] if weight.ndim > 2 else weight.shape[1 - weight_axis(layer.node)]
        powers.append(power if power.size == inner else None)
    return powers
