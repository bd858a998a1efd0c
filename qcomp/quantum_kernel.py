"""Quantum kernels: how alike two samples are, as the overlap of the states that encode them.

``k(x, y) = |<0| U(y)^dagger U(x) |0>|^2`` for a feature map U (Havlicek et al. 2019, Nature 567,
209, arXiv:1804.11326; Schuld and Killoran 2019, arXiv:1803.07128). n samples need n states: the
Gram matrix is one product of them, O(n 2^q + n^2 2^q) for q qubits. On a machine each pair is one
circuit, U(x) followed by the inverse of U(y), in which the layers that meet in the middle merge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.ir.expressions import Tree, columns_of
from qcomp.ir.program import Readout
from qcomp.registry import load
from qcomp.simulate import statevector

if TYPE_CHECKING:
    import torch

__all__ = ["QuantumKernel"]

_PAIRS = 1 << 12
"""Pairs of samples that go to a device at once."""


class QuantumKernel:
    """A fidelity kernel, for ``sklearn.svm.SVC(kernel=kernel)`` and anything that takes a matrix.

    Example:
        >>> kernel = QuantumKernel.zz(4)
        >>> svc = sklearn.svm.SVC(kernel=kernel).fit(x, labels)
        >>> text = kernel.circuit.to_qasm3()

    Args:
        feature_map: A Qiskit ``QuantumCircuit`` whose parameters are the features in Qiskit's
            order, in any expressions of them; or a :class:`~qcomp.ir.circuit.Circuit`, whose
            parameters are the features in its own order.

    Attributes:
        num_features: Size of a sample.
        feature_map: The circuit; its parameters are features and, behind them, formulas of them.
        circuit: The optimised circuit of a pair; its parameters are those of x and then those of y.
            All qubits being 0 at its end has the probability k(x, y).

    Raises:
        UsageError: If the feature map is no circuit, has no parameters or is not unitary.
        SourceError: If a Qiskit circuit cannot be read.
    """

    def __init__(self, feature_map: object) -> None:
        trees: list[Tree] = []
        if isinstance(feature_map, Circuit):
            circuit = feature_map
            self.num_features = len(circuit.params)
        else:
            if not any(k.__name__ == "QuantumCircuit" for k in type(feature_map).__mro__):
                raise UsageError(
                    f"a {type(feature_map).__name__} is no feature map",
                    hint="give a Circuit or a Qiskit QuantumCircuit, or QuantumKernel.zz(features)",
                )
            circuit, trees, self.num_features = load("services", "feature-map")(feature_map)
        if not self.num_features:
            raise UsageError("a feature map needs parameters, one for each feature")
        self._trees = trees
        self.feature_map = circuit
        backwards = circuit.inverse()
        self.circuit = _merged(_renamed(circuit, "x"), _renamed(backwards, "y"))

    @staticmethod
    def zz(features: int, reps: int = 2, entanglement: Any = "full") -> QuantumKernel:  # noqa: ANN401
        """Return the kernel of the ZZ feature map, Qiskit's ``zz_feature_map``.

        Args:
            features: Size of a sample, and qubits.
            reps: Layers.
            entanglement: Which pairs interact, as Qiskit takes it.
        """
        from qiskit.circuit.library import zz_feature_map

        return QuantumKernel(zz_feature_map(features, reps=reps, entanglement=entanglement))

    @staticmethod
    def pauli(
        features: int,
        paulis: Sequence[str] = ("Z", "ZZ"),
        reps: int = 2,
        entanglement: Any = "full",  # noqa: ANN401
        alpha: float = 2.0,
    ) -> QuantumKernel:
        """Return the kernel of a Pauli feature map, Qiskit's ``pauli_feature_map``.

        Args:
            features: Size of a sample, and qubits.
            paulis: The interactions of a layer.
            reps: Layers.
            entanglement: Which qubits interact, as Qiskit takes it.
            alpha: Factor of all angles.
        """
        from qiskit.circuit.library import pauli_feature_map

        return QuantumKernel(
            pauli_feature_map(
                features, reps=reps, entanglement=entanglement, alpha=alpha, paulis=list(paulis)
            )
        )

    # --- values ----------------------------------------------------------------------------

    def states(self, x: ArrayLike) -> NDArray[np.complex128]:
        """Return the state of each sample, complex128[n, 2^q].

        Raises:
            UsageError: If a sample has another size.
        """
        return statevector(self.feature_map, self._angles(x))

    def __call__(self, x: ArrayLike, y: ArrayLike | None = None) -> NDArray[np.float64]:
        """Return the exact Gram matrix, as :meth:`evaluate` does."""
        return self.evaluate(x, y)

    def evaluate(
        self,
        x: ArrayLike,
        y: ArrayLike | None = None,
        *,
        shots: int = 0,
        seed: int = 0,
        device: str | None = None,
    ) -> NDArray[np.float64]:
        """Return the Gram matrix, float64[n, m].

        Args:
            x: float64[n, features].
            y: float64[m, features]; x itself by default, whose matrix is symmetric with ones on its
                diagonal.
            shots: Samples of each pair's circuit; 0 for exact values.
            seed: Seed of the samples.
            device: Where the circuits of the pairs run; by default exact values are products of
                states, and samples are drawn by the built-in simulator.

        Raises:
            UsageError: If samples have another size, or the device is unknown.
        """
        if device is None and not shots:
            first = self.states(x)
            second = first if y is None else self.states(y)
            gram: NDArray[np.float64] = np.abs(first @ second.conj().T) ** 2
            if y is None:
                np.fill_diagonal(gram, 1.0)
            return gram
        from qcomp.runtime.devices import DEVICES, run_on

        device = device or "sim"
        if device not in DEVICES:
            raise UsageError(f"there is no device '{device}'", hint="one of " + ", ".join(DEVICES))
        rows = self._angles(x)
        others = rows if y is None else self._angles(y)
        pairs = np.array(
            [(i, j) for i in range(len(rows)) for j in range(len(others)) if y is not None or j > i]
        ).reshape(-1, 2)
        values = np.zeros(len(pairs))
        for start in range(0, len(pairs), _PAIRS):
            part = pairs[start : start + _PAIRS]
            given = np.concatenate([rows[part[:, 0]], others[part[:, 1]]], axis=1)
            found = run_on(device, self.circuit, Readout("probs"), given, shots, seed + start)
            values[start : start + _PAIRS] = np.asarray(found, dtype=np.float64)[:, 0]
        gram = np.eye(len(rows)) if y is None else np.zeros((len(rows), len(others)))
        gram[pairs[:, 0], pairs[:, 1]] = values
        if y is None:
            gram[pairs[:, 1], pairs[:, 0]] = values
        return gram

    # --- circuits --------------------------------------------------------------------------

    def pair_rows(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
        """Return the parameters of :attr:`circuit` for each pair, float64[n, m, P]."""
        rows, others = self._angles(x), self._angles(y)
        shape = (len(rows), len(others), rows.shape[1])
        return np.concatenate(
            [np.broadcast_to(rows[:, None], shape), np.broadcast_to(others[None], shape)], axis=2
        )

    def emit_batch(self, x: ArrayLike, y: ArrayLike, profile: str = "full") -> list[str]:
        """Return OpenQASM of every pair's circuit with its measurements, row by row of the matrix.

        ``circuit.to_qasm3()`` is the same circuit once, its angles ``input``.

        Args:
            x: float64[n, features].
            y: float64[m, features].
            profile: OpenQASM profile.
        """
        rows = self.pair_rows(x, y)
        measured = self.circuit.copy().measure_all()
        return measured.emit_batch(rows.reshape(-1, rows.shape[2]), profile)

    # --- classifiers -----------------------------------------------------------------------

    def classifier(self, svc: Any, x: ArrayLike) -> torch.nn.Module:  # noqa: ANN401
        """Return a trained support vector classifier with this kernel as one hybrid module.

        Its output is the ``decision_function``: for two classes the margin [B], else a score for
        each class [B, C] (one against the rest). ``qcomp.compile(module, example_inputs=...)``
        gives its graph and the circuit of a pair.

        Args:
            svc: A fitted ``sklearn.svm.SVC``, its kernel a ``QuantumKernel`` or ``precomputed``.
            x: The samples that it was fitted on, float64[n, features].

        Raises:
            UsageError: If the classifier is not fitted, or not on these samples.
        """
        if not hasattr(svc, "support_") or not hasattr(svc, "dual_coef_"):
            raise UsageError("the classifier is not fitted", hint="call svc.fit first")
        samples = np.asarray(x, dtype=np.float64)
        if getattr(svc, "shape_fit_", (len(samples),))[0] != len(samples):
            raise UsageError(
                f"the classifier was fitted on {svc.shape_fit_[0]} samples, {len(samples)} were "
                "given"
            )
        support = samples[svc.support_]
        module: torch.nn.Module = load("services", "kernel-classifier")(
            self.circuit,
            self._trees,
            self._angles(support),
            svc.dual_coef_,
            svc.intercept_,
            svc.n_support_,
            self.num_features,
        )
        return module

    def _angles(self, x: ArrayLike) -> NDArray[np.float64]:
        """Return the feature map's parameters for samples, float64[n, P]."""
        rows = np.atleast_2d(np.asarray(x, dtype=np.float64))
        if rows.ndim != 2 or rows.shape[1] != self.num_features:
            raise UsageError(
                f"the feature map takes samples of {self.num_features} features, not an array of "
                f"shape {np.shape(x)}"
            )
        if not self._trees:
            return rows
        return np.concatenate([rows, columns_of(self._trees, rows)], axis=1)


def _renamed(circuit: Circuit, letter: str) -> Circuit:
    """Return the circuit with its parameters named by a letter and a number."""
    new = circuit.copy()
    names = {name: f"{letter}{i}" for i, name in enumerate(circuit.params)}
    new.params = tuple(names.values())
    phase = circuit.global_phase
    new.global_phase = type(phase)(
        phase.frac, phase.rem, tuple(sorted((names[name], c) for name, c in phase.terms))
    )
    return new


def _merged(forward: Circuit, backward: Circuit) -> Circuit:
    """Return two circuits one after the other, reduced; a phase of the whole counts for nothing."""
    from qcomp.driver import optimize

    whole = forward.compose(backward)
    whole.name = "fidelity"
    reduced = optimize(whole)
    assert isinstance(reduced, Circuit)
    reduced.global_phase = type(reduced.global_phase)()
    return reduced.with_params((*forward.params, *backward.params))
