"""``qcomp submit``: run an artifact's circuits on a vendor's machine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qcomp.cli.common import JsonOption, SeedOption

if TYPE_CHECKING:
    from qcomp.submit import Job, JobRecord

__all__ = ["collected", "register", "show_outputs", "waiting", "write_outputs"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("submit", help=_HELP)(submit_command)


_HELP = """Submit an artifact's circuits to a machine, wait, and put the results together.

Examples:

  qcomp submit out --provider ibm --device fake_torino --shots 4000 --dry-run

  qcomp submit out --provider braket --device local --input x.npz --output y.npz

  qcomp submit out --provider ibm --device ibm_torino --shots 4000 --no-wait

The job is on disk before anything is waited for: Ctrl-C and crashes lose nothing, and
'qcomp jobs fetch' goes on. Credentials are found by the vendor's own client, never by qcomp.
"""


def submit_command(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="Folder of a compile.")],
    provider: Annotated[str, typer.Option("--provider", help="ibm, braket, local or a plugin's.")],
    device: Annotated[str, typer.Option("--device", help="The provider's name of the machine.")],
    shots: Annotated[
        int | None,
        typer.Option("--shots", min=1, help="Shots a circuit; else what the artifact says."),
    ] = None,
    data: Annotated[Path | None, typer.Option("--input", help=".npz with the inputs.")] = None,
    output: Annotated[Path | None, typer.Option("--output", help=".npz to write.")] = None,
    counts: Annotated[
        Path | None, typer.Option("--counts", help=".json to write the counts to.")
    ] = None,
    preprocess: Annotated[
        str | None,
        typer.Option("--preprocess", help="How raw data becomes inputs: FILE.json or module:func."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what would be sent and what it would cost; no more."),
    ] = False,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Send and return; fetch it later.")
    ] = False,
    seed: SeedOption = 0,
    json_output: JsonOption = False,
) -> None:
    """Run the command."""
    from qcomp.cli.common import emit_json
    from qcomp.errors import UsageError
    from qcomp.feeds import load_inputs
    from qcomp.runtime.artifact import load
    from qcomp.submit import Job, Patience, Store, connect, plan, start

    loaded = load(artifact)
    if loaded.inputs and data is None:
        raise UsageError(
            "the artifact takes inputs", hint="give --input x.npz with " + ", ".join(loaded.inputs)
        )
    feeds = load_inputs(data, loaded.input_specs, preprocess=preprocess) if data else {}
    patience = Patience(told=_say)
    planned = plan(loaded, feeds, shots)
    machine = connect(provider, device, patience, offline=dry_run)
    if dry_run:
        _show_preview(planned, machine, provider, json_output)
        return
    store = Store()
    record = start(planned, provider, device, machine, seed=seed, store=store)
    if not json_output:
        estimate = machine.estimate(planned.settings, len(record.tasks))
        price = f", about {estimate.price:.2f} {estimate.currency}" if estimate.price else ""
        print(f"job {record.id}: {len(record.tasks)} tasks for {machine.name}{price}", flush=True)
    with store.held(record.id), waiting(record) as told:
        job = Job(record, loaded, store, patience, machine, told)
        job.send()
        outputs = None if no_wait else collected(job, counts)
    if outputs is None:
        if json_output:
            emit_json({"job": record.id, "state": record.state, "outputs": None})
        else:
            print(f"fetch it: qcomp jobs fetch {record.id}")
        return
    write_outputs(output, outputs)
    if json_output:
        named = {name: array.tolist() for name, array in outputs.items()}
        emit_json({"job": record.id, "state": record.state, "outputs": named})
        return
    show_outputs(outputs, output, counts)


@contextmanager
def waiting(record: JobRecord) -> Iterator[Callable[[JobRecord], None] | None]:
    """Show how a job goes on while it is waited for; say how to go on after Ctrl-C."""
    from qcomp.cli.common import bars

    try:
        with bars() as progress:
            if progress is None:
                yield None
                return
            with progress.task(f"job {record.id}", len(record.tasks)) as task:
                done, note = 0, ""

                def told(now: JobRecord) -> None:
                    nonlocal done, note
                    finished = sum(t.state == "done" for t in now.tasks)
                    task.advance(finished - done)
                    first = next((t.note for t in now.tasks if t.state == "sent"), "")
                    if first and first != note:
                        _say(first)
                    done, note = finished, first

                yield told
    except KeyboardInterrupt:
        _say(f"the job {record.id} is kept; go on with: qcomp jobs fetch {record.id}")
        raise


def write_outputs(output: Path | None, outputs: Mapping[str, Any]) -> None:
    """Write the outputs as one ``.npz``, if a place is given."""
    import numpy as np

    from qcomp.atomic import atomic_file

    if output is not None:
        with atomic_file(output) as path, path.open("wb") as file:
            np.savez(file, **outputs)


def collected(job: Job, counts: Path | None, wait: bool = True) -> dict[str, Any] | None:
    """Return a job's outputs and write its counts, if a place for them is given.

    Without outputs, because a distribution is too wide for an array, the counts do.
    """
    import json

    from qcomp.atomic import atomic_file
    from qcomp.submit.settings import WideError

    try:
        outputs = job.fetch(wait=wait)
    except WideError as error:
        if counts is None:
            raise
        _say(f"note: {error.what}: there are only counts")
        outputs = {}
    if counts is not None and outputs is not None:
        with atomic_file(counts) as place:
            place.write_text(json.dumps(job.counts(), indent=1) + "\n", encoding="utf-8")
    return outputs


def show_outputs(outputs: Mapping[str, Any], output: Path | None, counts: Path | None) -> None:
    """Print the outputs' first rows and which files were written."""
    import numpy as np

    from qcomp.cli.common import show_table

    shown = [
        (name, str(a.dtype), str(list(a.shape)), np.array2string(a[:2], threshold=8))
        for name, a in outputs.items()
    ]
    show_table(("output", "dtype", "shape", "first rows"), shown)
    for path in (output, counts):
        if path is not None:
            print(f"wrote {path}")


def _show_preview(planned: Any, machine: Any, provider: str, json_output: bool) -> None:  # noqa: ANN401
    from qcomp.cli.common import emit_json, show_table
    from qcomp.submit.preview import preview

    data = {"provider": provider, "device": machine.name, **preview(planned, machine)}
    if json_output:
        emit_json(data)
        return
    columns = ("name", "qubits", "depth", "two_qubit", "gates", "measured", "rows", "shots")
    rows = [tuple(circuit[column] for column in columns) for circuit in data["circuits"]]
    show_table(("circuit", *columns[1:]), rows)
    groups = f", {data['groups']} measurement groups" if data["groups"] else ""
    print(f"\n{data['tasks']} tasks, {data['shots']} shots in all{groups}; nothing was sent")
    estimate = data["estimate"]
    if estimate["price"] is not None:
        print(f"estimated price: {estimate['price']:.2f} {estimate['currency']}")
    if estimate["seconds"] is not None:
        print(f"estimated machine time: {estimate['seconds']:.1f} s")
    for note in data["notes"]:
        print(f"note: {note}")


def _say(text: str) -> None:
    print(text, file=sys.stderr)
