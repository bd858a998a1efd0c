"""Inputs with a default value become constants.

Exporters used to list every weight among the inputs as well, which lets a caller give another one
at each run. No pass may then count on its value, and no weight can be quantized. Who compiles a
model wants the weights that it came with.

Preconditions: none.
Preserved: the outputs, bit for bit, for callers that give no other weights.
Cost: linear in the inputs.
Source: ONNX IR specification, "Graphs", on initializers that are inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from qcomp.passmanager import Context, GraphPass, Guarantee

if TYPE_CHECKING:
    from qcomp.ir.program import Program

__all__ = ["FreezeDefaults"]

_NAMED = 3


@dataclass(frozen=True)
class FreezeDefaults(GraphPass):
    """Make constants of the inputs that have a default value."""

    name: ClassVar[str] = "freeze-defaults"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    def run(self, program: Program, context: Context) -> bool:
        """Freeze them; return whether there were any."""
        graph = program.model.graph
        names = []
        for value in list(graph.inputs):
            if value.is_initializer() and not value.is_graph_output():
                graph.inputs.remove(value)
                names.append(f"'{value.name}'")
        if names:
            shown = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
            context.warn(f"{len(names)} inputs have a default value and are constants now: {shown}")
        return bool(names)
