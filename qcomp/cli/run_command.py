"""``qcomp run``: run an artifact on data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qcomp.cli.common import JsonOption, SeedOption

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("run", help=_HELP)(run_command)


_HELP = """Run an artifact: graphs in ONNX Runtime, circuits in a simulator.

Examples:

  qcomp run out --input x.npz --output y.npz

  qcomp run out --input x.npz --shots 4096 --device aer

x.npz holds arrays named as the model's inputs, samples first.
"""


def run_command(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="Folder of a compile.")],
    data: Annotated[Path | None, typer.Option("--input", help=".npz with the inputs.")] = None,
    output: Annotated[Path | None, typer.Option("--output", help=".npz to write.")] = None,
    shots: Annotated[
        int | None, typer.Option("--shots", min=0, help="Samples a circuit; 0: exact values.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="sim or aer.")] = "sim",
    batch: Annotated[int, typer.Option("--batch", min=1, help="Rows in flight.")] = 256,
    preprocess: Annotated[
        str | None,
        typer.Option("--preprocess", help="How raw data becomes inputs: FILE.json or module:func."),
    ] = None,
    seed: SeedOption = 0,
    json_output: JsonOption = False,
) -> None:
    """Run the command."""
    import numpy as np

    from qcomp.atomic import atomic_file
    from qcomp.cli.common import bars, emit_json, show_table
    from qcomp.errors import UsageError
    from qcomp.feeds import load_inputs
    from qcomp.runtime.artifact import load

    loaded = load(artifact)
    if loaded.inputs and data is None:
        raise UsageError(
            "the artifact takes inputs", hint="give --input x.npz with " + ", ".join(loaded.inputs)
        )
    feeds = load_inputs(data, loaded.input_specs, preprocess=preprocess) if data else {}
    rows = next((len(array) for array in feeds.values() if np.ndim(array)), 1)
    with bars() as progress:
        if progress is None:
            result = loaded(feeds, shots=shots, device=device, seed=seed, batch_size=batch)
        else:
            with progress.task("running", rows) as task:
                result = loaded(
                    feeds,
                    shots=shots,
                    device=device,
                    seed=seed,
                    batch_size=batch,
                    progress=task.advance,
                )
    outputs = result if isinstance(result, dict) else {loaded.outputs[0]: result}
    if output is not None:
        with atomic_file(output) as path, path.open("wb") as file:
            np.savez(file, **outputs)
    if json_output:
        emit_json({name: np.asarray(array).tolist() for name, array in outputs.items()})
        return
    shown = [
        (name, str(array.dtype), str(list(array.shape)), np.array2string(array[:2], threshold=8))
        for name, array in ((n, np.asarray(a)) for n, a in outputs.items())
    ]
    show_table(("output", "dtype", "shape", "first rows"), shown)
    if output is not None:
        print(f"wrote {output}")
