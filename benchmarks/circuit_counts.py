"""What a benchmark circuit is, and how gates are counted: one translation for every tool.

The denominator is the circuit as it was written, taken apart by textbook definitions into
x, y, z, h, s, sdg, t, tdg, rx, ry, rz, cx. A tool's output is counted in one basis a family, after
a translation that is the same for every tool: gate by gate, then each chain of one-qubit gates in
the fewest gates of that basis, which helps the tools that do not know the basis.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.ir.definitions import parse_definition
from qcomp.ir.gates import G
from qcomp.ir.program import Program
from qcomp.ir.run import Run
from qcomp.passes.map.rules import Translation
from qcomp.passes.map.to_basis import translate_run
from qcomp.passes.reduce.leaves import rewrite_leaves
from qcomp.passmanager import Context, Pipeline

__all__ = [
    "COLUMNS",
    "FAMILIES",
    "Counts",
    "Entry",
    "Family",
    "counts_of_output",
    "family_of",
    "flattened",
    "geometric_mean",
    "read_entries",
]

FLAT = ("x", "y", "z", "h", "s", "sdg", "t", "tdg", "rx", "ry", "rz", "cx")
"""The gates that the input is counted in."""

TEXTBOOK = {
    "u": "rz(l) a; rx(pi/2) a; rz(t) a; rx(-pi/2) a; rz(p) a",
    "p": "rz(t) a",
    "sx": "rx(pi/2) a",
    "sxdg": "rx(-pi/2) a",
    "cz": "h b; cx a,b; h b",
    "cy": "sdg b; cx a,b; s b",
    "swap": "cx a,b; cx b,a; cx a,b",
    "cp": "rz(t/2) a; cx a,b; rz(-t/2) b; cx a,b; rz(t/2) b",
    "crz": "rz(t/2) b; cx a,b; rz(-t/2) b; cx a,b",
    "cry": "ry(t/2) b; cx a,b; ry(-t/2) b; cx a,b",
    "crx": "s b; cx a,b; ry(-t/2) b; cx a,b; ry(t/2) b; sdg b",
    "rzz": "cx a,b; rz(t) b; cx a,b",
    "rxx": "h a; h b; cx a,b; rz(t) b; cx a,b; h a; h b",
    "ccx": "h c; cx b,c; tdg c; cx a,c; t c; cx b,c; tdg c; cx a,c; t b; t c; h c; "
    "cx a,b; t a; tdg b; cx a,b",
    "cswap": "cx c,b; ccx a,b,c; cx c,b",
}
"""How the gates of the sources are taken apart for the denominator, up to global phase."""

_U2 = "gate textbook_u2(p,l) a { rz(l) a; rx(pi/2) a; rz(p) a; }\n"

COLUMNS = ("gates", "two_qubit", "rotations", "t", "depth")


@dataclass(frozen=True, slots=True)
class Family:
    """Circuits that are judged together.

    Attributes:
        name: Its name in the tables.
        title: Its name in words.
        gates: The basis that outputs are counted in.
        one_qubit: The basis of one-qubit gates as ``fuse-one-qubit`` takes it.
    """

    name: str
    title: str
    gates: tuple[str, ...]
    one_qubit: str


NAM = (("h", "x", "rz", "cx"), "h-x-rz")
IBM = (("rz", "sx", "x", "cx"), "rz-sx-x")
FAMILIES = {
    family.name: family
    for family in (
        Family("clifford_t", "Clifford+T", *NAM),
        Family("qml_variational", "variational", *IBM),
        Family("algorithm", "algorithms", *NAM),
        Family("device100", "100-qubit device set", *IBM),
    )
}

_SAME = {"clifford": "clifford_t"}


def family_of(name: str) -> Family:
    """Return the family of a manifest's entry; ``clifford`` circuits are judged as Clifford+T.

    Raises:
        UsageError: If the manifest names a family that has no basis here.
    """
    key = _SAME.get(name, name)
    if key not in FAMILIES:
        raise UsageError(f"there is no family '{name}'", hint=f"families: {', '.join(FAMILIES)}")
    return FAMILIES[key]


CLIFFORD = 1e-8
"""Radians from a multiple of pi/2, or pi/4, within which an angle counts as one."""


def _rotations(run: Run) -> tuple[int, int]:
    """Return (rotations, T gates) of gates with at most one angle each."""
    named = int(np.isin(run.code, [G.T, G.TDG]).sum())
    value = run.frac * (np.pi / (1 << 60)) + run.rem
    quarter, eighth = np.pi / 2, np.pi / 4
    off = np.abs(value - np.round(value / quarter) * quarter) > CLIFFORD
    odd = off & (np.abs(value - np.round(value / eighth) * eighth) <= CLIFFORD)
    return named + int(off.sum()), named + int(odd.sum())


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of one circuit.

    Attributes:
        gates: Gates in the basis.
        two_qubit: Those on two qubits.
        rotations: Rotations by something else than a multiple of pi/2.
        t: Rotations by odd multiples of pi/4.
        depth: Longest chain of gates that share wires.
    """

    gates: int
    two_qubit: int
    rotations: int
    t: int
    depth: int

    @staticmethod
    def of(circuit: Circuit) -> Counts:
        """Count a circuit as it stands."""
        stats = circuit.stats()
        rotations, t = _rotations(circuit.run)
        return Counts(stats.gates, stats.two_qubit, rotations, t, stats.depth)

    def to_dict(self) -> dict[str, int]:
        """Return the counts as a plain dictionary."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class Entry:
    """One circuit of a folder: its name, family, file and number of qubits."""

    name: str
    family: Family
    path: Path
    qubits: int

    def read(self) -> Circuit:
        """Return the circuit without measurements, barriers and resets at its end.

        Raises:
            UsageError: If it measures, resets or decides before its end: no unitary to compare.
        """
        return self._without_measurements(self.path.read_text())

    def denominator(self) -> Circuit:
        """Return the circuit as its counts are the denominator: textbook definitions only."""
        text = self.path.read_text()
        if "u2(" in text:
            # The reader takes u2 for a u, and a u has two more gates in the textbook.
            head, include, rest = text.partition('include "qelib1.inc";')
            rest = re.sub(r"\bu2\s*\(", "textbook_u2(", rest)
            text = f"{head}{include}\n{_U2}{rest}"
        return flattened(self._without_measurements(text))

    def _without_measurements(self, text: str) -> Circuit:
        from qcomp.simulate.control_flow import final_measurements, is_unitary

        circuit = Circuit.from_qasm(text)
        if not is_unitary(circuit):
            raise UsageError(f"'{self.path.name}' is not unitary before its final measurements")
        body, _ = final_measurements(circuit)
        runs = [item for item in body if isinstance(item, Run)]
        run = Run.concat(runs)
        return circuit.copy(body=(run.select(run.code != G.BARRIER),))


def read_entries(folder: Path) -> list[Entry]:
    """Return the circuits that a folder's ``manifest.json`` names.

    The manifest holds ``{"circuits": [{"name", "file", "family", "qubits"}, ...]}``.

    Raises:
        UsageError: If there is no manifest, or it names another file than one of the folder.
    """
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        raise UsageError(f"there is no '{manifest.name}' in the folder", where=str(folder))
    out = []
    for row in json.loads(manifest.read_text())["circuits"]:
        path = folder / row["file"]
        if not path.is_file():
            raise UsageError(f"the manifest names '{row['file']}', which is not there")
        out.append(Entry(row["name"], family_of(row["family"]), path, int(row["qubits"])))
    return out


@functools.cache
def _textbook() -> Translation:
    base = Translation.into(FLAT)
    own = {name: parse_definition(text) for name, text in TEXTBOOK.items()}
    return dataclasses.replace(base, _choice={**base._choice, **own}, _made={})


def flattened(circuit: Circuit) -> Circuit:
    """Return the circuit in the gates of the denominator, up to global phase."""
    return rewrite_leaves(circuit, lambda run, forms: translate_run(run, forms, _textbook()))


def _through(circuit: Circuit, pipeline: str) -> Circuit:
    program = Program.of_circuit(circuit)
    Pipeline.parse(pipeline).run(program, Context())
    return program.only_circuit


def counts_of_output(circuit: Circuit, family: Family) -> tuple[Counts, Counts]:
    """Return the counts of a tool's output in the family's basis.

    Returns:
        (counts with each chain of one-qubit gates written shortest, counts gate by gate).
    """
    basis = f"to-basis{{gates=[{','.join(family.gates)}]}}"
    plain = _through(circuit, basis)
    # Fusing may write sx x as sxdg, which is not of every basis.
    fused = _through(plain, f"fuse-one-qubit{{basis={family.one_qubit}}},{basis}")
    first, second = Counts.of(plain), Counts.of(fused)
    return (second if second.gates < first.gates else first), first


def geometric_mean(pairs: Iterable[tuple[int, int]]) -> float | None:
    """Return the geometric mean of (output, input) ratios, None when no input has a count.

    An output of 0 counts as 0.5; an input of 0 is left out.
    """
    logs = [math.log(max(after, 0.5) / before) for after, before in pairs if before]
    return float(math.exp(np.mean(logs))) if logs else None


def family_ratios(
    rows: Sequence[tuple[Counts, Counts]], columns: Sequence[str] = COLUMNS
) -> Mapping[str, float | None]:
    """Return the geometric mean of each column over (output, input) rows."""
    return {
        key: geometric_mean((getattr(after, key), getattr(before, key)) for after, before in rows)
        for key in columns
    }
