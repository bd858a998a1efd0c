"""Names of a circuit as a text can have them: legal, and different from all others."""

from __future__ import annotations

import re
from collections.abc import Sequence

from qcomp.ir.blocks import For, walk_items
from qcomp.ir.circuit import Circuit
from qcomp.qasm_words import RESERVED

__all__ = ["Names"]


class Names:
    """The text of every register, parameter and variable name.

    A name that is taken by the language, by a gate of the include or by another name gets
    underscores at its end; a letter that no identifier has becomes one.

    Args:
        circuit: Whose names.
        gates: Gate names that the text's include or definitions take.
        lower: Whether names must begin with a small letter, as in OpenQASM 2.

    Attributes:
        changed: Name -> its text, for those that differ.
    """

    def __init__(self, circuit: Circuit, gates: frozenset[str], lower: bool) -> None:
        self._taken = set(RESERVED | gates)
        self._lower = lower
        self._texts: dict[str, str] = {}
        self.changed: dict[str, str] = {}
        if not lower and self._are_plain(circuit.params):
            self._taken.update(circuit.params)
            self._texts.update(zip(circuit.params, circuit.params, strict=True))
        else:
            for name in circuit.params:
                self._add(name)
        for register in (*circuit.qregs, *circuit.cregs):
            self._add(register.name)
        for variable in circuit.variables:
            self._add(variable.name)
        for item in walk_items(circuit.body):
            if isinstance(item, For):
                self._add(item.variable.name)

    def __call__(self, name: str) -> str:
        """Return the name's text."""
        return self._texts[name]

    def _are_plain(self, names: Sequence[str]) -> bool:
        """Whether all names, of which no two are the same, can stand as they are."""
        return (
            all(map(str.isascii, names))
            and all(map(str.isidentifier, names))
            and self._taken.isdisjoint(names)
        )

    def _add(self, name: str) -> None:
        if name in self._texts:
            return
        text = re.sub(r"\W", "_", name, flags=re.ASCII if self._lower else 0) or "_"
        if self._lower and not "a" <= text[0] <= "z":
            text = f"r{text}" if text[0] == "_" or text[0].isdigit() else text[0].lower() + text[1:]
        elif text[0].isdigit():
            text = f"_{text}"
        while text in self._taken:
            text += "_"
        self._taken.add(text)
        self._texts[name] = text
        if text != name:
            self.changed[name] = text
