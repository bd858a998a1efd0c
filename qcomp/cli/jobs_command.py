"""``qcomp jobs``: what was submitted, and how to get it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qcomp.cli.common import JsonOption

if TYPE_CHECKING:
    from qcomp.submit import JobRecord, Patience, Store

__all__ = ["register"]

_HELP = """List the jobs that were submitted, fetch their results, or cancel them.

Examples:

  qcomp jobs

  qcomp jobs fetch last --output y.npz

  qcomp jobs fetch --all

  qcomp jobs cancel 20260704
"""
_FETCH = """Fetch a job's result, or go on with it after a crash, Ctrl-C or --no-wait.

Example:

  qcomp jobs fetch last --output y.npz

A job is named by its identifier, the beginning of it, or 'last'.
"""
_CANCEL = """Cancel what is not done of a job; what is done is kept.

Example:

  qcomp jobs cancel last
"""

JobArgument = Annotated[
    str | None, typer.Argument(metavar="JOB", help="Identifier, its beginning, or 'last'.")
]
ArtifactOption = Annotated[
    Path | None, typer.Option("--artifact", help="The artifact's folder, if it was moved.")
]


def register(app: typer.Typer) -> None:
    """Add the command and its subcommands."""
    jobs = typer.Typer(
        help=_HELP,
        rich_markup_mode=None,
        invoke_without_command=True,
        no_args_is_help=False,
        pretty_exceptions_enable=False,
    )
    jobs.callback()(list_command)
    jobs.command("fetch", help=_FETCH)(fetch_command)
    jobs.command("cancel", help=_CANCEL)(cancel_command)
    app.add_typer(jobs, name="jobs", help=_HELP)


def list_command(context: typer.Context, json_output: JsonOption = False) -> None:
    """List the jobs."""
    if context.invoked_subcommand is not None:
        return
    from qcomp.cli.common import emit_json, show_table
    from qcomp.errors import SourceError
    from qcomp.submit import Store

    store = Store()
    records, damaged = [], []
    for name in store.ids():
        try:
            records.append(store.load(name))
        except SourceError as error:
            damaged.append(str(error))
    if json_output:
        emit_json([_entry(record, store) for record in records])
    elif records:
        rows = [
            (r.id, r.state, f"{sum(t.state == 'done' for t in r.tasks)}/{len(r.tasks)}",
             f"{r.provider}:{r.device}", r.artifact)
            for r in records
        ]  # fmt: skip
        show_table(("job", "state", "tasks done", "machine", "artifact"), rows)
    else:
        print(f"no jobs in {store.folder}")
    for text in damaged:
        print(f"warning: {text}", file=sys.stderr)


def _entry(record: JobRecord, store: Store) -> dict[str, Any]:
    return {
        "job": record.id,
        "state": record.state,
        "created": record.created,
        "provider": record.provider,
        "device": record.device,
        "shots": record.shots,
        "artifact": record.artifact,
        "artifact_sha256": record.artifact_sha256,
        "folder": str(store.path(record.id)),
        "tasks": [
            {"id": task.identifier, "state": task.state, "note": task.note} for task in record.tasks
        ],
    }


def fetch_command(
    job: JobArgument = None,
    every: Annotated[bool, typer.Option("--all", help="Every job that is not done.")] = False,
    output: Annotated[Path | None, typer.Option("--output", help=".npz to write.")] = None,
    counts: Annotated[
        Path | None, typer.Option("--counts", help=".json to write the counts to.")
    ] = None,
    artifact: ArtifactOption = None,
    resend: Annotated[
        bool, typer.Option("--resend", help="Send what failed, vanished or was cancelled again.")
    ] = False,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Take what is done, wait for nothing.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Run the command."""
    from qcomp.cli.common import emit_json
    from qcomp.cli.submit_command import show_outputs, write_outputs
    from qcomp.errors import QcompError, UsageError
    from qcomp.submit import Store

    if every == (job is not None):
        raise UsageError("name one job, or give --all", hint="qcomp jobs lists them")
    if every and (output or counts or artifact):
        raise UsageError("--output, --counts and --artifact are for one job")
    store = Store()
    names = store.ids() if every else [store.find(job or "")]
    results: list[dict[str, Any]] = []
    failures: list[QcompError] = []
    for name in names:
        try:
            if every and store.load(name).finished:
                continue
            entry, outputs = _fetch(store, name, artifact, resend, not no_wait, counts)
        except QcompError as error:
            if not every:
                raise
            failures.append(error)
            print(f"error: job {name}: {error}", file=sys.stderr)
            continue
        results.append(entry)
        if outputs is not None:
            write_outputs(output, outputs)
        if json_output:
            continue
        if outputs is None:
            print(f"job {name} is still running; fetch it: qcomp jobs fetch {name}")
        else:
            print(f"job {name}: done")
            show_outputs(outputs, output, counts)
    if json_output:
        emit_json(results if every else results[0])
    elif every and not results and not failures:
        print("every job is done")
    if failures:
        raise typer.Exit(failures[0].exit_code)


def _fetch(
    store: Store,
    name: str,
    artifact: Path | None,
    resend: bool,
    wait: bool,
    counts: Path | None,
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    from qcomp.cli.submit_command import collected, waiting
    from qcomp.submit import Job, resume

    with store.held(name):
        record = store.load(name)
        if record.finished and artifact is None and counts is None:
            job = Job(record, None, store, _patience())  # the artifact may be gone
        else:
            job = resume(record, store, _patience(), artifact=artifact)
        if resend:
            job.resend()
        with waiting(job.record) as told:
            job.told = told
            outputs = collected(job, counts, wait)
    entry = _entry(job.record, store)
    values = None if outputs is None else {key: a.tolist() for key, a in outputs.items()}
    return {**entry, "outputs": values}, outputs


def _patience() -> Patience:
    from qcomp.submit import Patience

    return Patience(told=lambda text: print(text, file=sys.stderr))


def cancel_command(
    job: Annotated[
        str, typer.Argument(metavar="JOB", help="Identifier, its beginning, or 'last'.")
    ],
    json_output: JsonOption = False,
) -> None:
    """Run the command."""
    from qcomp.cli.common import emit_json
    from qcomp.submit import Job, Store

    store = Store()
    name = store.find(job)
    with store.held(name):
        opened = Job(store.load(name), None, store, _patience())
        stopped = opened.cancel()
    if json_output:
        emit_json(_entry(opened.record, store))
    else:
        print(f"job {name}: {stopped} tasks cancelled")
