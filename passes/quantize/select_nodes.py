"""Which operators may be quantized, and how: in a pipeline's text, for the passes behind it.

``select-nodes{exclude=["/head/*"],override=["op:Gemm{bits=4}"]}`` adds to what ``--exclude``,
``--include`` and ``--override`` say. The patterns are those of :mod:`qcomp.node_rules`; they are
matched with the graph as it is at this place of the pipeline.

Preconditions: each pattern matches an operator of the graph.
Preserved: everything; the pass leaves a :class:`qcomp.quantization.NodeRules` fact.
Cost: patterns times operators.
Source: none; glob patterns as in POSIX.1-2017, section 2.13, where ``*`` takes ``/`` too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.quantization import NodeRules, rules_of

if TYPE_CHECKING:
    from qcomp.ir.program import Program

__all__ = ["SelectNodes"]


@dataclass(frozen=True)
class SelectNodes(GraphPass):
    """Say which operators the quantizing passes behind this one leave, take, or do otherwise.

    Attributes:
        exclude: Patterns of operators that stay as they are.
        include: Patterns of the only operators that may be quantized; none for all.
        override: ``PATTERN{bits=4,method=mse,scheme=static}``; a later one wins.
    """

    name: ClassVar[str] = "select-nodes"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    override: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An override that cannot be read.
        """
        NodeRules.parse(self.exclude, self.include, self.override)

    def run(self, program: Program, context: Context) -> bool:
        """Keep the rules for the passes that follow; the program stays as it is.

        Raises:
            UsageError: A pattern that matches nothing.
        """
        rules = NodeRules.parse(self.exclude, self.include, self.override)
        rules.check(program.model.graph.all_nodes())
        context.put(rules_of(context).joined(rules))
        return False
