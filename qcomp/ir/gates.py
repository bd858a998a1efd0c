"""The one gate table: all that is known of a gate stands here and nowhere else.

A gate's name is its OpenQASM 3 spelling in ``stdgates.inc`` where it has one. Matrices follow
Qiskit: operand 0 is the least significant bit of the index, and ``u`` carries no extra phase. The
gates of machines that Qiskit has not follow their vendors, angles in radians: ``gpi``, ``gpi2`` and
``ms`` IonQ, ``xy`` Rigetti as Amazon Braket spells it; ``r`` is IQM's ``prx`` and Quantinuum's
``U1q``, ``rzz`` is ``zz`` of IonQ and Quantinuum's ``RZZ``, ``zzmax`` Quantinuum's ``ZZ``.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qcomp.ir import matrices as m

__all__ = [
    "AXIS",
    "BY_NAME",
    "GATES",
    "INVERSE_CODE",
    "IS_UNITARY",
    "NUM_ANGLES",
    "NUM_QUBITS",
    "G",
    "Gate",
    "gate",
]

Kind = Literal["unitary", "phase", "measure", "reset", "barrier"]
WIDE = -1


@dataclass(frozen=True, slots=True)
class Gate:
    """One row of the table.

    Attributes:
        code: Index of the gate in ``GATES``, the number that circuits store.
        name: The gate's name.
        num_qubits: Operands; -1 for any number (``barrier``, ``mcx``).
        num_angles: Angles, in radians.
        kind: What sort of operation it is.
        matrix_function: Angles (arrays broadcast) to complex128[..., 2^k, 2^k], or None.
        axes: Per operand the Pauli axis the gate commutes with there: "X", "Y", "Z" or "-".
        inverse: Name of the inverse gate; empty where it is no gate of the table.
        inverse_angles: The inverse's angle i is ``sign * angle[source]``, a (source, sign) each.
        definition_text: The gate in terms of simpler ones, operands a b c, angles t p l g.
        aliases: Other spellings that mean exactly this matrix.
        in_stdgates: Whether OpenQASM 3's ``stdgates.inc`` defines it under this name.
        rotations: Non-Clifford rotations it costs at a generic angle (7 for ``ccx``).
        clifford: Whether it is a Clifford gate (never, for gates with angles).
    """

    code: int
    name: str
    num_qubits: int
    num_angles: int = 0
    kind: Kind = "unitary"
    matrix_function: m.MatrixFunction | None = field(default=None, compare=False)
    axes: str = ""
    inverse: str = ""
    inverse_angles: tuple[tuple[int, int], ...] = ()
    definition_text: str = ""
    aliases: tuple[str, ...] = ()
    in_stdgates: bool = False
    rotations: int = 0
    clifford: bool = False

    @property
    def is_unitary(self) -> bool:
        """Whether the operation has a matrix."""
        return self.kind in ("unitary", "phase")

    @property
    def is_diagonal(self) -> bool:
        """Whether the matrix is diagonal at every angle."""
        return self.kind == "phase" or (bool(self.axes) and set(self.axes) == {"Z"})

    def matrix(self, *angles: ArrayLike, num_qubits: int | None = None) -> m.Matrix:
        """Return the matrix, complex128[..., 2^k, 2^k].

        Args:
            angles: One value or array for each angle, radians; arrays broadcast.
            num_qubits: Operands, needed for a gate of any number of them.

        Raises:
            ValueError: If the operation is not unitary or the number of angles is wrong.
        """
        if not self.is_unitary or len(angles) != self.num_angles:
            raise ValueError(f"{self.name} takes {self.num_angles} angles and must be unitary")
        if self.name == "mcx":
            if num_qubits is None:
                raise ValueError("mcx needs its number of operands")
            return m.controlled(_X, num_qubits - 1)()
        assert self.matrix_function is not None
        return self.matrix_function(*angles)


_X = m.fixed([0, 1], [1, 0])
_Y = m.fixed([0, -1j], [1j, 0])
_Z = m.fixed([1, 0], [0, -1])
_S = m.fixed([1, 0], [0, 1j])
_SDG = m.fixed([1, 0], [0, -1j])
_H = m.fixed(*(np.array([[1, 1], [1, -1]]) / np.sqrt(2)))
_SX = m.fixed(*(np.array([[1 + 1j, 1 - 1j], [1 - 1j, 1 + 1j]]) / 2))
_SXDG = m.fixed(*(np.array([[1 - 1j, 1 + 1j], [1 + 1j, 1 - 1j]]) / 2))
_SWAP = m.fixed([1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1])
_ISWAP = m.fixed([1, 0, 0, 0], [0, 0, 1j, 0], [0, 1j, 0, 0], [0, 0, 0, 1])
_DCX = m.fixed([1, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0])
_ECR = m.fixed(
    *(np.array([[0, 1, 0, 1j], [1, 0, -1j, 0], [0, 1j, 0, 1], [-1j, 0, 1, 0]]) / np.sqrt(2))
)
_RX, _RY, _RZ = (m.pauli_rotation(p) for p in "XYZ")
_T_ANGLE = np.exp(1j * np.pi / 4)
_NEGATED = ((0, -1),)

_CCX_DEFINITION = (
    "h c; cx b,c; tdg c; cx a,c; t c; cx b,c; tdg c; cx a,c; t b; t c; h c; "
    "cx a,b; t a; tdg b; cx a,b"
)


def _table() -> tuple[Gate, ...]:
    rows: list[Gate] = []

    def add(name: str, num_qubits: int, num_angles: int = 0, **rest: object) -> None:
        rows.append(Gate(len(rows), name, num_qubits, num_angles, **rest))  # type: ignore[arg-type]

    def std(
        name: str,
        axes: str,
        matrix: m.MatrixFunction,
        definition: str,
        *,
        inverse: str | None = None,
        angles: int = 0,
        inverse_angles: tuple[tuple[int, int], ...] | None = None,
        aliases: tuple[str, ...] = (),
        stdgates: bool = True,
        rotations: int = 0,
    ) -> None:
        """Add a unitary gate; self-inverse, or with its angle negated, unless said otherwise."""
        if inverse_angles is None:
            inverse_angles = _NEGATED if angles == 1 else ()
        add(
            name,
            len(axes),
            angles,
            matrix_function=matrix,
            axes=axes,
            inverse=name if inverse is None else inverse,
            inverse_angles=inverse_angles,
            definition_text=definition,
            aliases=aliases,
            in_stdgates=stdgates,
            rotations=rotations,
            clifford=angles == 0 and rotations == 0,
        )

    std("id", "Z", m.fixed([1, 0], [0, 1]), "u(0,0,0) a")
    std("x", "X", _X, "u(pi,0,pi) a")
    std("y", "Y", _Y, "u(pi,pi/2,pi/2) a")
    std("z", "Z", _Z, "p(pi) a")
    std("h", "-", _H, "u(pi/2,0,pi) a")
    std("s", "Z", _S, "p(pi/2) a", inverse="sdg")
    std("sdg", "Z", _SDG, "p(-pi/2) a", inverse="s")
    std("t", "Z", m.fixed([1, 0], [0, _T_ANGLE]), "p(pi/4) a", inverse="tdg", rotations=1)
    std("tdg", "Z", m.fixed([1, 0], [0, _T_ANGLE.conj()]), "p(-pi/4) a", inverse="t", rotations=1)
    std("sx", "X", _SX, "gphase(pi/4); rx(pi/2) a", inverse="sxdg")
    std("sxdg", "X", _SXDG, "gphase(-pi/4); rx(-pi/2) a", inverse="sx", stdgates=False)
    std("p", "Z", m.phase, "u(0,0,t) a", angles=1, aliases=("phase", "u1"), rotations=1)
    std("rx", "X", _RX, "u(t,-pi/2,pi/2) a", angles=1, rotations=1)
    std("ry", "Y", _RY, "u(t,0,0) a", angles=1, rotations=1)
    std("rz", "Z", _RZ, "gphase(-t/2); p(t) a", angles=1, rotations=1)
    std(
        "u",
        "-",
        m.u,
        "",
        angles=3,
        inverse_angles=((0, -1), (2, -1), (1, -1)),
        aliases=("U",),
        stdgates=False,
        rotations=3,
    )
    std(
        "r",
        "-",
        m.r,
        "u(t,p-pi/2,pi/2-p) a",
        angles=2,
        inverse_angles=((0, -1), (1, 1)),
        aliases=("prx", "U1q"),
        stdgates=False,
        rotations=1,
    )
    std("cx", "ZX", m.controlled(_X), "", aliases=("CX", "cnot"))
    std("cy", "ZY", m.controlled(_Y), "sdg b; cx a,b; s b")
    std("cz", "ZZ", m.controlled(_Z), "h b; cx a,b; h b")
    std("ch", "Z-", m.controlled(_H), "s b; h b; t b; cx a,b; tdg b; h b; sdg b", rotations=2)
    std(
        "cs",
        "ZZ",
        m.controlled(_S),
        "cp(pi/2) a,b",
        inverse="csdg",
        stdgates=False,
        rotations=3,
    )
    std(
        "csdg",
        "ZZ",
        m.controlled(_SDG),
        "cp(-pi/2) a,b",
        inverse="cs",
        stdgates=False,
        rotations=3,
    )
    std(
        "csx",
        "ZX",
        m.controlled(_SX),
        "h b; cs a,b; h b",
        inverse="csxdg",
        stdgates=False,
        rotations=3,
    )
    std(
        "csxdg",
        "ZX",
        m.controlled(_SXDG),
        "h b; csdg a,b; h b",
        inverse="csx",
        stdgates=False,
        rotations=3,
    )
    std(
        "cp",
        "ZZ",
        m.controlled(m.phase),
        "p(t/2) a; cx a,b; p(-t/2) b; cx a,b; p(t/2) b",
        angles=1,
        aliases=("cphase", "cu1"),
        rotations=3,
    )
    std("crx", "ZX", m.controlled(_RX), "h b; crz(t) a,b; h b", angles=1, rotations=2)
    std(
        "cry",
        "ZY",
        m.controlled(_RY),
        "ry(t/2) b; cx a,b; ry(-t/2) b; cx a,b",
        angles=1,
        rotations=2,
    )
    std(
        "crz",
        "ZZ",
        m.controlled(_RZ),
        "rz(t/2) b; cx a,b; rz(-t/2) b; cx a,b",
        angles=1,
        rotations=2,
    )
    std(
        "cu",
        "Z-",
        m.controlled(m.cu_target),
        "p(g) a; p(l/2+p/2) a; p(l/2-p/2) b; cx a,b; u(-t/2,0,-p/2-l/2) b; cx a,b; u(t/2,p,0) b",
        angles=4,
        inverse_angles=((0, -1), (2, -1), (1, -1), (3, -1)),
        rotations=7,
    )
    std("swap", "--", _SWAP, "cx a,b; cx b,a; cx a,b")
    std(
        "iswap",
        "--",
        _ISWAP,
        "s a; s b; h a; cx a,b; cx b,a; h b",
        inverse="",
        stdgates=False,
    )
    std("dcx", "--", _DCX, "cx a,b; cx b,a", inverse="", stdgates=False)
    std("ecr", "-X", _ECR, "rzx(pi/4) a,b; x a; rzx(-pi/4) a,b", stdgates=False)
    std(
        "rxx",
        "XX",
        m.pauli_rotation("XX"),
        "h a; h b; cx a,b; rz(t) b; cx a,b; h a; h b",
        angles=1,
        stdgates=False,
        rotations=1,
    )
    std(
        "ryy",
        "YY",
        m.pauli_rotation("YY"),
        "rx(pi/2) a; rx(pi/2) b; cx a,b; rz(t) b; cx a,b; rx(-pi/2) a; rx(-pi/2) b",
        angles=1,
        stdgates=False,
        rotations=1,
    )
    std(
        "rzz",
        "ZZ",
        m.pauli_rotation("ZZ"),
        "cx a,b; rz(t) b; cx a,b",
        angles=1,
        aliases=("zz", "ZZPhase"),
        stdgates=False,
        rotations=1,
    )
    std(
        "rzx",
        "ZX",
        m.pauli_rotation("ZX"),
        "h b; cx a,b; rz(t) b; cx a,b; h b",
        angles=1,
        stdgates=False,
        rotations=1,
    )
    std("ccx", "ZZX", m.controlled(_X, 2), _CCX_DEFINITION, aliases=("ccnot",), rotations=7)
    std("ccz", "ZZZ", m.controlled(_Z, 2), "h c; ccx a,b,c; h c", stdgates=False, rotations=7)
    std("cswap", "Z--", m.controlled(_SWAP), "cx c,b; ccx a,b,c; cx c,b", rotations=7)
    add("mcx", WIDE, inverse="mcx", rotations=7)
    add(
        "gphase",
        0,
        1,
        kind="phase",
        matrix_function=m.gphase,
        inverse="gphase",
        inverse_angles=_NEGATED,
    )
    add("measure", 1, kind="measure")
    add("reset", 1, kind="reset")
    add("barrier", WIDE, kind="barrier", inverse="barrier")
    # Gates that machines have. New rows come last: kernels in the cache know codes as constants.
    std("gpi", "-", m.gpi, "rz(-t) a; x a; rz(t) a", angles=1, inverse_angles=((0, 1),),
        stdgates=False, rotations=1)  # fmt: skip
    std("gpi2", "-", m.gpi2, "u(pi/2,t-pi/2,pi/2-t) a", angles=1, inverse="", inverse_angles=(),
        stdgates=False, rotations=1)  # fmt: skip
    std(
        "ms",
        "--",
        m.ms,
        "rz(-t) a; rz(-p) b; rxx(l) a,b; rz(t) a; rz(p) b",
        angles=3,
        inverse_angles=((0, 1), (1, 1), (2, -1)),
        stdgates=False,
        rotations=1,
    )
    std(
        "xy",
        "--",
        m.xy,
        "rxx(-t/2) a,b; ryy(-t/2) a,b",
        angles=1,
        stdgates=False,
        rotations=2,
    )
    std("siswap", "--", m.fixed(*m.xy(np.pi / 2)), "xy(pi/2) a,b", inverse="siswapdg",
        aliases=("sqrt_iswap",), stdgates=False, rotations=2)  # fmt: skip
    std("siswapdg", "--", m.fixed(*m.xy(-np.pi / 2)), "xy(-pi/2) a,b", inverse="siswap",
        stdgates=False, rotations=2)  # fmt: skip
    std("zzmax", "ZZ", m.fixed(*m.pauli_rotation("ZZ")(np.pi / 2)), "rzz(pi/2) a,b", inverse="",
        aliases=("ZZMax",), stdgates=False)  # fmt: skip
    return tuple(rows)


GATES: tuple[Gate, ...] = _table()
"""Every gate, indexed by its code."""

BY_NAME: Mapping[str, Gate] = MappingProxyType(
    {spelling: row for row in GATES for spelling in (row.name, *row.aliases)}
)
"""Every gate by its name and by each alias."""


def gate(name: str) -> Gate:
    """Return the gate of that name or alias.

    Raises:
        KeyError: If the table has no such gate.
    """
    return BY_NAME[name]


class G:
    """Codes as plain integers, constants in compiled kernels."""

    ID, X, Y, Z, H, S, SDG, T, TDG = (BY_NAME[n].code for n in "id x y z h s sdg t tdg".split())
    SX, SXDG, P, RX, RY, RZ, U, R = (BY_NAME[n].code for n in "sx sxdg p rx ry rz u r".split())
    CX, CY, CZ, CH, CS, CSDG = (BY_NAME[n].code for n in "cx cy cz ch cs csdg".split())
    CSX, CSXDG, CP, CRX, CRY, CRZ, CU = (
        BY_NAME[n].code for n in "csx csxdg cp crx cry crz cu".split()
    )
    SWAP, ISWAP, DCX, ECR = (BY_NAME[n].code for n in "swap iswap dcx ecr".split())
    RXX, RYY, RZZ, RZX = (BY_NAME[n].code for n in "rxx ryy rzz rzx".split())
    CCX, CCZ, CSWAP, MCX = (BY_NAME[n].code for n in "ccx ccz cswap mcx".split())
    GPHASE, MEASURE, RESET, BARRIER = (
        BY_NAME[n].code for n in "gphase measure reset barrier".split()
    )
    GPI, GPI2, MS, XY = (BY_NAME[n].code for n in "gpi gpi2 ms xy".split())
    SISWAP, SISWAPDG, ZZMAX = (BY_NAME[n].code for n in "siswap siswapdg zzmax".split())


NUM_QUBITS: NDArray[np.int8] = np.array([row.num_qubits for row in GATES], dtype=np.int8)
"""Operands of each gate by code; -1 for any number."""

NUM_ANGLES: NDArray[np.int8] = np.array([row.num_angles for row in GATES], dtype=np.int8)
"""Angles of each gate by code."""

IS_UNITARY: NDArray[np.bool_] = np.array([row.is_unitary for row in GATES])
"""Whether each gate is unitary, by code."""

ROTATIONS: NDArray[np.int64] = np.array([row.rotations for row in GATES], dtype=np.int64)
"""Non-Clifford rotations of each gate at a generic angle, by code."""

AXIS: NDArray[np.int8] = np.array(
    [["-XYZ".index(a) for a in row.axes.ljust(3, "-")[:3]] for row in GATES], dtype=np.int8
)
"""Axis that each gate commutes with on operand k: 0 none, 1 X, 2 Y, 3 Z; int8[codes, 3]."""

INVERSE_CODE: NDArray[np.int16] = np.array(
    [BY_NAME[row.inverse].code if row.inverse else -1 for row in GATES], dtype=np.int16
)
"""Code of the inverse gate; -1 where it is no gate of the table."""


@functools.cache
def stdgates_names() -> frozenset[str]:
    """Return the names that ``stdgates.inc`` defines, aliases of the standard included."""
    names = {row.name for row in GATES if row.in_stdgates}
    return frozenset(names | {"CX", "phase", "cphase", "u1", "u2", "u3"})
