"""The OpenQASM frontend: text, bytes or a file in, a circuit or a program out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from qcomp.errors import SourceError
from qcomp.ir.circuit import Circuit

if TYPE_CHECKING:
    from qcomp.frontends.openqasm.interpreter import Reading
    from qcomp.frontends.openqasm.pragmas import Results
    from qcomp.ir.program import Program, Readout

__all__ = ["OpenQasmFrontend", "read_text"]

SUFFIXES = (".qasm", ".inc", ".qasm2", ".qasm3")
_STARTS = ("OPENQASM", "include", "qubit", "qreg", "//", "/*", "input", "gate", "bit", "#pragma")


def read_text(
    text: str | bytes,
    *,
    folder: Path | None = None,
    name: str = "circuit",
    inputs: Mapping[str, float] | None = None,
) -> Circuit:
    """Return the circuit of OpenQASM 2 or 3 text.

    Straight-line text goes through the compiled scanner, everything else through the grammar.

    Args:
        text: The source.
        folder: The folder that ``include`` may read from; None forbids includes of files.
        name: The circuit's name.
        inputs: Values of ``input`` variables that must be known while compiling (integers and bits
            in conditions and indices); the others stay free parameters.

    Raises:
        SourceError: If the source has an error, with its line and column, or uses constructs that
            no gate machine can run; they are all listed.
    """
    return _read(text, folder, name, inputs)[0]


def _read(
    text: str | bytes, folder: Path | None, name: str, inputs: Mapping[str, float] | None
) -> tuple[Circuit, Reading | None]:
    from qcomp.frontends.openqasm.scanner import scan

    if not inputs:
        circuit = scan(text, name=name)
        if circuit is None:
            circuit = _scan_written_out(text, name)
        if circuit is not None:
            return circuit, None
    from qcomp.frontends.openqasm.interpreter import interpret
    from qcomp.frontends.openqasm.layouts import layout_comment, placed
    from qcomp.frontends.openqasm.parser import decode, parse

    program = parse(decode(text) if isinstance(text, bytes) else text)
    comment = layout_comment(text if isinstance(text, bytes) else text.encode(errors="replace"))
    mapped = comment is not None
    reading = interpret(program, folder=folder, name=name, inputs=inputs, mapped=mapped)
    circuit = reading.circuit if comment is None else placed(reading.circuit, comment)
    return circuit, reading


def _scan_written_out(text: str | bytes, name: str) -> Circuit | None:
    """Scan a text after its own gate definitions were written out; None where that cannot be."""
    from qcomp.frontends.openqasm.macros import written_out
    from qcomp.frontends.openqasm.scanner import scan

    try:
        plain = text.decode() if isinstance(text, bytes) else text
    except UnicodeError:
        return None
    made = written_out(plain)
    if made is None or scan(made[1]) is None:
        return None
    return scan(made[0], name=name)


class OpenQasmFrontend:
    """Reads OpenQASM 2 and 3: a path, text or bytes."""

    name = "openqasm"

    def accepts(self, source: object) -> bool:
        """Whether the source looks like OpenQASM: a file by its suffix, text by its start."""
        if isinstance(source, Path):
            return source.suffix.lower() in SUFFIXES
        if isinstance(source, bytes):
            return (
                source[:4096]
                .lstrip(b"\xef\xbb\xbf \t\r\n")
                .startswith(tuple(word.encode() for word in _STARTS))
            )
        if not isinstance(source, str):
            return False
        if "\n" not in source and ";" not in source:
            return Path(source).suffix.lower() in SUFFIXES
        return source[:4096].lstrip("\ufeff \t\r\n").startswith(_STARTS) or (
            "OPENQASM" in source[:4096]
        )

    def read(
        self,
        source: str | bytes | Path,
        *,
        name: str = "",
        inputs: Mapping[str, float] | None = None,
    ) -> Program:
        """Return the program of a source.

        Args:
            source: A path, or the text itself.
            name: The circuit's name; by default the file's.
            inputs: Values of ``input`` variables that must be known while compiling.

        Raises:
            SourceError: If the file cannot be read or the source has an error.
        """
        from qcomp.ir.program import Program

        path = self._path(source)
        if path is None:
            assert not isinstance(source, Path)
            circuit, reading = _read(source, None, name or "circuit", inputs)
        else:
            circuit, reading = self._read_file(path, name or _identifier(path.stem), inputs)
        readout = None if reading is None else _readout(reading.results, circuit)
        program = Program.of_circuit(circuit, readout)
        program.source = "" if path is None else str(path)
        program.notes.extend(circuit.notes)
        return program

    @staticmethod
    def _path(source: str | bytes | Path) -> Path | None:
        if isinstance(source, Path):
            return source
        if isinstance(source, str) and "\n" not in source and ";" not in source:
            return Path(source)
        return None

    @staticmethod
    def _read_file(
        path: Path, name: str, inputs: Mapping[str, float] | None
    ) -> tuple[Circuit, Reading | None]:
        from qcomp.frontends.openqasm.scanner import scan_file

        try:
            circuit = None if inputs else scan_file(path, name=name)
            if circuit is not None:
                return circuit, None
            data = path.read_bytes()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise SourceError(
                f"the file '{path.name}' cannot be read", where=str(path), why=reason
            ) from None
        try:
            return _read(data, path.parent, name, inputs)
        except SourceError as error:
            where = f"{path}, {error.where}" if error.where else str(path)
            raise SourceError(
                error.what,
                where=where,
                why=error.why,
                hint=error.hint,
                line=error.line,
                column=error.column,
            ) from None


def _identifier(stem: str) -> str:
    cleaned = "".join(c if c.isalnum() or c == "_" else "_" for c in stem)
    return cleaned if cleaned and not cleaned[0].isdigit() else f"circuit_{cleaned}".rstrip("_")


def _readout(results: Results, circuit: Circuit) -> Readout | None:
    """Return the readout that result pragmas ask for; None where they ask for several kinds.

    Braket's probabilities and states have qubit 0 as the most significant bit.
    """
    from qcomp.ir.observable import Observable
    from qcomp.ir.program import Readout

    kinds = set(results.kinds)
    if not kinds or not results.whole:
        return None
    if kinds == {"expectation"}:
        return Readout("expval", tuple(Observable.parse(text) for text in results.observables))
    order = tuple(reversed(range(circuit.num_qubits)))
    if kinds == {"state_vector"}:
        return Readout("state", order=order)
    if kinds == {"probability"} and not circuit.num_clbits:
        return Readout("probs", order=order)
    return None
