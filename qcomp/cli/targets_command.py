"""``qcomp targets``: what machines there are."""

from __future__ import annotations

from typing import Annotated

import typer

from qcomp.cli.common import JsonOption

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("targets", help=_HELP)(targets_command)


_HELP = """List the targets, or explain one: its gates, its pipelines, what it needs.

Examples:

  qcomp targets

  qcomp targets ibm-heron
"""


def targets_command(
    name: Annotated[str | None, typer.Argument(metavar="TARGET", help="One to explain.")] = None,
    json_output: JsonOption = False,
) -> None:
    """Run the command."""
    from qcomp.cli.common import emit_json, show_table
    from qcomp.target import get_target, target_names

    targets = [get_target(n) for n in ([name] if name else target_names())]
    if json_output:
        fields = ("name", "title", "description", "kind", "backend", "basis", "profile", "requires")
        emit_json(
            [
                {**{key: getattr(t, key) for key in fields}, "pipelines": dict(t.pipelines)}
                for t in targets
            ]
        )
    elif name:
        (target,) = targets
        print(f"{target.name}: {target.title}\n\n{target.description}\n")
        if target.basis:
            print("gates: " + ", ".join(target.basis))
        for effort, text in target.pipelines.items():
            print(f"pipeline ({effort}): {text}")
    else:
        show_table(("target", "kind", "what it is"), [(t.name, t.kind, t.title) for t in targets])
