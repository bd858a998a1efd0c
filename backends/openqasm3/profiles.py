"""Profiles: what a reader of OpenQASM takes, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from qcomp.errors import TargetError, suggest
from qcomp.ir.gates import GATES, stdgates_names

__all__ = ["PROFILES", "Profile", "get_profile"]


@dataclass(frozen=True, slots=True)
class Profile:
    """A subset of OpenQASM.

    Attributes:
        name: The profile's name.
        version: ``"3.0"`` or ``"2.0"``.
        include: The file of standard gates.
        gates: Gates of the table that may be called without a definition.
        spelling: Gate -> its name in the text, where that differs from the table's.
        defines: Whether gates outside ``gates`` get a definition in the text.
        lowers: Whether gates outside ``gates`` are replaced by simpler ones.
        phase: Whether the text says a global phase; else it is dropped.
        pi: Whether angles may be fractions of pi; else they are decimals.
        inputs: Whether free parameters may stay, as ``input float[64]``.
        flow: Whether control flow, variables and delays are taken.
        operations: Which of ``reset``, ``barrier`` and ``measure`` may stand anywhere.
        one_register: One register ``q`` and one ``c``; measurements at the end.
    """

    name: str
    version: str
    include: str
    gates: frozenset[str]
    spelling: Mapping[str, str] = field(default_factory=dict)
    defines: bool = False
    lowers: bool = False
    phase: bool = True
    pi: bool = True
    inputs: bool = True
    flow: bool = True
    operations: frozenset[str] = frozenset({"reset", "barrier", "measure"})
    one_register: bool = False


_STANDARD = frozenset(row.name for row in GATES if row.in_stdgates) | {"u", "gphase", "mcx"}
_PORTABLE = frozenset("h x y z s t rx ry rz cy cz swap cswap".split())
_QELIB1 = frozenset(
    "id x y z h s sdg t tdg sx sxdg p rx ry rz u cx cy cz ch csx cp crx cry crz cu swap ccx cswap "
    "rxx rzz".split()
)
assert _STANDARD - {"u", "gphase", "mcx"} <= stdgates_names()


def _portable(name: str, *, inputs: bool) -> Profile:
    return Profile(
        name,
        "3.0",
        "stdgates.inc",
        _PORTABLE,
        lowers=True,
        phase=False,
        pi=False,
        inputs=inputs,
        flow=False,
        operations=frozenset(),
        one_register=True,
    )


PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Profile(
                "full",
                "3.0",
                "stdgates.inc",
                _STANDARD,
                spelling={"u": "U"},
                defines=True,
            ),
            _portable("portable", inputs=False),
            _portable("portable-param", inputs=True),
            Profile(
                "ibm",
                "3.0",
                "stdgates.inc",
                frozenset({"cz", "rz", "sx", "x", "id", "gphase"}),
                pi=False,
            ),
            Profile(
                "qasm2",
                "2.0",
                "qelib1.inc",
                _QELIB1,
                spelling={"u": "u3", "p": "u1", "cp": "cu1"},
                defines=True,
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
