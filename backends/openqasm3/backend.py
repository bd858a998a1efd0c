"""The backend ``openqasm3``: each circuit of a program as one file of text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qcomp.backends.openqasm3.writer import write_file
from qcomp.errors import TargetError
from qcomp.ir.program import Program

if TYPE_CHECKING:
    from qcomp.passmanager import Context
    from qcomp.target import Target

__all__ = ["OpenQasm3Backend"]


@dataclass(frozen=True, slots=True)
class OpenQasm3Backend:
    """Writes a program that is one circuit as OpenQASM text."""

    name = "openqasm3"

    def write(
        self, program: Program, out: Path, target: Target | None, context: Context
    ) -> list[Path]:
        """Write the program's only circuit into the file ``out``.

        Args:
            program: A program of one circuit.
            out: The file.
            target: The machine, whose profile is written; None writes all that the IR has. The
                profile ``portable`` becomes ``portable-param`` for a circuit with parameters.
            context: Takes a warning about names that had to change.

        Returns:
            ``[out]``.

        Raises:
            TargetError: If the program is more than a circuit, or the profile cannot say it.
            QcompError: If the file cannot be written.
        """
        if len(program.circuits) != 1:
            raise TargetError(
                f"OpenQASM text holds one circuit, the program has {len(program.circuits)}",
                hint="compile for two targets joined by a plus, such as cpu-int8+ibm-heron",
            )
        circuit = next(iter(program.circuits.values()))
        profile = "full" if target is None else target.profile
        if profile == "portable" and circuit.params:
            profile = "portable-param"
        changed = write_file(circuit, out, profile)
        for name, text in changed.items():
            context.warn(f"'{name}' is a word of OpenQASM or a gate: it is '{text}' in {out.name}")
        return [out]
