"""``qcomp verify``: whether two circuits or graphs are the same."""

from __future__ import annotations

from typing import Annotated

import typer

from qcomp.cli.common import JsonOption, SeedOption
from qcomp.cli.consumer_check import ConsumerOption, show_acceptances

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("verify", help=_HELP)(verify_command)


_HELP = """Say whether A and B are the same, and how that is known.

Circuits are compared up to global phase; graphs on random inputs. Exit code 0 when they are equal,
1 when they are not or when it could not be decided.

With --consumer, A alone is given to the parser and the simulator of a tool that reads OpenQASM:
exit code 0 when it takes the text and, up to 12 qubits, sees the same distribution.

Examples:

  qcomp verify smaller.qasm original.qasm

  qcomp verify --consumer qiskit smaller.qasm
"""


def verify_command(
    first: Annotated[str, typer.Argument(metavar="A", help="OpenQASM or ONNX file.")],
    second: Annotated[
        str | None, typer.Argument(metavar="[B]", help="OpenQASM or ONNX file.")
    ] = None,
    consumer: ConsumerOption = None,
    seed: SeedOption = 0,
    json_output: JsonOption = False,
) -> None:
    """Run the command."""
    from qcomp.cli.common import emit_json
    from qcomp.driver import verify
    from qcomp.errors import UsageError

    if consumer is not None:
        if second is not None:
            raise UsageError("--consumer looks at one file", hint="leave B out")
        show_acceptances(first, consumer, seed=seed, json_output=json_output)
        return
    if second is None:
        raise UsageError("two files are compared, one was given", hint="give A and B")
    verdict = verify(first, second, seed=seed)
    words = {True: "equal", False: "NOT equal", None: "not checked"}[verdict.equal]
    if json_output:
        emit_json(
            {
                "result": words,
                "how": verdict.how,
                "error": verdict.error,
                "detail": verdict.detail,
            }
        )
    else:
        print(f"{words}: {verdict.how}, error {verdict.error:.3g}")
        if verdict.detail:
            print(verdict.detail)
    if verdict.equal is not True:
        raise typer.Exit(1)
