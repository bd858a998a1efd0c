"""``qcomp bind``: one compiled circuit, a text for every row of data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qcomp.cli.common import JsonOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from qcomp.ir.circuit import Circuit

__all__ = ["register"]

INDEX = "bind.json"
"""What a folder of bound texts is known by."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("bind", help=_HELP)(bind_command)


_HELP = """Write a compiled circuit once for every row of data, its parameters replaced by numbers.

SOURCE is an artifact or an OpenQASM file with inputs. The circuit is not compiled again: its text
is made once, only the angles differ.

Examples:

  qcomp bind out --input x.npz -o bound

  qcomp bind circuit.qasm --input x.npz --profile portable -o bound

x.npz holds arrays named as the model's inputs, samples first; for an OpenQASM file an array for
each of its inputs, or one array params with a column for each.
"""


def bind_command(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Artifact or .qasm file.")],
    data: Annotated[Path, typer.Option("--input", help=".npz with the rows.")],
    out: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")],
    profile: Annotated[
        str | None,
        typer.Option("--profile", help="OpenQASM profile; by default the artifact's, or full."),
    ] = None,
    preprocess: Annotated[
        str | None,
        typer.Option("--preprocess", help="How raw data becomes inputs: FILE.json or module:func."),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Run the command."""
    import json

    from qcomp.atomic import atomic_folder
    from qcomp.backends.openqasm3.profiles import get_profile
    from qcomp.cli.common import emit_json

    found, usual, accuracies = _rows(source, data, preprocess)
    profile = profile or usual
    suffix = "json" if get_profile(profile).version == "json" else "qasm"
    files: dict[str, list[str]] = {}
    with atomic_folder(out, marker=INDEX) as folder:
        for name, (circuit, rows) in found.items():
            texts = _texts(circuit, rows, profile, accuracies.get(circuit.name, ()))
            width = len(str(max(len(texts) - 1, 0)))
            files[name] = [f"{name}-{i:0{width}}.{suffix}" for i in range(len(texts))]
            for file, text in zip(files[name], texts, strict=True):
                (folder / file).write_bytes(text)
        index = {"source": source.name, "profile": profile, "circuits": files}
        (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    if json_output:
        emit_json({"folder": str(out), **index})
    else:
        for name, names in files.items():
            print(f"{name}: {len(names)} texts of the profile '{profile}' in {out}")


def _texts(
    circuit: Circuit,
    rows: NDArray,  # type: ignore[type-arg]
    profile: str,
    accuracies: Sequence[float],
) -> list[bytes]:
    """Return the text of each row; rotations become words where accuracies say how near."""
    from qcomp.backends.openqasm3.batch import TextTemplate
    from qcomp.registry import load

    if not accuracies:
        return TextTemplate(circuit, profile).fill(rows)
    bound = load("services", "bound-in-words")
    return [
        TextTemplate(bound(circuit, row, accuracies), profile).fill(rows[:1, :0])[0] for row in rows
    ]


def _rows(
    source: Path, data: Path, preprocess: str | None
) -> tuple[
    dict[str, tuple[Circuit, NDArray]],  # type: ignore[type-arg]
    str,
    dict[str, tuple[float, ...]],
]:
    """Return (name -> circuit and its rows, the profile to write, accuracies of words)."""
    if source.is_dir() or source.suffix == ".json":
        return _artifact_rows(source, data, preprocess)
    import numpy as np

    from qcomp.driver import read, single_circuit
    from qcomp.errors import UsageError
    from qcomp.feeds import load_inputs
    from qcomp.feeds.inputs import Input

    circuit = single_circuit(read(source))
    if not circuit.params:
        raise UsageError(f"'{source}' has no inputs, there is nothing to bind")
    with _opened(data) as arrays:
        together = "params" in arrays and "params" not in circuit.params
    if together:
        inputs = [Input("params", "float64", ("batch", circuit.num_params))]
        rows = load_inputs(data, inputs, preprocess=preprocess)["params"]
    else:
        inputs = [Input(name, "float64", ("batch",)) for name in circuit.params]
        feeds = load_inputs(data, inputs, preprocess=preprocess)
        rows = np.stack([feeds[name] for name in circuit.params], axis=1)
    return {source.stem: (circuit, rows)}, "full", {}


def _opened(data: Path):  # type: ignore[no-untyped-def]  # noqa: ANN202  NumPy's open archive
    import contextlib

    import numpy as np

    try:
        loaded = np.load(data)
    except (OSError, ValueError):
        return contextlib.nullcontext(())  # what is wrong with it, the loader of inputs says
    return loaded if hasattr(loaded, "files") else contextlib.nullcontext(())


def _artifact_rows(
    source: Path, data: Path, preprocess: str | None
) -> tuple[
    dict[str, tuple[Circuit, NDArray]],  # type: ignore[type-arg]
    str,
    dict[str, tuple[float, ...]],
]:
    """Run an artifact's classical stages up to its circuits, which give their rows."""
    from qcomp.errors import UsageError
    from qcomp.feeds import load_inputs
    from qcomp.runtime.artifact import load

    artifact = load(source)
    if not artifact.circuits:
        raise UsageError(f"'{source}' has no circuit, there is nothing to bind")
    feeds = load_inputs(data, artifact.input_specs, preprocess=preprocess)
    found: dict[str, tuple[Circuit, NDArray]] = {}  # type: ignore[type-arg]

    def take(place: int, circuit: Circuit, readout: object, rows: NDArray) -> None:  # type: ignore[type-arg]
        name = circuit.name if circuit.name not in found else f"{circuit.name}_{place}"
        found[name] = (circuit, rows)

    artifact.walk(feeds, take)
    left = len(artifact.circuits) - len(found)
    if left:
        raise UsageError(
            f"{left} of the circuits of '{source}' need what another one measures",
            why="their parameters are not known before it has run",
            hint="run the artifact: qcomp run, or qcomp submit",
        )
    profile = (artifact.manifest.get("machine") or {}).get("profile", "full")
    return found, profile, artifact.accuracies
