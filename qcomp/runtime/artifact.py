"""An artifact: what a compile made, loaded and ready to run on batches."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qcomp.artifact_format import FORMAT, MANIFEST, REPORT, VERSION, sha256
from qcomp.atomic import atomic_folder
from qcomp.errors import QcompError, SourceError, UsageError, suggest
from qcomp.registry import load as load_part
from qcomp.runtime.devices import check_device, estimate_on
from qcomp.runtime.estimates import Estimate
from qcomp.runtime.propagate import Errors, output_errors
from qcomp.runtime.stages import (
    Answer,
    Array,
    Rows,
    Walk,
    check_flow,
    check_type,
    circuit_parts,
    inside,
    read_stages,
)

if TYPE_CHECKING:
    from qcomp.execute import Session
    from qcomp.ir.circuit import Circuit
    from qcomp.ir.program import Readout
    from qcomp.mitigation.options import Mitigation

__all__ = ["Artifact", "load"]


class Artifact:
    """A compiled program on disk, callable: ``artifact(x)`` or ``artifact(name=x)``.

    Attributes:
        path: The folder.
        inputs: Names of the inputs in order.
        outputs: Names of the outputs in order.
        report: The report of the compile as plain data; empty if there is none.
    """

    def __init__(self, path: str | Path, *, check: bool = True) -> None:
        self.path = Path(path)
        manifest = _manifest(self.path)
        self.manifest: Mapping[str, Any] = manifest
        report = self.path / REPORT
        self.report: Mapping[str, Any] = _json(report) if report.is_file() else {}
        with _damaged(self.path / MANIFEST):
            self.inputs: tuple[str, ...] = _names(manifest["inputs"])
            self.outputs: tuple[str, ...] = _names(manifest["outputs"])
            for entry in manifest["inputs"]:
                check_type(entry["dtype"], entry["shape"])
            if check:
                _check_files(self.path, manifest["files"])
            self._stages, self._places = read_stages(self.path, manifest["stages"])
            check_flow(self.inputs, self.outputs, self._stages)
        self._sessions: dict[Path, Session] = {}
        self._keep: object = None

    def __repr__(self) -> str:
        """Return the artifact's folder and targets."""
        names = [name for name in self.manifest["targets"].values() if name]
        return f"Artifact({str(self.path)!r}, target={'+'.join(names)!r})"

    @property
    def input_specs(self) -> list[tuple[str, str, list[int | str | None] | None]]:
        """Name, element type and shape of each input, as program.json states them."""
        return [(e["name"], e["dtype"], e["shape"]) for e in self.manifest["inputs"]]

    @property
    def sha256(self) -> str:
        """The hash of program.json, which names the hash of every other file that runs."""
        return sha256(self.path / MANIFEST)

    @property
    def sampled(self) -> frozenset[str]:
        """Names of the inputs whose first axis holds the samples."""
        return _sampling(self.input_specs)[0]

    @property
    def fixed_batch(self) -> int | None:
        """How many samples a batch must have, or None where any number will do."""
        return _sampling(self.input_specs)[1]

    @property
    def circuits(self) -> dict[str, Circuit]:
        """The compiled circuits by name."""
        return {Path(part.file).stem: part.circuit for part in circuit_parts(self._stages)}

    @property
    def accuracies(self) -> dict[str, tuple[float, ...]]:
        """Circuits whose rotations by parameters become words on every row: how near each is."""
        return {p.circuit.name: p.accuracies for p in circuit_parts(self._stages) if p.accuracies}

    def owned_by(self, owner: object) -> Artifact:
        """Keep ``owner``, say a temporary folder, alive as long as the artifact."""
        self._keep = owner
        return self

    def save(self, path: str | Path) -> Artifact:
        """Copy the artifact to another folder, whole or not at all; return the copy.

        Raises:
            QcompError: If it cannot be written.
        """
        with atomic_folder(path, marker=MANIFEST) as folder:
            for file in sorted(self.path.iterdir()):
                shutil.copy2(file, folder / file.name)
        return Artifact(path, check=False)

    def __call__(
        self,
        *arrays: object,
        shots: int | None = None,
        device: str = "sim",
        seed: int = 0,
        batch_size: int | None = None,
        progress: Callable[[int], None] | None = None,
        noise: str | None = None,
        mitigation: Mitigation | None = None,
        errors: bool = False,
        cache: bool = True,
        **named: object,
    ) -> Any:  # noqa: ANN401  one array or a dict of arrays
        """Run on a batch.

        Args:
            arrays: The inputs in order, samples on the first axis; or one mapping name -> array.
            shots: Samples a circuit in place of what was compiled in; 0 for exact values.
            device: Where circuits run: ``sim`` (built in), ``aer``, ``lightning``, ``braket`` or
                ``ibm:NAME``; see docs/running.md.
            seed: Seed of the samples.
            batch_size: Rows in flight; all at once by default, or as many as the model fixes.
            progress: Called with the number of rows done since the last call.
            noise: Name of a machine whose noise circuits have on ``aer``, such as ``fake_torino``.
            mitigation: What is done about noise.
            errors: Return the standard errors of the outputs too.
            cache: Take results of devices other than ``sim`` from disk, and keep them there.
            named: Inputs by name.

        Returns:
            The output as an array if there is one, else name -> array. With ``errors`` a pair: the
            outputs, and in the same form their standard errors, None where there are none.

        Raises:
            UsageError: If an input is missing, unknown or of the wrong shape.
        """
        feeds = self._feeds(arrays, named)
        sampled, fixed = _sampling(self.input_specs)
        rows = next((len(feeds[n]) for n in self.inputs if n in sampled and np.ndim(feeds[n])), 1)
        step = fixed or batch_size or max(rows, 1)
        whole = step >= rows or not feeds
        parts = []
        for start in range(0, 1 if whole else rows, step):
            part = (
                feeds
                if whole
                else {
                    name: array[start : start + step] if name in sampled else array
                    for name, array in feeds.items()
                }
            )
            parts.append(
                self._run(part, shots, device, seed + start, noise, mitigation, errors, cache)
            )
            if progress is not None:
                progress(rows if whole else min(step, rows - start))
        results = {n: _joined([values[n] for values, _ in parts]) for n in self.outputs}
        alone = self.outputs[0] if len(self.outputs) == 1 else None
        shown = results if alone is None else results[alone]
        if not errors:
            return shown
        spread = {n: _joined([found[n] for _, found in parts]) for n in self.outputs}
        return shown, spread if alone is None else spread[alone]

    def _feeds(self, arrays: Sequence[object], named: Mapping[str, object]) -> dict[str, Any]:
        if len(arrays) == 1 and isinstance(arrays[0], Mapping):
            named = {**arrays[0], **named}
            arrays = ()
        if len(arrays) > len(self.inputs):
            raise UsageError(
                f"{len(arrays)} inputs were given, the artifact takes {len(self.inputs)}",
                hint="inputs: " + ", ".join(self.inputs),
            )
        feeds = dict(zip(self.inputs, arrays, strict=False)) | dict(named)
        for name in feeds:
            if name not in self.inputs:
                raise UsageError(f"there is no input '{name}'", hint=suggest(name, self.inputs))
        missing = [name for name in self.inputs if name not in feeds]
        if missing:
            raise UsageError(
                f"the input {', '.join(missing)} was not given",
                hint="inputs: " + ", ".join(self.inputs),
            )
        return {name: _as_array(value) for name, value in feeds.items()}

    def run(
        self,
        feeds: Mapping[str, Any],
        *,
        shots: int | None = None,
        device: str = "sim",
        seed: int = 0,
        noise: str | None = None,
        mitigation: Mitigation | None = None,
    ) -> dict[str, Any]:
        """Run every stage on one batch and return all outputs by name."""
        return self._run(feeds, shots, device, seed, noise, mitigation, False, False)[0]

    def _run(
        self,
        feeds: Mapping[str, Any],
        shots: int | None,
        device: str,
        seed: int,
        noise: str | None,
        mitigation: Mitigation | None,
        errors: bool,
        cache: bool,
    ) -> tuple[dict[str, Any], dict[str, Errors]]:
        """Run every stage on one batch; return all outputs by name, and their errors if wanted."""
        check_device(device)
        known: dict[int, Estimate] = {}
        accuracies = self.accuracies
        if accuracies and device != "sim":
            raise UsageError(
                f"the device '{device}' cannot run this artifact",
                why="every row has words of its own in the place of its rotations",
                hint="--device sim; or write each row's circuit: qcomp bind",
            )

        def on_device(place: int, circuit: Circuit, readout: Readout, rows: Rows) -> Array:
            if circuit.name in accuracies:
                found = load_part("services", "in-words")(circuit, rows, accuracies[circuit.name])
                circuit, rows = found
            known[place] = estimate_on(
                device, circuit, readout, rows, shots, seed + place, noise, mitigation, cache=cache
            )
            return known[place].values

        values = self.walk(feeds, on_device)
        outputs = {name: values[name] for name in self.outputs}
        if not errors:
            return outputs, {}
        given = {part.output for part in circuit_parts(self._stages)}
        return outputs, output_errors(
            lambda answer: self.walk(feeds, lambda place, *_: answer(place)),
            known,
            {name: name in given for name in self.outputs},
            seed,
        )

    def walk(self, feeds: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
        """Run the stages on one batch, circuits wherever ``answer`` runs them.

        Args:
            feeds: Input name -> array.
            answer: Called with the place of a circuit among the stages (in a loop another one for
                each step), the circuit, its readout and its rows of parameters, float64[B, P]. It
                returns what is read out, [B, ...], or None where that is not known yet; stages
                that need it are left out then.

        Returns:
            Name -> array of every value that is known in the end.
        """
        values: dict[str, Any] = dict(feeds)
        Walk(answer, self._session, self._places).run(self._stages, values)
        return values

    def _session(self, path: Path) -> Session:
        if path not in self._sessions:
            from qcomp.execute import Session

            self._sessions[path] = Session(path)
        return self._sessions[path]


def load(path: str | Path) -> Artifact:
    """Load an artifact.

    Args:
        path: The folder that a compile made, or its ``program.json``.

    Raises:
        SourceError: If the folder is no artifact, is of a newer version, or its files were changed.
    """
    path = Path(path)
    return Artifact(path.parent if path.name == MANIFEST else path)


def _joined(parts: Sequence[Any]) -> Any:  # noqa: ANN401  an array, or None where one is missing
    if any(part is None for part in parts):
        return None
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _as_array(value: object) -> Any:  # noqa: ANN401  an array of any type
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    return np.asarray(value)


def _sampling(
    specs: Sequence[tuple[str, str, Sequence[int | str | None] | None]],
) -> tuple[frozenset[str], int | None]:
    """Return the inputs that have samples first, and how many of them a batch must have."""
    from qcomp.feeds.inputs import Conversion, Input

    if not specs:
        return frozenset(), None
    conversion = Conversion([Input(*spec) for spec in specs])
    return frozenset(conversion.sampled), conversion.fixed


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise SourceError(
            f"'{folder}' is no artifact",
            why=f"it has no {MANIFEST}",
            hint="give the folder that 'qcomp compile' made",
        )
    manifest = _json(path)
    kind, version = manifest.get("format"), manifest.get("version")
    if kind != FORMAT or version != VERSION:
        raise SourceError(
            f"'{path}' is of the format {kind} {version}, this version reads {FORMAT} {VERSION}",
            hint="compile the model again, or install the version that wrote it",
        )
    return manifest


@contextlib.contextmanager
def _damaged(path: Path) -> Iterator[None]:
    """Turn what a wrong entry of a hand-made or damaged file leads to into one clear error."""
    try:
        yield
    except QcompError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        why = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        raise SourceError(
            f"'{path}' is damaged", why=why, hint="compile the model again"
        ) from error


def _json(path: Path) -> dict[str, Any]:
    with _damaged(path):
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict):
            raise TypeError("it is not a JSON object")
        return data


def _names(entries: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    names = tuple(entry["name"] for entry in entries)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"a name is not text: {names}")
    return names


def _check_files(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    for name, entry in files.items():
        path = inside(folder, name)
        if not path.is_file():
            raise SourceError(f"the artifact lacks the file '{name}'", hint="compile it again")
        if sha256(path) != entry["sha256"]:
            raise SourceError(
                f"the file '{name}' is not the one that was compiled",
                why=f"its hash differs from the one in {MANIFEST}",
                hint="compile the model again",
            )
