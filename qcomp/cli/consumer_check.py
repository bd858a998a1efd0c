"""What ``qcomp verify --consumer`` does: a text given to those who will read it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from qcomp.consumers import ConsumerEntry

__all__ = ["ConsumerOption", "show_acceptances"]

ConsumerOption = Annotated[
    str | None,
    typer.Option(
        "--consumer",
        metavar="NAME",
        help="Give A to a reader of OpenQASM: qiskit, braket, pyqasm, reference, pytket; rigetti, "
        "iqm, ionq (Braket's emulators); or all.",
    ),
]


def show_acceptances(path: str, name: str, *, seed: int, json_output: bool) -> None:
    """Print what a consumer, or every installed one for the file's version, says of a file.

    Raises:
        UsageError: If the file is no OpenQASM, or the consumer is unknown or not installed.
        SourceError: If qcomp itself cannot read the file.
        typer.Exit: With code 1 if a consumer rejects the file or sees another distribution.
    """
    from qcomp.cli.common import emit_json
    from qcomp.consumers import accept
    from qcomp.consumers.table import get_consumer
    from qcomp.driver import read, single_circuit
    from qcomp.errors import UsageError

    circuit = single_circuit(read(path))
    text = Path(path).read_text(encoding="utf-8-sig")
    if "OPENQASM" not in text:
        raise UsageError(
            f"'{path}' does not begin with a version, such as OPENQASM 3.0;",
            why="consumers choose their reader by it",
        )
    chosen: Sequence[ConsumerEntry]
    missing: Sequence[ConsumerEntry] = ()
    if name == "all":
        chosen, missing = _for_version(2 if "OPENQASM 2" in text else 3)
    else:
        chosen = [get_consumer(name)]
    found = [accept(text, entry, circuit, seed=seed) for entry in chosen]
    if json_output:
        emit_json(
            {
                "file": path,
                "ok": all(a.ok for a in found),
                "consumers": [
                    {
                        "consumer": a.consumer,
                        "version": a.version,
                        "accepted": a.accepted,
                        "same": None if a.distance is None else a.ok,
                        "total_variation": a.distance,
                        "why": a.why,
                        "inputs": dict(a.values),
                    }
                    for a in found
                ],
                "not_installed": [entry.name for entry in missing],
            }
        )
    else:
        for answer in found:
            print(answer)
        for entry in missing:
            print(f"{entry.name}: not installed (pip install {entry.package})")
    if not all(a.ok for a in found):
        raise typer.Exit(1)


def _for_version(version: int) -> tuple[list[ConsumerEntry], list[ConsumerEntry]]:
    """Return (installed, not installed) consumers of a version of OpenQASM."""
    from qcomp.consumers import CONSUMERS

    meant = [entry for entry in CONSUMERS.values() if version in entry.versions]
    return [e for e in meant if e.installed], [e for e in meant if not e.installed]
