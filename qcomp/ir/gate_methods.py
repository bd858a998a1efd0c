"""The gates as methods: ``c.h(0).cx(0, 1).rz(theta, 1)``. Angles in radians or affine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from qcomp.ir.angle import AngleLike

if TYPE_CHECKING:
    from typing import Self

__all__ = ["GateMethods"]


class GateMethods(ABC):
    """One method a gate, all of them one call of :meth:`append`."""

    @abstractmethod
    def append(
        self, name: str, qubits: Sequence[int], angles: Sequence[AngleLike] = (), clbit: int = -1
    ) -> Self:
        """Append an operation of the gate table."""

    def id(self, qubit: int) -> Self:
        """Apply the identity."""
        return self.append("id", (qubit,))

    def x(self, qubit: int) -> Self:
        """Apply Pauli X."""
        return self.append("x", (qubit,))

    def y(self, qubit: int) -> Self:
        """Apply Pauli Y."""
        return self.append("y", (qubit,))

    def z(self, qubit: int) -> Self:
        """Apply Pauli Z."""
        return self.append("z", (qubit,))

    def h(self, qubit: int) -> Self:
        """Apply Hadamard."""
        return self.append("h", (qubit,))

    def s(self, qubit: int) -> Self:
        """Apply S, a quarter turn of phase."""
        return self.append("s", (qubit,))

    def sdg(self, qubit: int) -> Self:
        """Apply the inverse of S."""
        return self.append("sdg", (qubit,))

    def t(self, qubit: int) -> Self:
        """Apply T, an eighth turn of phase."""
        return self.append("t", (qubit,))

    def tdg(self, qubit: int) -> Self:
        """Apply the inverse of T."""
        return self.append("tdg", (qubit,))

    def sx(self, qubit: int) -> Self:
        """Apply the square root of X."""
        return self.append("sx", (qubit,))

    def sxdg(self, qubit: int) -> Self:
        """Apply the inverse of the square root of X."""
        return self.append("sxdg", (qubit,))

    def p(self, lam: AngleLike, qubit: int) -> Self:
        """Apply the phase ``diag(1, exp(i lam))``."""
        return self.append("p", (qubit,), (lam,))

    def rx(self, theta: AngleLike, qubit: int) -> Self:
        """Apply ``exp(-i theta/2 X)``."""
        return self.append("rx", (qubit,), (theta,))

    def ry(self, theta: AngleLike, qubit: int) -> Self:
        """Apply ``exp(-i theta/2 Y)``."""
        return self.append("ry", (qubit,), (theta,))

    def rz(self, theta: AngleLike, qubit: int) -> Self:
        """Apply ``exp(-i theta/2 Z)``."""
        return self.append("rz", (qubit,), (theta,))

    def u(self, theta: AngleLike, phi: AngleLike, lam: AngleLike, qubit: int) -> Self:
        """Apply the general rotation in Qiskit's convention."""
        return self.append("u", (qubit,), (theta, phi, lam))

    def r(self, theta: AngleLike, phi: AngleLike, qubit: int) -> Self:
        """Apply ``exp(-i theta/2 (cos phi X + sin phi Y))``."""
        return self.append("r", (qubit,), (theta, phi))

    def cx(self, control: int, target: int) -> Self:
        """Apply X under a control."""
        return self.append("cx", (control, target))

    def cy(self, control: int, target: int) -> Self:
        """Apply Y under a control."""
        return self.append("cy", (control, target))

    def cz(self, control: int, target: int) -> Self:
        """Apply Z under a control."""
        return self.append("cz", (control, target))

    def ch(self, control: int, target: int) -> Self:
        """Apply a Hadamard under a control."""
        return self.append("ch", (control, target))

    def cs(self, control: int, target: int) -> Self:
        """Apply S under a control."""
        return self.append("cs", (control, target))

    def csx(self, control: int, target: int) -> Self:
        """Apply the square root of X under a control."""
        return self.append("csx", (control, target))

    def cp(self, lam: AngleLike, control: int, target: int) -> Self:
        """Apply a phase where both qubits are 1."""
        return self.append("cp", (control, target), (lam,))

    def crx(self, theta: AngleLike, control: int, target: int) -> Self:
        """Apply ``rx`` under a control."""
        return self.append("crx", (control, target), (theta,))

    def cry(self, theta: AngleLike, control: int, target: int) -> Self:
        """Apply ``ry`` under a control."""
        return self.append("cry", (control, target), (theta,))

    def crz(self, theta: AngleLike, control: int, target: int) -> Self:
        """Apply ``rz`` under a control."""
        return self.append("crz", (control, target), (theta,))

    def swap(self, first: int, second: int) -> Self:
        """Apply the exchange of two qubits."""
        return self.append("swap", (first, second))

    def iswap(self, first: int, second: int) -> Self:
        """Apply the exchange of two qubits with a factor i."""
        return self.append("iswap", (first, second))

    def ecr(self, first: int, second: int) -> Self:
        """Apply the echoed cross-resonance gate."""
        return self.append("ecr", (first, second))

    def rxx(self, theta: AngleLike, first: int, second: int) -> Self:
        """Apply ``exp(-i theta/2 P)``, P being X on the first qubit and X on the second."""
        return self.append("rxx", (first, second), (theta,))

    def ryy(self, theta: AngleLike, first: int, second: int) -> Self:
        """Apply ``exp(-i theta/2 P)``, P being Y on the first qubit and Y on the second."""
        return self.append("ryy", (first, second), (theta,))

    def rzz(self, theta: AngleLike, first: int, second: int) -> Self:
        """Apply ``exp(-i theta/2 P)``, P being Z on the first qubit and Z on the second."""
        return self.append("rzz", (first, second), (theta,))

    def rzx(self, theta: AngleLike, first: int, second: int) -> Self:
        """Apply ``exp(-i theta/2 P)``, P being Z on the first qubit and X on the second."""
        return self.append("rzx", (first, second), (theta,))

    def gpi(self, phi: AngleLike, qubit: int) -> Self:
        """Apply IonQ's half turn ``cos phi X + sin phi Y``."""
        return self.append("gpi", (qubit,), (phi,))

    def gpi2(self, phi: AngleLike, qubit: int) -> Self:
        """Apply IonQ's quarter turn ``r(pi/2, phi)``."""
        return self.append("gpi2", (qubit,), (phi,))

    def ms(
        self, phi0: AngleLike, phi1: AngleLike, theta: AngleLike, first: int, second: int
    ) -> Self:
        """Apply IonQ's ``exp(-i theta/2 A B)``, A = gpi(phi0) and B = gpi(phi1)."""
        return self.append("ms", (first, second), (phi0, phi1, theta))

    def xy(self, theta: AngleLike, first: int, second: int) -> Self:
        """Apply ``exp(i theta/4 (XX + YY))``: iSWAP at pi, its square root at pi/2."""
        return self.append("xy", (first, second), (theta,))

    def siswap(self, first: int, second: int) -> Self:
        """Apply the square root of iSWAP."""
        return self.append("siswap", (first, second))

    def zzmax(self, first: int, second: int) -> Self:
        """Apply Quantinuum's ZZ, ``rzz(pi/2)``."""
        return self.append("zzmax", (first, second))

    def ccx(self, first: int, second: int, target: int) -> Self:
        """Apply X under two controls."""
        return self.append("ccx", (first, second, target))

    def ccz(self, first: int, second: int, third: int) -> Self:
        """Apply Z under two controls."""
        return self.append("ccz", (first, second, third))

    def cswap(self, control: int, first: int, second: int) -> Self:
        """Apply the exchange of two qubits under a control."""
        return self.append("cswap", (control, first, second))

    def mcx(self, controls: Sequence[int], target: int) -> Self:
        """Apply X under any number of controls."""
        return self.append("mcx", (*controls, target))
