"""Write the tables of passes and targets in README.md from the registry.

Run it after adding a pass or a target: ``python docs/generate_tables.py``. With ``--check`` it
changes nothing and exits with 1 when README.md is out of date; a test does the same.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from qcomp.passmanager import CircuitPass, option_fields
from qcomp.registry import GROUPS, load, table
from qcomp.target import get_target, target_names

README = Path(__file__).parent.parent / "README.md"


def passes_table() -> str:
    """Return the table of qcomp's own passes; plugins that happen to be installed are left out."""
    rows = []
    for name in GROUPS["passes"]:
        kind = load("passes", name)
        options = ", ".join(f"`{key.replace('_', '-')}`" for key in option_fields(kind))
        works_on = "circuits" if issubclass(kind, CircuitPass) else "graphs"
        rows.append((f"`{name}`", works_on, _what(name, kind), kind.preserves.value, options))
    return _table(("pass", "works on", "what it does", "preserves", "options"), rows)


def targets_table() -> str:
    """Return the table of qcomp's own targets."""
    rows = []
    for name in target_names():
        if name not in table("targets"):
            target = get_target(name)
            takes = " ".join(target.basis) if target.basis else ", ".join(target.requires)
            rows.append((f"`{name}`", target.title, takes or "nothing more"))
    return _table(("target", "what it is", "basis gates, or data it needs"), rows)


def _what(name: str, kind: type) -> str:
    """Return one sentence: a module's "name: sentence", else the start of the class's docstring."""
    module = (inspect.getdoc(sys.modules[kind.__module__]) or "").split("\n\n")[0]
    head, _, sentence = module.partition(": ")
    text = sentence if head == name else (inspect.getdoc(kind) or "").split("\n\n")[0]
    text = " ".join(text.split()).replace("``", "`")
    return text[:1].upper() + text[1:]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


TABLES: dict[str, Callable[[], str]] = {"passes": passes_table, "targets": targets_table}


def with_tables(text: str) -> str:
    """Return README's text with every table between its markers made anew.

    Raises:
        ValueError: If the markers of a table are missing.
    """
    for name, make in TABLES.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        head, found, rest = text.partition(begin)
        _, found_too, tail = rest.partition(end)
        if not found or not found_too:
            raise ValueError(f"README.md lacks the markers {begin} ... {end}")
        text = f"{head}{begin}\n{make()}\n{end}{tail}"
    return text


def main() -> int:
    """Write README.md, or with ``--check`` say whether it is current."""
    old = README.read_text(encoding="utf-8")
    new = with_tables(old)
    if "--check" in sys.argv[1:]:
        if new != old:
            print("README.md is out of date: run python docs/generate_tables.py", file=sys.stderr)
        return int(new != old)
    README.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
