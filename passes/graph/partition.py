"""Write down, at each node of a hybrid graph, the stage that it runs in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from qcomp.ir.program import Program
from qcomp.passmanager import Context, GraphPass, Guarantee

__all__ = ["STAGE_KEY", "Partition"]

STAGE_KEY = "qcomp.stage"
"""Key of the node metadata that names the stage."""


@dataclass(frozen=True)
class Partition(GraphPass):
    """Name the stage of each node: ``classical-0``, ``circuit-0``, ``classical-1`` ...

    A node's stage is written into its metadata under ``qcomp.stage``, where passes that work stage
    by stage, reports and ONNX viewers find it. The cut itself is ``qcomp.ir.stages``.

    Preconditions: Circuit nodes stand in the main graph.

    Preserves: everything; only metadata changes.

    Cost: linear in the graph.
    """

    name: ClassVar[str] = "partition"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    def run(self, program: Program, context: Context) -> bool:
        """Write the stages; return whether any was not written yet."""
        from qcomp.ir.stages import stage_of_nodes

        changed = False
        for node, stage in stage_of_nodes(program).items():
            if node.metadata_props.get(STAGE_KEY) != stage:
                node.metadata_props[STAGE_KEY] = stage
                changed = True
        return changed
