"""``qcomp run``: run an artifact on data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qcomp.cli.common import JsonOption, SeedOption

if TYPE_CHECKING:
    from qcomp.mitigation.options import Mitigation

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("run", help=_HELP)(run_command)


_HELP = """Run an artifact: graphs in ONNX Runtime, circuits in a simulator.

Examples:

  qcomp run out --input x.npz --output y.npz

  qcomp run out --input x.npz --shots 4096 --device aer --errors

  qcomp run out --input x.npz --device aer --noise fake_torino --zne exponential

x.npz holds arrays named as the model's inputs, samples first.
"""


def run_command(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="Folder of a compile.")],
    data: Annotated[Path | None, typer.Option("--input", help=".npz with the inputs.")] = None,
    output: Annotated[Path | None, typer.Option("--output", help=".npz to write.")] = None,
    shots: Annotated[
        int | None, typer.Option("--shots", min=0, help="Samples a circuit; 0: exact values.")
    ] = None,
    device: Annotated[
        str,
        typer.Option("--device", help="sim, aer, lightning, braket or ibm:NAME (docs/running.md)."),
    ] = "sim",
    errors: Annotated[
        bool, typer.Option("--errors", help="Give the standard error of each value too.")
    ] = False,
    cache: Annotated[
        bool,
        typer.Option("--cache/--no-cache", help="Keep results of devices other than sim on disk."),
    ] = True,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Rows in flight.")] = 256,
    preprocess: Annotated[
        str | None,
        typer.Option("--preprocess", help="How raw data becomes inputs: FILE.json or module:func."),
    ] = None,
    noise: Annotated[
        str | None,
        typer.Option("--noise", help="Machine whose noise there is on aer: fake_torino."),
    ] = None,
    zne: Annotated[
        str | None,
        typer.Option(
            "--zne",
            help="Extrapolate to zero noise: auto, linear, polynomial, richardson, exponential or "
            "learned.",
        ),
    ] = None,
    scales: Annotated[
        str, typer.Option("--zne-scales", help="Noise scales, with commas.")
    ] = "1,3,5",
    folding: Annotated[
        str, typer.Option("--zne-folding", help="global, local or two-qubit.")
    ] = "global",
    readout_mitigation: Annotated[
        bool, typer.Option("--readout-mitigation", help="Correct wrongly read bits.")
    ] = False,
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
    mitigation = _mitigation(zne, scales, folding, readout_mitigation)
    feeds = load_inputs(data, loaded.input_specs, preprocess=preprocess) if data else {}
    rows = next((len(array) for array in feeds.values() if np.ndim(array)), 1)

    def run(progress: Callable[[int], None] | None) -> Any:  # noqa: ANN401  arrays
        return loaded(
            feeds,
            shots=shots,
            device=device,
            seed=seed,
            batch_size=batch,
            progress=progress,
            noise=noise,
            mitigation=mitigation,
            errors=errors,
            cache=cache,
        )

    with bars() as progress:
        if progress is None:
            result = run(None)
        else:
            with progress.task("running", rows) as task:
                result = run(task.advance)
    found, spread = result if errors else (result, None)
    outputs = found if isinstance(found, dict) else {loaded.outputs[0]: found}
    bounds = spread if isinstance(spread, dict) else {loaded.outputs[0]: spread}
    known = {f"{n}.error": np.asarray(a) for n, a in bounds.items() if a is not None}
    if output is not None:
        with atomic_file(output) as path, path.open("wb") as file:
            np.savez(file, **outputs, **known)  # type: ignore[arg-type]
    if json_output:
        lists = {name: np.asarray(array).tolist() for name, array in outputs.items()}
        if errors:
            lists = {
                name: {
                    "values": values,
                    "errors": known[f"{name}.error"].tolist() if f"{name}.error" in known else None,
                }
                for name, values in lists.items()
            }
        emit_json(lists)
        return
    shown = [
        (name, str(array.dtype), str(list(array.shape)), np.array2string(array[:2], threshold=8))
        for name, array in ((n, np.asarray(a)) for n, a in {**outputs, **known}.items())
    ]
    show_table(("output", "dtype", "shape", "first rows"), shown)
    if output is not None:
        print(f"wrote {output}")


def _mitigation(zne: str | None, scales: str, folding: str, readout: bool) -> Mitigation:
    """Return what is done about noise.

    Raises:
        UsageError: If a method is unknown, or the scales are no numbers.
    """
    from typing import cast

    from qcomp.errors import UsageError
    from qcomp.mitigation.options import Mitigation

    try:
        numbers = tuple(float(text) for text in scales.split(","))
    except ValueError:
        raise UsageError(
            f"'{scales}' are no noise scales", hint="numbers with commas: --zne-scales 1,3,5"
        ) from None
    return Mitigation(cast("Any", zne), numbers, cast("Any", folding), readout)
