"""``qcomp verify``: whether two circuits or graphs are the same."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qcomp.cli.common import JsonOption, SeedOption
from qcomp.cli.consumer_check import ConsumerOption, show_acceptances

if TYPE_CHECKING:
    from qcomp.equivalence.layered import Judgement

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("verify", help=_HELP)(verify_command)


_HELP = """Say whether CANDIDATE and REFERENCE are the same, and how that is known.

Circuits are judged in layers: parse, type, distribution, expectation, equivalence (up to global
phase), optimality; what each earned adds up to a score in [0, 1]. Graphs are compared on random
inputs. Exit code 0 when the two are equal, 1 when they are not, when it could not be decided, or
when the candidate is no circuit.

With --consumer, CANDIDATE alone is given to the parser and the simulator of a tool that reads
OpenQASM: exit code 0 when it takes the text and, up to 12 qubits, sees the same distribution.

Examples:

  qcomp verify smaller.qasm original.qasm

  qcomp verify --consumer qiskit smaller.qasm
"""

CostOption = Annotated[
    str | None,
    typer.Option("--cost", metavar="COST", help="Judge by it, for instance gates+3*two_qubit."),
]
ObservableOption = Annotated[
    list[str] | None,
    typer.Option("--observable", metavar="TEXT", help="Compare its value, for instance Z0*Z1."),
]


def verify_command(
    first: Annotated[str, typer.Argument(metavar="CANDIDATE", help="OpenQASM or ONNX file.")],
    second: Annotated[
        str | None, typer.Argument(metavar="[REFERENCE]", help="OpenQASM or ONNX file.")
    ] = None,
    consumer: ConsumerOption = None,
    observable: ObservableOption = None,
    cost: CostOption = None,
    seed: SeedOption = 0,
    json_output: JsonOption = False,
) -> None:
    """Run the command."""
    from qcomp.cli.common import emit_json
    from qcomp.driver import judge, read, verify
    from qcomp.errors import UsageError

    if consumer is not None:
        if second is not None:
            raise UsageError("--consumer looks at one file", hint="leave REFERENCE out")
        show_acceptances(first, consumer, seed=seed, json_output=json_output)
        return
    if second is None:
        raise UsageError("two files are compared, one was given", hint="give both")
    reference = read(second)
    if reference.is_circuit:
        judgement = judge(
            Path(first), reference, observables=observable or (), cost=cost, seed=seed
        )
        if json_output:
            emit_json(judgement.to_dict())
        else:
            _show(judgement)
        if judgement.equal is not True:
            raise typer.Exit(1)
        return
    verdict = verify(first, reference, seed=seed)
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


def _show(judgement: Judgement) -> None:
    """Print the result, the score, and a line a layer."""
    data = judgement.to_dict()
    seen = judgement.verdict.error
    print(f"{data['result']}: {data['how']}" + (f", error {seen:.3g}" if isfinite(seen) else ""))
    if judgement.verdict.detail:
        print(dict(judgement.verdict.detail))
    print(f"score {judgement.score:.3f}")
    for layer in judgement.layers:
        mark = {True: "passed", False: "FAILED", None: "-"}[layer.passed]
        if layer.name == "optimality" and layer.passed is False:
            mark = "dearer"
        print(f"  {layer.name:<13} {mark:<7} {layer.credit:.2f}  {layer.how}")
        if "hint" in layer.detail:
            print(f"    try: {layer.detail['hint']}")
