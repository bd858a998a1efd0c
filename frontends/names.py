"""Names of parameters and registers, made fit for a circuit."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence

from qcomp.ir.circuit import RegisterDecl

__all__ = ["identifier", "registers_of", "unique"]


def identifier(name: str) -> str:
    """Return a name as an identifier: ``theta[0]`` is ``theta_0``."""
    text = re.sub(r"\W+", "_", name).rstrip("_") or "p"
    return text if text.isidentifier() else f"_{text}"


def unique(names: Sequence[str]) -> list[str]:
    """Return names told apart by underscores behind them."""
    out: dict[str, None] = {}
    for name in names:
        while name in out:
            name += "_"
        out[name] = None
    return list(out)


def registers_of(wires: Sequence[tuple[Hashable, int]], name: str) -> list[RegisterDecl]:
    """Return registers that cover wires, given as (name of the register, index) in their order.

    Registers whose indices do not run from 0 on become one register.

    Args:
        wires: The wires.
        name: Name of the one register.
    """
    if not wires:
        return []
    starts: dict[Hashable, int] = {}
    for position, (register, index) in enumerate(wires):
        if position - starts.setdefault(register, position) != index:
            return [RegisterDecl(name, len(wires), 0)]
    ends = [*list(starts.values())[1:], len(wires)]
    texts = unique([identifier(str(register)) for register in starts])
    return [
        RegisterDecl(text, end - start, start)
        for text, start, end in zip(texts, starts.values(), ends, strict=True)
    ]
