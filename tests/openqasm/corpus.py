"""The corpus of OpenQASM programs beside the project: what is expected of each of its files.

The lists below were made by hand, file by file (a file goes by the last eight letters of its stem).
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

__all__ = ["BEYOND", "INPUTS", "NOT_PROGRAMS", "Sample", "load"]

INPUTS: dict[str, dict[str, float]] = {
    "51b40f7a": {"a_in": 1, "b_in": 15},
    "0f5662b1": {"a_in": 3, "b_in": 7},
}
"""Values for inputs that a program indexes, as the test gives them that it is taken from."""

BEYOND: dict[str, str] = {
    "579efe71": "a gate's angle that depends on a measurement",
    "1eacbb59": "physical qubits and declared qubits in one program",
    "d3786828": "physical qubits and declared qubits in one program",
}
"""Valid programs that are refused for another reason than pulses, stretch, externs and noise."""

_FRAGMENT = "is not declared"
_MISSING = "is not there"
_ONE_REGISTER = "were given"

NOT_PROGRAMS: dict[str, str] = {
    # Fragments, cut out of a longer text or made to show syntax only.
    "03a5c072": _FRAGMENT,
    "0b1b9d34": _FRAGMENT,
    "0f8d5cc0": _FRAGMENT,
    "1e93243f": _FRAGMENT,
    "23807cc8": _FRAGMENT,
    "397e4def": _FRAGMENT,
    "82af4dd8": _FRAGMENT,
    "862122e2": _FRAGMENT,
    "a0394b18": _FRAGMENT,
    "ad8d0ee7": _FRAGMENT,
    "ae17cf34": _FRAGMENT,
    "37a0843d": "there is no gate 'builtin'",
    "232126bd": "there is no function 'f'",
    "39ee1b18": "'arcsin' has no value here",
    "421491d0": "does not have the shape of",
    "cd2e753a": "acts on 3 qubits with its modifiers, 1 were given",
    # The included file is not in the corpus.
    "3db42703": _MISSING,
    "5cb0a801": _MISSING,
    "773a183c": _MISSING,
    "79920caa": _MISSING,
    "8daa093a": _MISSING,
    "b407835a": _MISSING,
    "da4e7ba5": _MISSING,
    # A name declared twice in one scope; a register of no qubits.
    "8fb30527": "'c' is declared twice",
    "d2f59b27": "'i' is declared twice",
    "94bf0d63": "must be positive, not 0",
    # pyqasm's dialect: one register given for several operands of a gate.
    "1b512fbd": _ONE_REGISTER,
    "45672c7c": _ONE_REGISTER,
    "5dbbe1a3": _ONE_REGISTER,
    "6aeba51d": _ONE_REGISTER,
    "9787cc76": _ONE_REGISTER,
    "b2bbdfb1": _ONE_REGISTER,
    "bad2bc99": _ONE_REGISTER,
    "ddeb361a": _ONE_REGISTER,
    # pyqasm's dialect: the end of a slice is not part of it.
    "35d55b34": "index 2 is out of range",
    "49e0d86e": "4 qubits are measured into 3 bits",
    "50d0ff3f": "index 3 is out of range",
    "97588e5e": "3 qubits are measured into 2 bits",
    "9d234f32": "2 qubits are measured into 1 bit",
    "e2a621ac": "2 qubits are measured into 1 bit",
    "ea3e432e": "index 2 is out of range",
    "ec8a1d8f": "index 3 is out of range",
    # pyqasm's dialect: arithmetic of whole arrays, the product of two durations.
    "0bc0e75b": "'*' does not work on two durations",
    "2014fa9f": "'+' does not work on whole arrays",
    # A verbatim pragma before something else than a box, which Braket refuses too.
    "52650fd3": "a verbatim pragma stands before a box",
    # Subroutines called like gates, the syntax of an early draft of OpenQASM 3.
    "8142ef82": "'distill_and_buffer' is not a gate",
}
"""Files of the right syntax that are no programs by the rules of OpenQASM, and what is told so."""


@dataclass(frozen=True)
class Sample:
    """One file of the corpus."""

    key: str
    path: Path
    expected: str
    qiskit_error: str
    raises: bool
    folder: Path

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def inputs(self) -> dict[str, float] | None:
        return INPUTS.get(self.key)


def load(root: Path, scratch: Path) -> list[Sample]:
    """The files of the corpus; those that include one another are laid out in `scratch`."""
    entries = json.loads((root / "manifest.json").read_text())["files"]
    samples = []
    for entry in entries:
        path = root / entry["file"]
        original = Path(entry["source_path"])
        folder = scratch / entry["source_repo"].rsplit("/", 1)[1] / original.parent
        folder.mkdir(parents=True, exist_ok=True)
        if entry["kind"] in ("file", "include"):
            shutil.copy(path, folder / original.name)
        samples.append(
            Sample(
                key=path.stem[-8:],
                path=path,
                expected=entry["expected"],
                qiskit_error=str(entry["consumers"]["qiskit"].get("error") or ""),
                raises=entry["source_expectation"] in ("raises_in_test", "error_somewhere"),
                folder=folder,
            )
        )
    return samples
