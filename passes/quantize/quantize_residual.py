"""Residual expansion: a weight as a sum of low-bit terms, each of which rounds what is left.

    R_1 = W          W_k = s_k round(R_k / s_k)          R_(k+1) = R_k - W_k
    s_k[c] = max |R_k[c]| / (2^(bits-1) - 1/2)           y = sum_k op(x, W_k) + b

Levels lie in [-m, m], m = 2^(bits-1) - 1. With the scale max / (m + 1/2) of an output channel c,
the largest weight, which is clipped, and the worst rounding err by the same s / 2: the least
possible. (A row that max / m holds exactly keeps that.) So the largest error falls by 2 m + 1 with
each order, by 2 m with the usual max / m, and a machine that only has integers of few bits comes as
near to float as it is asked to, without data. The terms are branches of the graph that can run side
by side; the first takes the bias.

With ``keep`` below 1, orders above the first hold only that part of the output channels, those of
the largest residual norm (group sparsity); the branch is as much smaller, and its result is spread
over all channels by Pad and Gather. Groups of convolutions keep all.

* ``store=integers``: INT4 (opset 21) or INT8 levels behind DequantizeLinear; activations are float.
  In front of a MatMul Cast and Mul do its work: ONNX Runtime would round the activations there.
* ``store=float``: float weights that lie on the grid of their integers, for ``quantize-static``
  behind it, which then finds these integers again.

Preconditions: opset 13. BatchNorm is folded.
Preserved: nothing exactly; :class:`qcomp.quantization.ResidualTerms` has the largest error of each
weight by order. A second run changes nothing.
Cost: order passes over the weights; 1 + keep (order - 1) products a layer.
Source: Yvinec et al. 2022, REx, arXiv:2203.14645, equations 3-6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from qcomp.errors import UsageError
from qcomp.passes.graph.layer_pairs import LayerForm
from qcomp.passes.graph.rewriting import (
    Editor,
    check_finite,
    node_label,
    read_weight,
    require_opset,
    static_shape,
)
from qcomp.passes.quantize.arithmetic import pack_int4
from qcomp.passes.quantize.integer_types import IntegerType
from qcomp.passes.quantize.record import keep_reference, left_in_float, note
from qcomp.passes.quantize.static_plan import matmul_weight_reason, weight_axis
from qcomp.passes.quantize.weights import float_weight
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.quantization import (
    FloatOp,
    NodeOptions,
    QuantizedLayer,
    ResidualTerms,
    rules_of,
)

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.program import Program

__all__ = ["QuantizeResidual", "Term", "residual_terms"]

Floats = npt.NDArray[np.float32]

_EXACT = 1e-6
"""Largest error, over the largest weight, of a term that holds a weight exactly."""


@dataclass(frozen=True, slots=True)
class Term:
    """One term of an expansion.

    Attributes:
        levels: int8, as the weight is stored, with the kept channels only.
        scale: float32[kept channels].
        channels: Indices of the kept channels, None for all of them.
        error: Largest error of the sum up to here, over the largest weight.
    """

    levels: npt.NDArray[np.int8]
    scale: Floats
    channels: npt.NDArray[np.int64] | None
    error: float


def residual_terms(weight: Floats, axis: int, bits: int, order: int, keep: float) -> list[Term]:
    """Expand a weight; see the module's equations. Ends early when nothing is left.

    Args:
        weight: float32, finite.
        axis: Axis of output channels.
        bits: Of each term, 2 to 8.
        order: Number of terms.
        keep: Part of the channels that orders above the first hold, in (0, 1].
    """
    kind = IntegerType(bits, signed=True, narrow=True)
    rest = np.moveaxis(weight, axis, 0).astype(np.float32).copy()
    column = (-1, *[1] * (rest.ndim - 1))
    peak = float(np.abs(rest).max(initial=0.0))
    terms: list[Term] = []
    for k in range(order):
        chosen: npt.NDArray[np.int64] | None = None
        if k and keep < 1.0:
            norms = np.sqrt(np.einsum("ck,ck->c", *[rest.reshape(len(rest), -1)] * 2))
            count = max(1, int(np.ceil(keep * len(rest))))
            chosen = np.sort(np.argsort(-norms, kind="stable")[:count]).astype(np.int64)
        part = rest if chosen is None else rest[chosen]
        scale = _scales(part.reshape(len(part), -1), kind)
        steps = scale.reshape(column)
        levels = np.clip(np.rint(part / steps), kind.min, kind.max)
        if chosen is None:
            rest = rest - levels * steps
        else:
            rest[chosen] = part - levels * steps
        error = float(np.abs(rest).max(initial=0.0)) / (peak or 1.0)
        stored = np.ascontiguousarray(np.moveaxis(levels.astype(np.int8), 0, axis))
        terms.append(Term(stored, scale, chosen, error))
        if error <= _EXACT:
            break
    return terms


def _scales(rows: Floats, kind: IntegerType) -> Floats:
    """Scale of each row of float32[C, K]: max / m if that holds the row, else max / (m + 1/2)."""
    peak = np.abs(rows).max(1)
    scale = (peak / np.float32(kind.max)).astype(np.float32)
    scale[scale <= np.finfo(np.float32).tiny] = 1.0
    column = scale[:, None]
    error = np.abs(rows - np.rint(rows / column) * column).max(1)
    wider = (peak / np.float32(kind.max + 0.5)).astype(np.float32)
    return np.where(error <= _EXACT * peak, scale, wider).astype(np.float32)


@dataclass(frozen=True)
class QuantizeResidual(GraphPass):
    """Write every weight as a sum of low-bit terms, one branch of the graph each.

    Attributes:
        order: Terms of a weight.
        bits: Bits of each term, 2 to 8.
        keep: Part of the output channels that the terms above the first hold, in (0, 1].
        store: ``integers`` behind DequantizeLinear, or ``float`` for ``quantize-static``.
    """

    name: ClassVar[str] = "quantize-residual"
    preserves: ClassVar[Guarantee] = Guarantee.WITHIN

    order: int = 2
    bits: int = 4
    keep: float = 1.0
    store: Literal["integers", "float"] = "integers"

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        if not 1 <= self.order <= 8 or not 2 <= self.bits <= 8:
            raise UsageError("quantize-residual: order lies in 1 to 8, bits in 2 to 8")
        if not 0.0 < self.keep <= 1.0:
            raise UsageError(f"quantize-residual: keep is {self.keep}", hint="above 0, at most 1")
        if self.store not in ("integers", "float"):
            raise UsageError(
                f"quantize-residual: store is '{self.store}'", hint="integers or float"
            )

    def run(self, program: Program, context: Context) -> bool:
        """Expand what has a constant weight; return whether there was any.

        Raises:
            PassError: A weight with NaN or infinity, or an opset below 13.
        """
        model = program.model
        rules = rules_of(context)
        floats: list[FloatOp] = []
        found: dict[str, tuple[float, ...]] = {}
        editor: Editor | None = None
        for node in list(model.graph):
            if node.domain or node.op_type not in ("Conv", "Gemm", "MatMul"):
                left = left_in_float(node, rules)
                floats += [] if left is None else [left]
                continue
            asked = rules.options(node)
            reason = asked.refusal("weights") or matmul_weight_reason(node)
            if reason:
                floats.append(FloatOp(node_label(node), node.op_type, reason))
                continue
            bits = self._bits(node, asked)
            terms = self._terms(node, bits)
            if self.store == "float" and terms[0].error <= _EXACT:
                continue
            if editor is None:
                require_opset(model, 13, "per-channel DequantizeLinear is from opset 13")
                editor = Editor(model)
                editor.name_nodes()
                keep_reference(program, context)
            label, op_type = node_label(node), node.op_type
            _expand(editor, node, terms, bits, self.store == "integers")
            found[label] = tuple(term.error for term in terms)
            reason = f"it runs in float, its weight is a sum of {len(terms)} s{bits} terms"
            floats.append(FloatOp(label, op_type, reason))
        if not found:
            return False
        if self.store == "integers":
            note(context, list[QuantizedLayer](), floats)
        known = context.get(ResidualTerms)
        context.put(ResidualTerms({**({} if known is None else known.errors), **found}))
        return True

    def _bits(self, node: ir.Node, asked: NodeOptions) -> int:
        """Bits of one operator's terms, as the user asks or as the option says."""
        bits = self.bits if asked.bits is None else asked.bits
        if asked.method is not None or not 2 <= bits <= 8:
            what = f"in {bits} bits" if asked.method is None else f"with method={asked.method}"
            raise UsageError(
                f"quantize-residual cannot expand '{node_label(node)}' {what}",
                hint="bits=2 to 8; no method",
            )
        return bits

    def _terms(self, node: ir.Node, bits: int) -> list[Term]:
        weight = node.inputs[1]
        form = LayerForm.of(node)
        whole = form.groups > 1 or (node.op_type == "MatMul" and _rank(node) is None)
        with read_weight(float_weight(weight)) as stored:
            check_finite("" if weight is None else weight.name or "", stored)
            array = np.asarray(stored, np.float32)
            keep = 1.0 if whole else self.keep
            return residual_terms(array, weight_axis(node), bits, self.order, keep)


def _rank(node: ir.Node) -> int | None:
    """Rank of a layer's result."""
    if node.op_type != "MatMul":
        return len(float_weight(node.inputs[1]).shape)
    shape = static_shape(node.inputs[0])
    return None if shape is None else len(shape)


def _expand(editor: Editor, node: ir.Node, terms: list[Term], bits: int, integers: bool) -> None:
    """Replace a layer by the sum of its branches."""
    label = node_label(node)
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    channels = len(terms[0].scale)
    branches = []
    for k, term in enumerate(terms, start=1):
        weight = _stored(editor, node, term, f"{label}_term{k}", bits, integers)
        inputs = [node.inputs[0], weight, *(node.inputs[2:] if k == 1 else ())]
        branch = editor.node(node.op_type, inputs, attributes, name=f"{label}_{k}", before=node)
        y = branch.outputs[0]
        if term.channels is not None:
            y = _scatter(editor, node, y, term.channels, channels)
        branches.append(y)
    y = branches[0]
    if len(branches) > 1:
        y = editor.node("Sum", branches, name=f"{label}_Sum", before=node).outputs[0]
    editor.replace_value(node.outputs[0], y)
    editor.remove(node)


def _stored(
    editor: Editor, node: ir.Node, term: Term, name: str, bits: int, integers: bool
) -> ir.Value:
    """The float value of a term."""
    import onnx_ir as ir

    axis = weight_axis(node)
    if not integers:
        column = [1] * term.levels.ndim
        column[axis] = -1
        real = term.levels.astype(np.float32) * term.scale.reshape(column)
        return editor.initializer(name, real)
    content: ir.TensorProtocol | npt.NDArray[np.generic] = term.levels
    if bits <= 4 and editor.model.graph.opset_imports.get("", 0) >= 21:
        packed = pack_int4(term.levels.reshape(-1))
        content = ir.PackedTensor(packed, ir.DataType.INT4, shape=ir.Shape(term.levels.shape))
    levels = editor.initializer(f"{name}_quantized", content)
    scale = editor.initializer(f"{name}_scale", term.scale)
    if node.op_type == "MatMul":
        cast = editor.node("Cast", [levels], {"to": 1}, name=f"{name}_Cast", before=node)
        inputs = [cast.outputs[0], scale]
        return editor.node("Mul", inputs, name=f"{name}_Mul", before=node).outputs[0]
    return editor.node(
        "DequantizeLinear",
        [levels, scale],
        {"axis": axis},
        name=f"{name}_DequantizeLinear",
        before=node,
    ).outputs[0]


def _scatter(
    editor: Editor, node: ir.Node, y: ir.Value, chosen: npt.NDArray[np.int64], channels: int
) -> ir.Value:
    """Spread a branch of few channels over all, zeros elsewhere: one channel of 0, then Gather."""
    rank = _rank(node)
    assert rank is not None
    axis = 1 if node.op_type == "Conv" else rank - 1
    pads = np.zeros(2 * rank, np.int64)
    pads[rank + axis] = 1
    label = node_label(node)
    wide = editor.node(
        "Pad", [y, editor.initializer(f"{label}_pads", pads)], name=f"{label}_Pad", before=node
    ).outputs[0]
    places = np.full(channels, len(chosen), np.int64)
    places[chosen] = np.arange(len(chosen))
    index = editor.initializer(f"{label}_channels", places)
    return editor.node(
        "Gather", [wide, index], {"axis": axis}, name=f"{label}_Gather", before=node
    ).outputs[0]
