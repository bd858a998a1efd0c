"""``qcomp passes``: what passes there are and what they take."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from qcomp.cli.common import JsonOption

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("passes", help=_HELP)(passes_command)


_HELP = """List the passes, or explain one: its rewrite, what it preserves, its options.

Examples:

  qcomp passes

  qcomp passes merge-rotations
"""


def passes_command(
    name: Annotated[str | None, typer.Argument(metavar="PASS", help="A pass to explain.")] = None,
    json_output: JsonOption = False,
) -> None:
    """Run the command."""
    import inspect

    from qcomp.cli.common import emit_json, show_table
    from qcomp.passmanager import CircuitPass, option_fields
    from qcomp.registry import load, names

    entries = []
    for known in [name] if name else names("passes"):
        kind = load("passes", known)
        doc = inspect.getdoc(kind) or ""
        options = {
            key: {
                "type": str(f.type),
                "default": None if f.default is dataclasses.MISSING else f.default,
            }
            for key, f in option_fields(kind).items()
        }
        entries.append(
            {
                "name": known,
                "works_on": "circuits" if issubclass(kind, CircuitPass) else "graphs",
                "preserves": kind.preserves.value,
                "summary": doc.splitlines()[0] if doc else "",
                "options": options,
                "doc": doc,
            }
        )
    if json_output:
        emit_json(entries)
    elif name:
        entry = entries[0]
        print(f"{name} ({entry['works_on']}, preserves: {entry['preserves']})\n\n{entry['doc']}\n")
        rows = [
            (key, str(o["type"]), str(o["default"])) for key, o in dict(entry["options"]).items()
        ]
        if rows:
            show_table(("option", "type", "default"), rows)
    else:
        keys = ("name", "works_on", "preserves", "summary")
        show_table(("pass", "works on", "preserves", "what it does"),
                   [tuple(str(e[k]) for k in keys) for e in entries])  # fmt: skip
