"""Constants that came as float16 or bfloat16, and stayed as they are, go into the file as halves.

``widen-floats`` let the graph compute in float32. A constant that no pass has changed since is
stored as it came, behind a Cast that ONNX Runtime folds when it loads the graph:

    c (float32)  ->  c (float16) -> Cast -> float32

The file has half the bytes for it; what runs is the same, bit for bit.

Preconditions: ``widen-floats`` ran in this pipeline.
Preserved: the outputs, bit for bit: every half is a float32.
Cost: linear in the initializers; none is read.
Source: IEEE 754-2019, binary16.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from qcomp.passes.graph.rewriting import Editor
from qcomp.passes.graph.widen_floats import HalvedTensors
from qcomp.passmanager import Context, GraphPass, Guarantee

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.program import Program

__all__ = ["RestoreHalves"]


@dataclass(frozen=True)
class RestoreHalves(GraphPass):
    """Store constants as halves again that came so.

    Attributes:
        least_bytes: Constants of fewer bytes stay in float32.
    """

    name: ClassVar[str] = "restore-halves"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    least_bytes: int = 1024

    def run(self, program: Program, context: Context) -> bool:
        """Put the halves back; return whether there were any."""
        import onnx_ir as ir

        halved = context.get(HalvedTensors)
        model = program.model
        first = next(iter(model.graph), None)
        if halved is None or first is None:
            return False
        editor = Editor(model)
        changed = False
        for name, value in list(model.graph.initializers.items()):
            wide, half = halved.tensors.get(name, (None, None))
            if half is None or value.const_value is not wide or half.nbytes < self.least_bytes:
                continue
            if value.is_graph_output():
                continue
            # Under a name of its own: the source of this compile has the same tensor.
            shape = ir.Shape(half.shape.numpy())
            named = ir.LazyTensor(partial(_same, half), dtype=half.dtype, shape=shape)
            stored = editor.initializer(f"{name}_half", named)
            cast = editor.node("Cast", [stored], {"to": 1}, name=f"{name}_Cast", before=first)
            real = cast.outputs[0]
            real.type, real.shape = ir.TensorType(ir.DataType.FLOAT), value.shape
            for usage in list(value.uses()):
                usage.node.replace_input_with(usage.idx, real)
            editor.drop_if_unused(value)
            changed = True
        return changed


def _same(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return tensor
