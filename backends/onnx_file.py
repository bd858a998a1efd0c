"""Saving a Program as one plain ONNX file, its circuits inside as OpenQASM 3 text."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from qcomp.ir.program import DOMAIN, Program
from qcomp.model_file import write_model

if TYPE_CHECKING:
    from qcomp.passmanager import Context
    from qcomp.target import Target

__all__ = ["OnnxBackend", "carried_circuits", "save_program"]

_QASM = "qasm"


class OnnxBackend:
    """Writes a program as ``.onnx``: any ONNX viewer opens it, and reading it gives it back."""

    name = "onnx"

    def write(self, program: Program, out: Path, target: Target, context: Context) -> list[Path]:
        """Write ``program`` to the file ``out``.

        Args:
            program: The program; it is as it was when this returns.
            out: The file. Large tensors go to ``out`` + ``.data`` beside it.
            target: Not used: the format is the same for every machine.
            context: Shows progress.

        Returns:
            The files written.

        Raises:
            QcompError: When they cannot be written.
        """
        del target
        with context.progress.task(f"saving {out.name}", None) as task:
            return save_program(program, out, progress=lambda _: task.advance())


def save_program(
    program: Program,
    path: str | Path,
    *,
    external_threshold: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[Path]:
    """Write a program to an ONNX file, whole or not at all.

    Tensors are streamed: lazy and mapped ones are in memory one at a time.

    Args:
        program: The program; it is as it was when this returns.
        path: The ``.onnx`` file.
        external_threshold: Initializers of at least this many bytes go to ``path`` + ``.data``;
            by default none do up to 256 MiB together, and those of 1 KiB or more beyond.
        progress: Called with the name of each tensor that goes to the data file.

    Returns:
        The files written, the model first.

    Raises:
        QcompError: When they cannot be written; nothing is left behind then.
    """
    with carried_circuits(program):
        return write_model(
            program.model, path, external_threshold=external_threshold, progress=progress
        )


@contextlib.contextmanager
def carried_circuits(program: Program) -> Iterator[None]:
    """Put each circuit's OpenQASM 3 text into the nodes that name it, for as long as it lasts."""
    import onnx_ir as ir

    nodes = program.all_circuit_nodes()
    imports = program.model.graph.opset_imports
    added = bool(nodes) and DOMAIN not in imports
    texts: dict[str, str] = {}
    try:
        if added:
            imports[DOMAIN] = 1
        for node in nodes:
            circuit = program.circuit_of(node)
            name = node.attributes["circuit"].as_string()
            if name not in texts:
                texts[name] = circuit.to_qasm3()
            node.attributes[_QASM] = ir.AttrString(_QASM, texts[name])
        yield
    finally:
        for node in nodes:
            node.attributes.pop(_QASM, None)
        if added:
            del imports[DOMAIN]
