"""RSQ: error feedback in which important tokens count more.

    W^ = argmin ||(W X - W^ X) R||^2,    H = 2 X R^2 X^T,    R = diag(r)

with r_t the importance of token t, mapped to [least, most] in each sequence:

    r_t = least + (most - least) (a_t - min a) / (max a - min a).

``importance=attention`` (the paper's choice): a_t is the attention that t receives in the layer's
own block, summed over heads and queries; ``norm``: the length of the layer's input; ``first``: the
first half of the positions has ``most``, the others ``least``. The rest is GPTQ. ``rotate`` before
this pass is the R of the name.

Which attention a layer belongs to is found in the graph
(:mod:`qcomp.passes.graph.attention_tokens`). Layers that no attention comes before, or whose rows
are not its tokens, give all rows the same weight; a warning counts them. The attention is that of
the float model, gathered before the first layer is rounded (ours; the paper takes it block by
block behind quantized blocks). The authors search ``least`` in [0.005, 0.1] for large models; 0.5
is what does no harm on our small decoder.

Preconditions: as for ``gptq``; with ``attention`` a model in which attentions can be found.
Preserved: everything; the graph does not change.
Cost: GPTQ's, and with ``attention`` another run of the float model.
Source: Sung et al. 2025, arXiv:2503.01820 (abstract and the authors' code; we did not read the
text).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from qcomp.errors import UsageError
from qcomp.ir.program import Program
from qcomp.ir.shapes import infer_shapes
from qcomp.passes.graph.attention_tokens import attentions_of_layers, probabilities
from qcomp.passes.graph.rewriting import Editor, node_label
from qcomp.passes.quantize.error_feedback.layerwise import TokenWeights
from qcomp.passes.quantize.gptq import Gptq
from qcomp.passes.quantize.learn_rounding_graph import Layer, Stream
from qcomp.passmanager import Context

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Rsq"]

Floats = npt.NDArray[np.float32]
Array = npt.NDArray[np.generic]

_KINDS = ("attention", "norm", "first", "uniform")


@dataclass(frozen=True)
class Rsq(Gptq):
    """Round weights with error feedback in which important tokens count more (RSQ).

    Attributes:
        importance: ``attention`` (what a token receives), ``norm`` (of the input), ``first`` (half
            of the positions), or ``uniform``, which is GPTQ.
        least: Weight of the least important token of a sequence.
        most: Weight of the most important one.
    """

    name: ClassVar[str] = "rsq"

    importance: Literal["attention", "norm", "first", "uniform"] = "attention"
    least: float = 0.5
    most: float = 1.0

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        super().__post_init__()
        if self.importance not in _KINDS:
            raise UsageError(
                f"rsq: importance is '{self.importance}'", hint=f"one of {', '.join(_KINDS)}"
            )
        if not 0.0 <= self.least <= self.most or self.most == 0.0:
            raise UsageError(
                f"rsq: weights go from {self.least} to {self.most}",
                hint="0 <= least <= most, most > 0",
            )

    def token_weights(
        self,
        program: Program,
        layers: Sequence[Layer],
        chunks: Sequence[Mapping[str, Array]],
        context: Context,
    ) -> TokenWeights | None:
        """r_t of the tokens that a layer reads."""
        if self.importance == "uniform":
            return None
        if self.importance == "norm":
            return lambda layer, index, x: self._mapped(_lengths(x))
        if self.importance == "first":
            return lambda layer, index, x: self._first(x)
        nodes = [layer.node for layer in layers]
        owners = attentions_of_layers(program.model.graph, nodes)
        received = _received(program, [a for a in owners.values() if a is not None], chunks)
        if not received:
            context.warn(
                "rsq: no attention of a tensor with itself was found in the graph: every token"
                " counts the same, as in gptq; importance=norm needs none"
            )
            return None
        alone = [node_label(node) for node in nodes if owners[node] is None]
        if alone:
            context.warn(
                f"rsq: {len(alone)} layers have no attention before them, '{alone[0]}' the first:"
                " their tokens count the same"
            )

        def weigh(layer: Layer, index: int, x: Array) -> Floats | None:
            attention = owners[layer.node]
            if attention is None:
                return None
            found = _by_sequence(received[attention][index], x.shape)
            if found is None and index == 0:
                context.warn(
                    f"rsq: the rows of '{node_label(layer.node)}' are not the tokens of"
                    f" '{node_label(attention)}': they count the same"
                )
            return None if found is None else self._mapped(found)

        return weigh

    def _mapped(self, a: Floats) -> Floats:
        """From [sequences, tokens] to r of all rows; ``most`` where a sequence has one value."""
        low, high = a.min(axis=1, keepdims=True), a.max(axis=1, keepdims=True)
        width = high - low
        share = np.where(width > 0, (a - low) / np.where(width > 0, width, 1), 1)
        return (self.least + (self.most - self.least) * share).astype(np.float32).reshape(-1)

    def _first(self, x: Array) -> Floats | None:
        """The first half of the positions; None where rows are no positions."""
        if x.ndim < 3:
            return None
        *lead, length, _ = x.shape
        row = np.where(np.arange(length) < (length + 1) // 2, self.most, self.least)
        return np.broadcast_to(row, (*lead, length)).astype(np.float32).reshape(-1)


def _received(
    program: Program, attentions: Sequence[ir.Node], chunks: Sequence[Mapping[str, Array]]
) -> dict[ir.Node, list[Floats]]:
    """What each key receives of all queries, for each attention and chunk: float32[..., keys].

    The float model runs from one attention to the next; its probabilities are summed in the graph.
    """
    wanted = set(attentions)
    model = program.model.clone()
    copy = Program(model, program.circuits, program.source)
    twins = {a: b for a, b in zip(program.model.graph, model.graph, strict=True) if a in wanted}
    editor = Editor(model)
    sums: dict[ir.Node, ir.Value] = {}
    for node, twin in twins.items():
        name = f"{node_label(node)}_received"
        axis = editor.initializer(f"{name}_axis", np.array([-2]))
        p = probabilities(editor, twin)
        add = editor.node("ReduceSum", [p, axis], {"keepdims": 0}, name=name, after=p.producer())
        sums[node] = add.outputs[0]
    infer_shapes(copy)
    stream = Stream(copy, chunks, ())
    found: dict[ir.Node, list[Floats]] = {}
    for node, value in sums.items():
        # The mixture, too: else the probabilities would be held for it.
        targets = [value, twins[node].outputs[0]]
        stream.want([value.name or ""])
        stream.run(stream.part(stream.missing(targets), targets))
        found[node] = [np.asarray(chunk[value.name or ""], np.float32) for chunk in stream.chunks]
        stream.forget([value.name or ""])
    return found


def _lengths(x: Array) -> Floats:
    """Lengths of the rows of a layer's input, float32[sequences, tokens]."""
    a = np.linalg.norm(np.asarray(x, np.float32), axis=-1)
    return a.reshape(-1, a.shape[-1]) if a.ndim > 1 else a[None]


def _by_sequence(received: Floats, shape: Sequence[int]) -> Floats | None:
    """Sums over heads, float32[sequences, tokens], for the rows of an input; None if they differ.

    Keys of the past come first and belong to no row.
    """
    if len(shape) == 3:
        count, length = shape[:2]
    else:
        length = received.shape[-1]
        count = shape[0] // length
        if len(shape) != 2 or count * length != shape[0]:
            return None
    heads = received.size // max(1, received.shape[-1] * count)
    if received.shape[-1] < length or heads * count * received.shape[-1] != received.size:
        return None
    a = received.reshape(count, heads, -1).sum(axis=1)
    return a[:, a.shape[1] - length :]
