"""Pragmas: Amazon Braket's results, unitaries and noise; others are kept as notes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

from qcomp.errors import QcompError
from qcomp.frontends.openqasm import syntax as s
from qcomp.frontends.openqasm.parser import parse
from qcomp.frontends.openqasm.powers import MAX_MATRIX_QUBITS, synthesised
from qcomp.frontends.openqasm.subroutines import Subroutines
from qcomp.frontends.openqasm.values import fail

__all__ = ["Pragmas", "Results"]

_TERM = re.compile(r"\s*([a-zA-Z]+)\s*(?:\(([^()]*)\)|(\s+all))?\s*")


@dataclass(slots=True)
class Results:
    """What a source's result pragmas ask for.

    Attributes:
        observables: Texts of Pauli observables, such as ``Z0*Z1``.
        kinds: The kinds of all results in order.
        whole: Whether every result is over all qubits.
    """

    observables: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    whole: bool = True


class Pragmas(Subroutines):
    """The interpreter's part that reads pragmas."""

    results: Results
    verbatim: s.Pragma | None
    mapped: bool

    def run_pragma(self, node: s.Pragma) -> None:
        """Execute a pragma."""
        if len(self.memory.scopes) > 1 or self.memory.depth:
            fail(node, "a pragma can only stand globally")
        words = node.text.split(None, 2)
        if words[:2] == ["qcomp", "circuit"]:
            self.memory.keep = True
            return
        if not words or words[0] != "braket":
            self.notes[f"line {node.line}: the pragma '{node.text[:60]}' is not used"] = None
            return
        command = words[1] if len(words) > 1 else ""
        rest = words[2] if len(words) > 2 else ""
        if command == "verbatim":
            self.verbatim = node
            if self.mapped:
                return
            self.notes[f"line {node.line}: the verbatim box is kept, its gates may be changed"] = (
                None
            )
        elif command == "result":
            self._result(rest, node)
        elif command.startswith("unitary"):
            self._unitary(node.text.split("unitary", 1)[1], node)
        else:
            fail(
                node,
                f"there is no Braket pragma '{command}'",
                hint="known: verbatim, result, unitary, noise",
            )

    # ---------------------------------------------------------------- results

    def _result(self, text: str, node: s.Pragma) -> None:
        kind, _, rest = text.strip().partition(" ")
        self.results.kinds.append(kind)
        if kind == "expectation":
            observable = self._observable(rest, node)
            if observable:
                self.results.observables.extend(observable)
                return
        elif kind in ("probability", "state_vector"):
            if rest.strip() in ("", "all"):
                return
            self._operands(rest, node)
        elif kind not in ("variance", "sample", "amplitude", "density_matrix", "adjoint_gradient"):
            fail(node, f"there is no Braket result '{kind}'")
        self.results.whole = False
        self.notes[f"line {node.line}: the result '{text[:60]}' is not used"] = None

    def _observable(self, text: str, node: s.Pragma) -> list[str]:
        """Return Pauli observables; empty where the observable is no product of Paulis."""
        factors: list[str] = []
        for part in text.split("@"):
            match = _TERM.fullmatch(part)
            if match is None or match[1] not in ("x", "y", "z", "i"):
                return []
            if match[2] is None:
                if "@" in text:
                    return []
                wires = range(self.emitter.num_qubits)
                return [f"{match[1].upper()}{w}" for w in wires] if match[1] != "i" else []
            wires_given = self._operands(match[2], node)
            if len(wires_given) != 1:
                fail(node, f"the observable '{part.strip()}' takes one qubit")
            if match[1] != "i":
                factors.append(f"{match[1].upper()}{wires_given[0]}")
        return ["*".join(factors)] if factors else []

    def _operands(self, text: str, node: s.Pragma) -> list[int]:
        try:
            body = parse(f"barrier {text};").body
        except QcompError as error:
            fail(node, f"the pragma's qubits '{text[:40]}' cannot be read", why=error.what)
        wires: list[int] = []
        for statement in body:
            if isinstance(statement, s.Barrier):
                for operand in statement.operands:
                    _place(operand, node)
                    wires.extend(self.qubits(operand).wires)
        return wires

    # ---------------------------------------------------------------- unitaries

    def _unitary(self, text: str, node: s.Pragma) -> None:
        match = re.fullmatch(r"\s*\(\s*\[(.*)\]\s*\)\s*(.*)", text, re.DOTALL)
        if match is None:
            fail(node, "a unitary is written unitary([[...], [...]]) qubits")
        try:
            rows = [
                [complex(entry.replace(" ", "").replace("im", "j")) for entry in row.split(",")]
                for row in re.findall(r"\[([^\[\]]*)\]", match[1])
            ]
            matrix = np.array(rows, dtype=complex)
        except ValueError:
            fail(node, "the matrix of the unitary cannot be read")
        wires = self._operands(match[2], node)
        if not 1 <= len(wires) <= MAX_MATRIX_QUBITS:
            fail(
                node,
                f"a unitary on {len(wires)} qubits",
                why=f"a matrix is read for 1 to {MAX_MATRIX_QUBITS} qubits",
            )
        if matrix.shape != (1 << len(wires),) * 2:
            fail(node, f"a matrix of shape {matrix.shape} on {len(wires)} qubits")
        # Braket's first qubit is the most significant bit of the matrix index.
        wires.reverse()
        for op in synthesised(matrix, node):
            self.emitter.op(op.name, tuple(wires[q] for q in op.qubits), op.angles)


def _place(node: s.Node, at: s.Node) -> None:
    """Give nodes that were parsed from a pragma's text the pragma's place."""
    stack = [node]
    while stack:
        current = stack.pop()
        current.line, current.column = at.line, at.column
        stack.extend(s.children(current))
