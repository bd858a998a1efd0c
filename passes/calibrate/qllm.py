"""Channels of outliers taken apart, like ones merged, and what that costs corrected by low rank.

    x_j W_j  =  sum over T of (x_j / T) W_j,     x_i W_i + x_k W_k  ~  x_k (W_k + r W_i)

A scale a token serves all channels, so one that is much larger than the others takes their
resolution. It is divided into T equal ones, and as many others are merged, each into one that is
like it: the layer keeps its width (:mod:`qcomp.passes.calibrate.channel_reassembly`). What an
outlier is, is searched for every tensor by the error of the product with both sides rounded. Then
every weight takes a change A B of low rank, which is added to it before it is rounded
(:mod:`qcomp.passes.calibrate.low_rank`).

Behind products the channels are chosen by the products' columns: the graph keeps its operators.
Behind a normalization ``norms=gather`` adds one operator, ``norms=product`` makes the Mul of its
gain a product (:mod:`qcomp.passes.calibrate.channel_places`). Where neither can be done (behind
attention, behind Gelu) channels stay; weights are corrected all the same.

``assemble=false`` with ``rank=0`` is exact and makes layers wider. The options ``bits``, ``group``
and ``symmetric`` are those of the pass behind it that rounds weights: ``gptq`` and its like, or
``quantize-tokens``. A second run in the same pipeline changes nothing.

Preconditions: calibration data; weights are constants; before quantizing passes.
Preserved: nothing exactly; merging and the correction change the outputs a little.
Cost: one run over ``samples`` samples; for each threshold a rounding of all weights and a product
with ``rows`` rows; the correction a run of two programs and K^3 + N K^2 multiplications a layer.
Source: Liu et al. 2023, arXiv:2310.08041 (QLLM), section 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from qcomp.errors import PassError, UsageError
from qcomp.ir.program import Program
from qcomp.ir.shapes import infer_shapes
from qcomp.passes.calibrate.batches import checked_batches
from qcomp.passes.calibrate.channel_places import change_weight, channel_place
from qcomp.passes.calibrate.channel_reassembly import Reassembly, find_reassembly
from qcomp.passes.calibrate.low_rank import LowRank, low_rank_changes
from qcomp.passes.calibrate.quotient_search import matrix, read_tensors
from qcomp.passes.calibrate.quotients import Readers, SeenRows, see_rows
from qcomp.passes.graph.rewriting import Editor, node_label
from qcomp.passes.quantize.grids import Grid
from qcomp.passes.quantize.token_scales import ACTIVATION_BITS
from qcomp.passes.quantize.weights import float_weight
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.quantization import rules_of

__all__ = ["Qllm", "ReassembledChannels"]

if TYPE_CHECKING:
    import onnx_ir as ir

Array = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class ReassembledChannels:
    """What was done, for reports and for a second run.

    Attributes:
        added: Tensor -> channels that outliers became, less the outliers.
        gains: Tensor -> decibels of its layers' products, both sides rounded.
        corrected: Layer -> decibels of its output on rows that were kept back.
    """

    added: Mapping[str, int] = field(default_factory=dict)
    gains: Mapping[str, float] = field(default_factory=dict)
    corrected: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Qllm(GraphPass):
    """Take channels with outliers apart, merge like ones, correct weights by low rank (QLLM).

    Attributes:
        bits: 2 to 8, of the weights later.
        group: Weights along the inputs that share a scale; 0: all of an output channel.
        symmetric: Whether zero points are fixed in the middle.
        tokens: Bits of the activations later, with a scale a token: 8 or 4.
        assemble: Whether channels are merged, so that layers keep their width.
        thresholds: Thresholds that are tried.
        norms: Behind a normalization: ``gather`` or ``product``.
        rank: Of the correction; 0 for none.
        damping: Share of the mean square of an input that holds the correction back.
        rows: Rows of each activation that the search looks at.
        samples: Samples to look at.
        batch: Samples run at a time.
    """

    name: ClassVar[str] = "qllm"
    preserves: ClassVar[Guarantee] = Guarantee.WITHIN

    bits: int = 4
    group: int = 32
    symmetric: bool = False
    tokens: int = 4
    assemble: bool = True
    thresholds: int = 24
    norms: Literal["gather", "product"] = "gather"
    rank: int = 32
    damping: float = 0.01
    rows: int = 1024
    samples: int = 64
    batch: int = 16

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        self._grid()
        if self.tokens not in ACTIVATION_BITS:
            raise UsageError(f"qllm: tokens is {self.tokens}", hint="8 or 4")
        if self.norms not in ("gather", "product"):
            raise UsageError(f"qllm: norms is '{self.norms}'", hint="'gather' or 'product'")
        if min(self.thresholds, self.rows, self.samples, self.batch) < 1 or self.rank < 0:
            raise UsageError("qllm: thresholds, rows, samples and batch are at least 1, rank 0")
        if not 0.0 < self.damping < 1.0:
            raise UsageError(f"qllm: damping lies between 0 and 1, not at {self.damping}")

    def _grid(self, bits: int | None = None) -> Grid:
        return Grid(self.bits if bits is None else bits, self.group, self.symmetric, "minmax")

    def run(self, program: Program, context: Context) -> bool:
        """Change channels and weights; return whether anything was changed.

        Raises:
            PassError: No calibration data, or a weight with NaN or infinity.
            UsageError: Data that does not fit the model.
        """
        if context.calibration is None:
            raise PassError(
                "qllm has no data to find outliers in", hint="give calibration data (--calib)"
            )
        if context.get(ReassembledChannels) is not None:
            return False
        model = program.model
        groups = read_tensors(model, context, "weights")
        if not groups:
            return False
        editor = Editor(model)
        editor.name_nodes()
        original = Program(model.clone(), program.circuits, program.source)
        layers = {node_label(layer): layer for group in groups for layer in group.layers}
        seen = see_rows(
            program,
            [group.source.name or "" for group in groups],
            context,
            samples=self.samples,
            rows=self.rows,
            batch=self.batch,
        )
        added: dict[str, int] = {}
        gains: dict[str, float] = {}
        wanted: dict[str, ir.TensorProtocol] = {}
        # From the back: columns that were chosen for a tensor are those that its maker has to give.
        for group in reversed(groups):
            name = group.source.name or ""
            wanted |= {node_label(n): float_weight(n.inputs[1]) for n in group.layers}
            found = self._reassemble(editor, group, seen[name], context)
            if found is not None:
                added[name], gains[name] = int((found.parts - 1).sum()), found.gain
        if added:
            infer_shapes(program)
        corrected: dict[str, float] = {}
        if self.rank:
            changes = self._changes(program, original, wanted, context)
            for label, change in changes.items():
                shape = len(change.left), change.right.shape[1]
                change_weight(editor, layers[label], shape, change.added)
                corrected[label] = change.gain
        context.put(ReassembledChannels(added, gains, corrected))
        return bool(added or corrected)

    def _reassemble(
        self, editor: Editor, group: Readers, seen: SeenRows, context: Context
    ) -> Reassembly | None:
        """Reassemble the channels of one tensor, if that gains and can be done."""
        rules = rules_of(context)
        weights = [(matrix(layer), self._grid(rules.options(layer).bits)) for layer in group.layers]
        place = channel_place(group)
        if place is None or not seen.usable():
            return None
        peak = np.maximum(-seen.low, seen.high)
        found = find_reassembly(
            seen.kept, peak, weights, self.tokens, self.thresholds, self.assemble
        )
        if found is None:
            return None
        place.choose(editor, found.index, found.parts, self.norms, context)
        for layer, (W, _) in zip(group.layers, weights, strict=True):
            change_weight(editor, layer, (len(found.index), len(W)), found.rows)
        return found

    def _changes(
        self,
        program: Program,
        original: Program,
        wanted: Mapping[str, ir.TensorProtocol],
        context: Context,
    ) -> dict[str, LowRank]:
        """The changes of low rank, by layer."""
        assert context.calibration is not None
        chunks: list[dict[str, Array]] = []
        left = self.samples
        for feeds in checked_batches(program.model, context.calibration(), self.batch):
            chunks.append(dict(feeds))
            left -= max((a.shape[0] for a in feeds.values() if a.ndim), default=1)
            if left <= 0:
                break
        order = (node_label(node) for node in program.model.graph)
        return low_rank_changes(
            program,
            original,
            {name: wanted[name] for name in order if name in wanted},
            chunks,
            tokens=self.tokens,
            rank=self.rank,
            damping=self.damping,
        )
