"""Weights of layers that run in float, stored as 8-bit integers.

Where ONNX Runtime has no integer kernel (ConvTranspose, GRU, RNN), the file can be small all the
same. A weight is stored as q with a scale for each slice of its first axis, behind a Cast and a
Mul that ONNX Runtime folds when it loads the graph:

    W[i] ~ float(q[i]) * s_i        s_i = max |W[i]| / 127        q = round(W / s)

What runs is the float kernel at its speed, with weights within s_i / 2. A layer that was excluded
by the user keeps its weights.

Preconditions: the weight is a float constant that this layer alone reads.
Preserved: nothing exactly; the error is reported per layer by ``quantization-error``.
Cost: one pass over these weights.
Source: Krishnamoorthi 2018, arXiv:1806.08342, section 3.1.1, weights only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from qcomp.errors import UsageError
from qcomp.passes.graph.rewriting import (
    Editor,
    SharedParts,
    check_finite,
    constant_tensor,
    node_label,
    read_weight,
)
from qcomp.passes.quantize.already import ALREADY, quantized_already
from qcomp.passes.quantize.arithmetic import quantize, symmetric_scale
from qcomp.passes.quantize.integer_types import INT8
from qcomp.passes.quantize.record import keep_reference, note
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.quantization import FloatOp, QuantizedLayer, rules_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.program import Program

__all__ = ["StoreWeights"]

_WEIGHTS: Mapping[str, tuple[int, ...]] = {"ConvTranspose": (1,), "GRU": (1, 2), "RNN": (1, 2)}
"""Operator -> the inputs that are weights."""


@dataclass(frozen=True)
class StoreWeights(GraphPass):
    """Store the weights of layers without integer kernels in 8 bits; they run in float.

    Attributes:
        least_bytes: Smaller weights stay as they are.
    """

    name: ClassVar[str] = "store-weights"
    preserves: ClassVar[Guarantee] = Guarantee.WITHIN

    least_bytes: int = 4096

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        if self.least_bytes < 1:
            raise UsageError(f"store-weights: least_bytes is {self.least_bytes}", hint="4096")

    def run(self, program: Program, context: Context) -> bool:
        """Rewrite what fits; return whether there was any.

        Raises:
            PassError: A weight with NaN or infinity.
        """
        rules = rules_of(context)
        editor = Editor(program.model)
        floats: list[FloatOp] = []
        changed = False
        for node in list(program.model.graph):
            if node.domain or node.op_type not in _WEIGHTS:
                continue
            reason = ALREADY if quantized_already(node) else rules.options(node).refusal("weights")
            if reason:
                floats.append(FloatOp(node_label(node), node.op_type, reason))
                continue
            values = [node.inputs[i] for i in _WEIGHTS[node.op_type]]
            if not all(self._fits(value) for value in values):
                continue
            if not changed:
                keep_reference(program, context)
            for index, value in zip(_WEIGHTS[node.op_type], values, strict=True):
                assert value is not None
                node.replace_input_with(index, _stored(editor, node, value))
                editor.drop_if_unused(value)
            changed = True
            reason = "it runs in float, with weights stored in 8 bits: there is no integer kernel"
            floats.append(FloatOp(node_label(node), node.op_type, reason))
        note(context, list[QuantizedLayer](), floats)
        return changed

    def _fits(self, value: ir.Value | None) -> bool:
        import onnx_ir as ir

        tensor = constant_tensor(value)
        return (
            value is not None
            and tensor is not None
            and tensor.dtype == ir.DataType.FLOAT
            and tensor.nbytes >= self.least_bytes
            and len(tensor.shape) >= 2
            and len(list(value.uses())) == 1
        )


def _stored(editor: Editor, node: ir.Node, value: ir.Value) -> ir.Value:
    """Return the float value that integers and scales make when the graph is loaded."""
    import onnx_ir as ir

    tensor = constant_tensor(value)
    assert tensor is not None
    name = value.name or "weight"
    shape = [int(dim) for dim in tensor.shape.numpy()]
    rows = shape[0] if node.op_type == "ConvTranspose" else shape[0] * shape[1]
    with read_weight(tensor) as array:
        check_finite(name, array)
        scale = symmetric_scale(np.asarray(array, np.float32).reshape(rows, -1), INT8, 0)

    def compute() -> Mapping[str, npt.NDArray[np.generic]]:
        with read_weight(tensor) as array:
            flat = np.asarray(array, np.float32).reshape(rows, -1)
            return {"levels": quantize(flat, scale, 0, INT8, 0).reshape(shape)}

    parts = SharedParts(compute, {"levels": (INT8.onnx, shape)})
    levels = editor.initializer(f"{name}_quantized", parts.tensor("levels"))
    leading = shape[:1] if node.op_type == "ConvTranspose" else shape[:2]
    column = scale.reshape(*leading, *[1] * (len(shape) - len(leading)))
    steps = editor.initializer(f"{name}_scale", np.ascontiguousarray(column))
    real = editor.node("Cast", [levels], {"to": 1}, name=f"{name}_Cast", before=node).outputs[0]
    out = editor.node("Mul", [real, steps], name=f"{name}_Mul", before=node).outputs[0]
    for made in (real, out):
        made.type, made.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(shape)
    return out
