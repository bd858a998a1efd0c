"""``qcomp opt``: a circuit in, a smaller circuit out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qcomp.cli.common import (
    CouplingOption,
    DeviceOption,
    EffortOption,
    FractionalOption,
    JsonOption,
    LayoutOption,
    MapOption,
    PrintAfterOption,
    SecondsOption,
    SeedOption,
    TimePassesOption,
    VerifyEachOption,
)

if TYPE_CHECKING:
    from qcomp.ir.circuit import Circuit
    from qcomp.passmanager import PassRecord
    from qcomp.target import Target

__all__ = ["register"]

COUNTS = (
    "qubits",
    "gates",
    "two_qubit",
    "multi_qubit",
    "t_count",
    "rotations",
    "depth",
    "two_qubit_depth",
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("opt", help=_HELP)(opt_command)


_HELP = """Reduce a circuit: OpenQASM 2 or 3 in, OpenQASM 3 out.

Examples:

  qcomp opt in.qasm -o out.qasm

  qcomp opt in.qasm -o out.qasm --effort fast --stats stats.json

  qcomp opt in.qasm -o out.qasm -t ibm-heron --device fake_torino

  qcomp opt in.qasm -o out.qasm --effort max --seconds 60 --cost t

  qcomp opt in.qasm -o out.qasm --effort max --cost errors -t ibm-heron --device fake_torino

  qcomp opt in.qasm -o out.qasm -p 'merge-rotations,to-basis{gates=[cz,rz,sx,x]}'

'qcomp passes' lists the passes and their options.
"""


def opt_command(
    source: Annotated[Path, typer.Argument(metavar="IN", help="OpenQASM 2 or 3 file.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="File to write.")] = None,
    pipeline: Annotated[
        str | None, typer.Option("-p", "--pipeline", help="Passes to run, with commas between.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "-t", "--target", help="Quantum target, see 'qcomp targets': its passes and profile."
        ),
    ] = None,
    device: DeviceOption = None,
    coupling: CouplingOption = None,
    initial_layout: LayoutOption = None,
    mapping: MapOption = True,
    fractional: FractionalOption = False,
    effort: EffortOption = "default",
    seconds: SecondsOption = None,
    cost: Annotated[
        str | None,
        typer.Option(
            "--cost",
            metavar="COST",
            help="With --effort max: what to make less, such as two_qubit, t, gates+3*two_qubit, "
            "depth, or 'errors' for the error rates of the machine.",
        ),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow",
            metavar="RULE",
            help="Make use of more than the unitary: 'zero-start' (qubits start in |0>), "
            "'permutation' (swaps rename qubits), 'only-bits' (what no measurement sees goes). "
            "Repeatable.",
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option("--profile", help="OpenQASM profile: full, portable, ibm, braket, qasm2 ..."),
    ] = None,
    stats: Annotated[
        Path | None, typer.Option("--stats", help="Write counts before and after as JSON.")
    ] = None,
    seed: SeedOption = 0,
    verify_each: VerifyEachOption = False,
    print_after: PrintAfterOption = None,
    time_passes: TimePassesOption = False,
    json_output: JsonOption = False,
) -> None:
    """Run the command."""
    import json

    from qcomp.atomic import atomic_file
    from qcomp.cli.common import (
        bars,
        emit_json,
        layout_of,
        pass_observer,
        show_table,
        show_times,
        stopped_by_hand,
    )
    from qcomp.driver import deadline_of, effort_pipeline, read, single_circuit
    from qcomp.equivalence import check
    from qcomp.lowering import lower_arrays
    from qcomp.passmanager import Context
    from qcomp.registry import load
    from qcomp.target_choice import check_fit

    observer = pass_observer(print_after, json_output)
    machine = _machine(target, device, coupling, layout_of(initial_layout), mapping, fractional)
    if profile is None:
        profile = "full" if machine is None else machine.profile
    passes = effort_pipeline(effort, pipeline, cost, machine, allow or ())
    context = Context(seed=seed, target=machine, verify_each=verify_each)
    program = read(source)
    lower_arrays(program, context, passes)
    before = single_circuit(program)
    if machine is not None:
        check_fit(machine, program.circuits.items())
    context.deadline = deadline_of(seconds, effort, pipeline)
    with bars() as progress, stopped_by_hand(context.deadline):
        if progress is not None:
            context.progress = progress
        records = passes.run(program, context, observer)
    after = program.only_circuit
    kinds = [load("passes", record.name.partition("{")[0]) for record in records]
    only_bits, from_zero = (any(getattr(k, n) for k in kinds) for n in ("only_bits", "from_zero"))
    verdict = check(before, after, seed=seed, only_bits=only_bits, from_zero=from_zero)
    if verdict.equal is False:
        from qcomp.errors import PassError

        raise PassError(
            "the result does not do what the source does, so it is not written",
            why=f"{verdict.how}: error {verdict.error:.3g}",
            hint="run again with --verify-each to find the pass, and report it",
        )
    summary = _summary(before, after, records, verdict.equal, verdict.how, verdict.error)
    if out is not None:
        data = load("services", "write-qasm-bytes")(after, profile)
        with atomic_file(out) as path:
            path.write_bytes(data)
    if stats is not None:
        with atomic_file(stats) as path:
            path.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    if json_output:
        emit_json(summary if out is not None else {**summary, "qasm": after.to_qasm3(profile)})
        return
    if out is None and print_after is None:
        print(after.to_qasm3(profile), end="")
        if time_passes:
            show_times(records, err=True)
        return
    a, b = before.stats().to_dict(), after.stats().to_dict()
    show_table(("count", "before", "after"), [(key, a[key], b[key]) for key in COUNTS])
    if time_passes:
        show_times(records)
    print(f"equivalence: {_words(verdict.equal)} ({verdict.how})")


def _machine(
    target: str | None,
    device: str | None,
    coupling: Path | None,
    initial_layout: tuple[int, ...] | None,
    mapping: bool,
    fractional: bool,
) -> Target | None:
    """Return the quantum machine that the options name, if any."""
    asked = device or coupling or initial_layout is not None or fractional or not mapping
    if target is None and not asked:
        return None
    from qcomp.errors import UsageError
    from qcomp.target_choice import choose_targets

    graph, circuit = choose_targets(
        target,
        device=device,
        coupling=coupling,
        initial_layout=initial_layout,
        mapping=mapping,
        fractional=fractional,
    )
    if graph is not None:
        raise UsageError(
            f"'{graph.name}' is no quantum target", hint="use 'qcomp compile' for models"
        )
    return circuit


def _words(equal: bool | None) -> str:
    return {True: "equal", False: "NOT equal", None: "not checked"}[equal]


def _summary(
    before: Circuit,
    after: Circuit,
    records: list[PassRecord],
    equal: bool | None,
    how: str,
    error: float,
) -> dict[str, object]:
    a, b = before.stats().to_dict(), after.stats().to_dict()
    return {
        "before": {key: a[key] for key in COUNTS},
        "after": {key: b[key] for key in COUNTS},
        "passes": [
            {
                "pass": record.name,
                "seconds": record.seconds,
                "changed": record.changed,
                "delta": {k: record.after[k] - record.before.get(k, 0) for k in COUNTS},
                "check": record.check or "not checked",
            }
            for record in records
        ],
        "equivalence": {"result": _words(equal), "how": how, "error": error},
    }
