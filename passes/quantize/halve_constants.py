"""Float constants beside the layers, such as position tables and masks, in half the bytes.

A constant c float32 is stored as float16 behind a Cast that ONNX Runtime folds when it loads the
graph: the file is smaller, and what runs is the same. Rounding changes a value by

    |half(c) - c| <= 2**-11 |c|        for 2**-14 <= |c| <= 65504

and a constant is only stored so if |half(c) - c| <= 2**-11 max|c| for all of its values. That is
far below the 2**-8 of the quantized layers around it.

Preconditions: opset 13 or later.
Preserved: nothing exactly; the bound above.
Cost: one pass over these constants.
Source: IEEE 754-2019, binary16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from qcomp.errors import UsageError
from qcomp.passes.graph.rewriting import Editor, constant_array, constant_tensor
from qcomp.passes.quantize.record import keep_reference
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.quantization import NodeRules, rules_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.program import Program

__all__ = ["HalveConstants"]

_READERS = {"Add", "Div", "Gather", "GatherND", "Mul", "Sub", "Where"}
"""Operators that a constant may be read by; weights of layers left in float stay as they are."""

_BOUND = 2.0**-11


@dataclass(frozen=True)
class HalveConstants(GraphPass):
    """Store large float constants beside the layers as float16.

    Attributes:
        least_bytes: Smaller constants stay as they are.
    """

    name: ClassVar[str] = "halve-constants"
    preserves: ClassVar[Guarantee] = Guarantee.WITHIN
    error_share: ClassVar[float] = 1e-3

    least_bytes: int = 16384

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        if self.least_bytes < 1:
            raise UsageError(f"halve-constants: least_bytes is {self.least_bytes}", hint="16384")

    def run(self, program: Program, context: Context) -> bool:
        """Rewrite what fits; return whether there was any."""
        model = program.model
        if model.graph.opset_imports.get("", 0) < 13:
            return False
        editor = Editor(model)
        rules = rules_of(context)
        found = [value for value in model.graph.initializers.values() if self._fits(value, rules)]
        if found:
            keep_reference(program, context)
        for value in found:
            _rewrite(editor, value)
        if found:
            size = max(_error(value) for value in found)
            context.ledger.spend(self.name, _BOUND, size, "rounding over the largest value")
        for value in found:
            editor.drop_if_unused(value)
        return bool(found)

    def _fits(self, value: ir.Value, rules: NodeRules) -> bool:
        import onnx_ir as ir

        tensor = constant_tensor(value)
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.nbytes < self.least_bytes:
            return False
        users = [usage.node for usage in value.uses()]
        if value.is_graph_output() or any(
            node.domain
            or node.op_type not in _READERS
            or node.graph is not value.graph
            or rules.options(node).excluded
            or any(_is_scale(other) for other in node.inputs)
            for node in users
        ):
            return False
        return bool(users) and _error(value) <= _BOUND


def _is_scale(value: ir.Value | None) -> bool:
    """Whether a value is a scale found at run time: what it meets is a scale of a weight."""
    producer = None if value is None else value.producer()
    return producer is not None and producer.op_type == "DynamicQuantizeLinear"


def _error(value: ir.Value) -> float:
    """Return ``max|half(c) - c| / max|c|`` over the finite values; inf where one overflows."""
    array = np.asarray(constant_array(value), np.float32)
    finite = np.isfinite(array)
    if not finite.any():
        return 0.0
    real = array[finite]
    with np.errstate(over="ignore"):
        half = real.astype(np.float16).astype(np.float32)
    peak = float(np.abs(real).max())
    return float(np.abs(half - real).max()) / peak if peak else 0.0


def _rewrite(editor: Editor, value: ir.Value) -> None:
    import onnx_ir as ir

    array = np.asarray(constant_array(value), np.float32)
    stored = editor.initializer(f"{value.name}_half", array.astype(np.float16))
    first = next(iter(editor.graph))
    cast = editor.node("Cast", [stored], {"to": 1}, name=f"{value.name}_Cast", before=first)
    real = cast.outputs[0]
    real.type, real.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(array.shape)
    for usage in list(value.uses()):
        usage.node.replace_input_with(usage.idx, real)
