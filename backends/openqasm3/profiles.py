"""Profiles: what a reader of OpenQASM takes, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import pi
from types import MappingProxyType
from typing import Literal

from qcomp.errors import TargetError, suggest
from qcomp.ir.gates import GATES, stdgates_names

__all__ = ["NO_DEFINITIONS", "PROFILES", "Limit", "Profile", "get_profile"]

NO_DEFINITIONS: frozenset[str] = frozenset()
EVERY_GATE: frozenset[str] = frozenset(row.name for row in GATES)


@dataclass(frozen=True, slots=True)
class Limit:
    """What a machine demands of an angle of one of its gates, beyond being a number.

    Attributes:
        index: Which of the gate's angles.
        low: Least value, radians.
        high: Greatest value, radians.
        step: The angle is a multiple of this; 0 for any.
    """

    index: int
    low: float
    high: float
    step: float = 0.0


@dataclass(frozen=True, slots=True)
class Profile:
    """A subset of OpenQASM, or another form of text that stands for a circuit.

    Attributes:
        name: The profile's name.
        version: ``"3.0"``, ``"2.0"``, or ``"json"`` for IonQ's own format.
        include: The file of standard gates; empty where the reader has its gates built in.
        gates: Gates of the table that may be called without a definition.
        consumers: Names of ``qcomp.consumers`` that must accept every text of this profile.
        judge: The consumer that must accept its verbatim boxes too; empty for none.
        spelling: Gate -> its name in the text, where that differs from the table's.
        defines: Gates outside ``gates`` that get a definition in the text.
        lowers: Whether gates outside ``gates`` are replaced by simpler ones.
        phase: Whether the text says a global phase; else it is dropped.
        pi: Whether angles may be fractions of pi; else they are decimals.
        inputs: Whether free parameters may stay, as ``input float[64]``.
        flow: Whether control flow, variables and delays are taken.
        operations: Which of ``reset``, ``barrier`` and ``measure`` may stand anywhere.
        one_register: One register ``q`` and one ``c``; measurements at the end.
        physical: When qubits are called ``$0``: never, in circuits that were mapped to a device,
            or always.
        verbatim: Whether gates on physical qubits stand in a verbatim box of Amazon Braket.
        compared_bits: Whether a condition may compare a bit, ``c[0] == 1``; else it is ``c[0]``.
        limits: Gate -> what its angles must fulfil.
    """

    name: str
    version: str
    include: str
    gates: frozenset[str]
    consumers: tuple[str, ...] = ()
    spelling: Mapping[str, str] = field(default_factory=dict)
    defines: frozenset[str] = NO_DEFINITIONS
    lowers: bool = False
    phase: bool = True
    pi: bool = True
    inputs: bool = True
    flow: bool = True
    operations: frozenset[str] = frozenset({"reset", "barrier", "measure"})
    one_register: bool = False
    physical: Literal["never", "mapped", "always"] = "never"
    verbatim: bool = False
    compared_bits: bool = True
    limits: Mapping[str, tuple[Limit, ...]] = field(default_factory=dict)
    judge: str = ""

    def included(self) -> frozenset[str]:
        """Return the gate names that the text's include, or the reader itself, takes."""
        if self.version == "3.0" and self.include:
            return stdgates_names()
        names = {self.spelling.get(name, name) for name in self.gates}
        if self.version == "3.0":
            return frozenset(names | _BRAKET_NAMES)
        return frozenset(names | self.gates | _QELIB1 | _QELIB1_MORE)


_STANDARD = frozenset(row.name for row in GATES if row.in_stdgates) | {"u", "gphase", "mcx"}
_PORTABLE = frozenset("h x y z s t rx ry rz cy cz swap cswap".split())
_QELIB1 = frozenset(
    "id x y z h s sdg t tdg sx sxdg p rx ry rz u cx cy cz ch csx cp crx cry crz cu swap ccx cswap "
    "rxx rzz".split()
)
_QELIB1_MORE = frozenset("u0 u1 u2 u3 cu1 cu3 c3x c4x rccx rc3x".split())
_BRAKET = {
    "id": "i",
    "sdg": "si",
    "tdg": "ti",
    "sx": "v",
    "sxdg": "vi",
    "p": "phaseshift",
    "r": "prx",
    "u": "U",
    "cx": "cnot",
    "csx": "cv",
    "cp": "cphaseshift",
    "rxx": "xx",
    "ryy": "yy",
    "rzz": "zz",
    "ccx": "ccnot",
}
_BRAKET_SAME = frozenset(
    "x y z h s t rx ry rz cy cz swap iswap ecr cswap gpi gpi2 ms xy gphase".split()
)
_BRAKET_NAMES = frozenset(_BRAKET.values()) | frozenset(
    "x y z h s t rx ry rz cy cz swap iswap ecr cswap gpi gpi2 ms xy pswap unitary "
    "cphaseshift00 cphaseshift01 cphaseshift10".split()
)
assert _STANDARD - {"u", "gphase", "mcx"} <= stdgates_names()
assert _BRAKET.keys() | _BRAKET_SAME <= EVERY_GATE


def _portable(name: str, consumers: tuple[str, ...], *, inputs: bool) -> Profile:
    return Profile(
        name,
        "3.0",
        "stdgates.inc",
        _PORTABLE,
        consumers,
        lowers=True,
        phase=False,
        pi=False,
        inputs=inputs,
        flow=False,
        operations=frozenset(),
        one_register=True,
    )


def _braket(
    name: str,
    gates: frozenset[str],
    *,
    lowers: bool = False,
    verbatim: bool = True,
    physical: Literal["mapped", "always"] = "mapped",
    limits: Mapping[str, tuple[Limit, ...]] | None = None,
) -> Profile:
    return Profile(
        name,
        "3.0",
        "",
        gates,
        ("reference", "braket"),
        spelling=_BRAKET,
        lowers=lowers,
        phase=False,
        pi=False,
        flow=False,
        operations=frozenset(),
        one_register=True,
        physical=physical,
        verbatim=verbatim,
        limits=limits or {},
        judge=name.partition("-")[2],
    )


_ONE_TURN = (Limit(0, -2 * pi, 2 * pi),)
_IONQ_LIMITS = {
    "gpi": _ONE_TURN,
    "gpi2": _ONE_TURN,
    "ms": (Limit(0, -2 * pi, 2 * pi), Limit(1, -2 * pi, 2 * pi), Limit(2, 0.0, pi / 2)),
}
_RIGETTI_LIMITS = {"rx": (Limit(0, -pi, pi, pi / 2),)}
_IBM_LIMITS = {"rzz": (Limit(0, 0.0, pi / 2),)}
_IONQ = frozenset({"gpi", "gpi2", "ms", "rzz"})

PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Profile(
                "full",
                "3.0",
                "stdgates.inc",
                _STANDARD,
                ("reference",),
                spelling={"u": "U"},
                defines=EVERY_GATE,
            ),
            _portable("portable", ("reference", "qiskit", "pyqasm"), inputs=False),
            _portable("portable-param", ("reference", "qiskit"), inputs=True),
            Profile(
                "ibm",
                "3.0",
                "stdgates.inc",
                frozenset({"cz", "rz", "sx", "x", "id", "rx", "gphase"}),
                ("reference", "qiskit"),
                defines=frozenset({"ecr", "rzz"}),
                pi=False,
                physical="mapped",
                compared_bits=False,
                limits=_IBM_LIMITS,
            ),
            _braket("braket", frozenset(_BRAKET) | _BRAKET_SAME, lowers=True, verbatim=False),
            _braket(
                "braket-rigetti", frozenset({"rx", "rz", "iswap", "cz"}), limits=_RIGETTI_LIMITS
            ),
            _braket("braket-iqm", frozenset({"r", "cz"})),
            _braket("braket-ionq", _IONQ, physical="always", limits=_IONQ_LIMITS),
            Profile(
                "ionq",
                "json",
                "",
                _IONQ,
                spelling={"rzz": "zz"},
                phase=False,
                pi=False,
                inputs=False,
                flow=False,
                operations=frozenset(),
                one_register=True,
                limits=_IONQ_LIMITS,
            ),
            Profile(
                "quantinuum",
                "2.0",
                "hqslib1.inc",
                frozenset({"r", "rz", "rzz", "zzmax"}),
                ("pytket",),
                spelling={"r": "U1q", "rz": "Rz", "rzz": "RZZ", "zzmax": "ZZ"},
                phase=False,
                pi=False,
                inputs=False,
                flow=False,
            ),
            Profile(
                "qasm2",
                "2.0",
                "qelib1.inc",
                _QELIB1,
                ("qiskit", "pytket"),
                spelling={"u": "u3", "p": "u1", "cp": "cu1"},
                defines=EVERY_GATE,
                phase=False,
                inputs=False,
                flow=False,
            ),
        )
    }
)
"""Every profile by its name."""


def get_profile(name: str) -> Profile:
    """Return the profile of that name.

    Raises:
        TargetError: If there is none; exit code 2.
    """
    if name not in PROFILES:
        error = TargetError(f"there is no OpenQASM profile '{name}'", hint=suggest(name, PROFILES))
        error.exit_code = 2
        raise error
    return PROFILES[name]
