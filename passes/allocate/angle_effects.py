"""What errors of rotations do to observables: derivatives at every chain, and exact changes.

The error of a chain is a turn by some small angle about ANY axis n of its qubit:

    V = U exp(-i d n.sigma),   ||V - U|| = 2 sin(d/2)

    E(d) - E(0) = sin(2d)/2 n.g + sin(d)^2 (<n.sigma O n.sigma> - <O>),   g_a = 2 Im <l| sigma_a |p>

with |p> the state behind the chain and |l> the observable's image there, both on one forward and
one backward sweep. The plain derivative by the chain's own angle is one direction of g, and 0 at a
trained optimum; errors of synthesis point anywhere, and the second term is never 0. So the change
is at most ``|g| d + spread d^2``, and never more than the spread of O's eigenvalues, nor than
``spread d``.

Source: adjoint differentiation (Jones, Gacon 2020, arXiv:2009.02823, algorithm 1); Fisher
information of pure states (Braunstein, Caves 1994): ``4 (1 - <n.sigma>^2)`` for d.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcomp.angle_accuracies import AngleData, AngleSensitivities
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import IS_UNITARY
from qcomp.ir.observable import Observable
from qcomp.ir.run import Run
from qcomp.passes.synthesize.clifford_t.chains import Chain
from qcomp.simulate.control_flow import final_measurements
from qcomp.simulate.engine import check_memory, evolve
from qcomp.simulate.from_states import rows_of
from qcomp.simulate.paulis import pauli_table

__all__ = ["Effects"]

States = NDArray[np.complex128]
Quaternion = NDArray[np.float64]

_ROWS = 128
"""Rows that derivatives are taken on; changes are computed on all."""


def _matrix(point: Quaternion) -> States:
    """Return the matrix of one quaternion, or of one for each row, complex128[2, 2, 1 or B]."""
    a, b, c, d = np.atleast_2d(point).T
    return np.array([[a - 1j * d, -1j * b - c], [-1j * b + c, a + 1j * d]])


def _turned(states: States, wire: int, matrices: States) -> States:
    """Apply a one-qubit matrix to all rows, or one to each."""
    matrix = matrices[..., None, None]
    parts = states.reshape(len(states), -1, 2, 1 << wire)
    zero, one = parts[:, :, 0], parts[:, :, 1]
    out = np.empty_like(parts)
    out[:, :, 0] = matrix[0, 0] * zero + matrix[0, 1] * one
    out[:, :, 1] = matrix[1, 0] * zero + matrix[1, 1] * one
    return out.reshape(states.shape)


@dataclass(frozen=True)
class _Part:
    """A chain or a rotation by a parameter, by its number, or gates between them."""

    chain: int
    gates: Circuit | None


class Effects:
    """A circuit, its chains, and the observables on its data.

    Args:
        circuit: Unitary up to measurements at its end, gates lowered to rotations about Z.
        chains: Its chains.
        data: Rows and observables.
        turns: Places in its run of rotations by parameters; they are numbered behind the chains.

    Attributes:
        angles: What the rows turn these rotations by, float64[B, len(turns)].

    Raises:
        UsageError: If the data does not fit the circuit.
    """

    def __init__(
        self,
        circuit: Circuit,
        chains: Sequence[Chain],
        data: AngleData,
        turns: Sequence[int] = (),
    ) -> None:
        self.chains = tuple(chains)
        texts = data.read_of(circuit)
        table = pauli_table(texts, circuit.num_qubits)
        self._table = table.dephased([qubit for qubit, _ in final_measurements(circuit)[1]])
        self._count = len(texts)
        self._states, self._params = rows_of(circuit, data.states, data.params)
        check_memory(circuit.num_qubits, len(self._states), copies=4)
        places = [chain.index for chain in self.chains] + [(i,) for i in turns]
        self._parts = _parts(circuit, circuit.run, places)
        run = circuit.run
        self._wires = [int(run.qubit[place[0], 0]) for place in places]
        self.angles = circuit.angles_for(self._params, run)[:, run.angle[list(turns)]]
        half = self.angles.T / 2
        zero = np.zeros(len(self._params))
        by_row = [np.stack([np.cos(h), zero, zero, np.sin(h)], axis=1) for h in half]
        self._exact = [_matrix(p) for p in (*(chain.target for chain in self.chains), *by_row)]
        self.spread = max(_spread(text) for text in texts)

    def values(self, points: Sequence[Quaternion] | None = None) -> NDArray[np.float64]:
        """Return the observables, float64[B, K], with other unitaries in the chains' places.

        Args:
            points: For each chain float64[4], for each rotation by a parameter float64[B, 4].
        """
        matrices = self._exact if points is None else [_matrix(point) for point in points]
        states = self._states.copy()
        for part in self._parts:
            states = self._forward(part, states, matrices)
        return self._table.word_values(states) @ self._table.coefficients

    def _forward(self, part: _Part, states: States, matrices: Sequence[States]) -> States:
        if part.gates is None:
            return _turned(states, self._wires[part.chain], matrices[part.chain])
        return evolve(part.gates, part.gates.run, self._params[: len(states)], states)

    def gradients(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return g, and the quantum Fisher information of errors d about X, Y and Z.

        Returns:
            float64[n, 3, B', K], B' at most 128 of the rows, and its mean over them, float64[n, 3].
        """
        chosen = np.unique(np.linspace(0, len(self._states) - 1, _ROWS).astype(np.int64))
        states = self._states[chosen]
        params, self._params = self._params, self._params[chosen]
        exact = [m if m.shape[-1] == 1 else m[..., chosen] for m in self._exact]
        kept: dict[int, States] = {}
        for part in self._parts:
            states = self._forward(part, states, exact)
            if part.gates is None:
                kept[part.chain] = states.copy()  # gates behind it work in place
        rows, count = len(states), self._count
        images = [
            self._table.apply(states, np.tile(np.eye(count)[k], (rows, 1))) for k in range(count)
        ]
        lam = np.stack(images, axis=1).reshape(rows * count, -1)
        more = np.repeat(self._params, count, axis=0)
        out = np.zeros((len(self._wires), 3, rows, count))
        fisher = np.zeros((len(self._wires), 3))
        for part in reversed(self._parts):
            if part.gates is not None:
                back = part.gates.inverse()
                lam = evolve(back, back.run, more, np.ascontiguousarray(lam))
                continue
            wire = self._wires[part.chain]
            psi = kept.pop(part.chain)
            out[part.chain] = _slopes(psi, lam.reshape(rows, count, -1), wire)
            means = _slopes(psi, 1j * psi[:, None, :], wire)[:, :, 0] / 2
            fisher[part.chain] = 4 * (1 - (means**2).mean(axis=1))
            back_turn = exact[part.chain].conj().transpose(1, 0, 2)
            if back_turn.shape[-1] > 1:
                back_turn = np.repeat(back_turn, count, axis=-1)
            lam = _turned(lam, wire, back_turn)
        self._params = params
        return out, fisher

    def sensitivities(self) -> AngleSensitivities:
        """Return what errors of the chains do at most, to first and second order."""
        gradient, fisher = self.gradients()
        size = np.sqrt((gradient**2).sum(axis=1))
        second = np.where(self._seen(), self.spread, 0.0)
        return AngleSensitivities(
            np.sqrt((size**2).mean(axis=(1, 2))), size.max(axis=(1, 2)), second, fisher
        )

    def _seen(self) -> NDArray[np.bool_]:
        """Return which chains stand in the observables' light cone, bool[n]."""
        words = [x | z for x, z in zip(self._table.x, self._table.z, strict=True)]
        cone = {q for word in words for q in range(int(word).bit_length()) if int(word) >> q & 1}
        out = np.zeros(len(self._wires), dtype=bool)
        for part in reversed(self._parts):
            if part.gates is None:
                out[part.chain] = self._wires[part.chain] in cone
                continue
            run = part.gates.run
            for i in reversed(range(len(run))):
                operands = run.operands(i)
                if not cone.isdisjoint(operands):
                    cone.update(operands)
        return out


def _slopes(psi: States, lam: States, wire: int) -> NDArray[np.float64]:
    """Return ``2 Im <l_bk| sigma_a |p_b>``, float64[3, B, K]."""
    rows, count = lam.shape[:2]
    p = psi.reshape(rows, -1, 2, 1 << wire)
    q = lam.reshape(rows, count, -1, 2, 1 << wire)
    # m[i, j] = sum over the other qubits of conj(l)_i p_j
    m = np.einsum("bkhil,bhjl->bkij", q.conj(), p, optimize=True)
    x = m[..., 0, 1] + m[..., 1, 0]
    y = 1j * (m[..., 1, 0] - m[..., 0, 1])
    z = m[..., 0, 0] - m[..., 1, 1]
    return 2 * np.stack([x.imag, y.imag, z.imag])


def _parts(circuit: Circuit, run: Run, places: Sequence[tuple[int, ...]]) -> list[_Part]:
    """Cut a run at its chains and at what rows turn."""
    begin = {place[0]: number for number, place in enumerate(places)}
    inside = {i for place in places for i in place}
    out: list[_Part] = []
    pending: list[int] = []
    unitary = IS_UNITARY[run.code]  # measurements stand at the end

    def flush() -> None:
        if pending:
            gates = Circuit(circuit.num_qubits, 0, circuit.params)
            piece = run.select(np.array(pending))
            out.append(_Part(-1, gates.copy(body=(piece,), forms=circuit.forms)))
            pending.clear()

    for i in range(len(run)):
        if i in begin:
            flush()
            out.append(_Part(begin[i], None))
        elif i not in inside and unitary[i]:
            pending.append(i)
    flush()
    return out


def _spread(observable: str | Observable) -> float:
    """Return a bound on the largest less the smallest eigenvalue."""
    if isinstance(observable, str):
        observable = Observable.parse(observable)
    return 2 * sum(abs(factor) for factor, product in observable.terms if product)
