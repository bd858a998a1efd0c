"""IQP, ZZ and covariant feature maps."""

from __future__ import annotations

from math import pi
from typing import Any

from qcomp.constructions.encodings.base import Encoding, Ops, SlotMap, check_sizes, parameters
from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit

__all__ = ["covariant", "iqp", "pairs_of", "zz"]


def pairs_of(entanglement: str, num_qubits: int) -> list[tuple[int, int]]:
    """Return the pairs of qubits of an entanglement: full, linear or circular.

    Raises:
        UsageError: If there is no such entanglement.
    """
    chain = [(q, q + 1) for q in range(num_qubits - 1)]
    if entanglement == "linear":
        return chain
    if entanglement == "circular":
        return ([(num_qubits - 1, 0)] if num_qubits > 2 else []) + chain
    if entanglement == "full":
        return [(a, b) for a in range(num_qubits) for b in range(a + 1, num_qubits)]
    raise UsageError(
        f"there is no entanglement '{entanglement}'", hint="one of full, linear, circular"
    )


def iqp(
    num_qubits: int, features: int = 0, *, layers: int = 1, entanglement: str = "full"
) -> Encoding:
    """Return ``[prod_ij exp(-i x_i x_j Z_i Z_j / 2) prod_i RZ(x_i) H]^layers |0>``.

    PennyLane's ``IQPEmbedding``; Havlicek et al., 2019, arXiv:1804.11326. Products are computed by
    the graph. Cost: an RZZ, two CX, for each pair and layer.

    Args:
        num_qubits: Qubits n.
        features: n, one for each qubit.
        layers: Repeats.
        entanglement: Which pairs: full, linear or circular.

    Raises:
        UsageError: If a size or a name does not fit.
    """
    features = features or num_qubits
    check_sizes("iqp", num_qubits, features, num_qubits)
    _check_layers("iqp", layers)
    pairs = pairs_of(entanglement, features)

    def compute(ops: Ops, x: Any, _: Any) -> Any:  # noqa: ANN401
        if not pairs:
            return x
        first, second = ([pair[i] for pair in pairs] for i in (0, 1))
        return ops.joined([x, ops.columns(x, first) * ops.columns(x, second)])

    slots = parameters("phi", features + len(pairs))
    circuit = Circuit(num_qubits, params=[f"phi{i}" for i in range(len(slots))], name="iqp")
    for _ in range(layers):
        for q in range(features):
            circuit.h(q)
            circuit.rz(slots[q], q)
        for k, (a, b) in enumerate(pairs):
            circuit.rzz(slots[features + k], a, b)
    return Encoding(
        "iqp",
        circuit,
        tuple(f"x{i}" for i in range(features)),
        slot_map=SlotMap(len(slots), 0, compute),
        equation="[prod_ij RZZ(x_i x_j) prod_i RZ(x_i) H]^layers |0>",
    )


def zz(
    num_qubits: int, features: int = 0, *, layers: int = 2, entanglement: str = "full"
) -> Encoding:
    """Return ``[prod_ij ZZ phases of 2 (pi - x_i)(pi - x_j) prod_i P(2 x_i) H]^layers |0>``.

    Qiskit's ``zz_feature_map``; Havlicek et al., 2019, arXiv:1804.11326. Products are computed by
    the graph. Cost: two CX for each pair and layer.

    Args:
        num_qubits: Qubits n.
        features: n, one for each qubit.
        layers: Repeats.
        entanglement: Which pairs: full, linear or circular.

    Raises:
        UsageError: If a size or a name does not fit.
    """
    features = features or num_qubits
    check_sizes("zz", num_qubits, features, num_qubits)
    _check_layers("zz", layers)
    pairs = pairs_of(entanglement, features)

    def compute(ops: Ops, x: Any, _: Any) -> Any:  # noqa: ANN401
        if not pairs:
            return x
        first, second = (ops.columns(pi - x, [pair[i] for pair in pairs]) for i in (0, 1))
        return ops.joined([x, first * second])

    slots = parameters("phi", features + len(pairs))
    circuit = Circuit(num_qubits, params=[f"phi{i}" for i in range(len(slots))], name="zz")
    for _ in range(layers):
        for q in range(features):
            circuit.h(q)
            circuit.p(2 * slots[q], q)
        for k, (a, b) in enumerate(pairs):
            circuit.cx(a, b)
            circuit.p(2 * slots[features + k], b)
            circuit.cx(a, b)
    return Encoding(
        "zz",
        circuit,
        tuple(f"x{i}" for i in range(features)),
        slot_map=SlotMap(len(slots), 0, compute),
        equation="[prod_ij P_ij(2 (pi - x_i)(pi - x_j)) prod_i P(2 x_i) H]^layers |0>",
    )


def covariant(
    num_qubits: int,
    features: int = 0,
    *,
    entanglement: str = "linear",
    pairs: tuple[tuple[int, int], ...] = (),
    shared: bool = True,
) -> Encoding:
    """Return ``(x)_q D(x_2q, x_2q+1) V(lambda) |0>``: elements of a group on a fiducial state.

    ``V = prod CZ prod_q RY(lambda_q)`` is a graph state whose angles are trained, and
    ``D(a, b) = RX(-2 a) RZ(-2 b)`` is an element of SU(2). For cosets of a subgroup that leaves the
    fiducial state alone, the kernel tells cosets apart (Glick et al., 2024, arXiv:2105.03406).
    Cost: a CZ for each edge of the graph; on a machine whose couplings are that graph, no SWAP.

    Args:
        num_qubits: Qubits n.
        features: 2n, two for each qubit.
        entanglement: The graph: full, linear or circular.
        pairs: Its edges, in place of that.
        shared: Whether all qubits have the same angle lambda, one weight in place of n.

    Raises:
        UsageError: If a size or a name does not fit.
    """
    features = features or 2 * num_qubits
    check_sizes("covariant", num_qubits, features, 2 * num_qubits)
    edges = list(pairs) or pairs_of(entanglement, num_qubits)
    x = parameters("x", features)
    count = 1 if shared else num_qubits
    weights = parameters("v", count)
    names = tuple(f"x{i}" for i in range(features))
    circuit = Circuit(
        num_qubits, params=(*names, *(f"v{i}" for i in range(count))), name="covariant"
    )
    for q in range(num_qubits):
        circuit.ry(weights[q % count], q)
    for a, b in edges:
        circuit.cz(a, b)
    for q in range(num_qubits):
        if 2 * q + 1 < features:
            circuit.rz(-2 * x[2 * q + 1], q)
        if 2 * q < features:
            circuit.rx(-2 * x[2 * q], q)
    return Encoding(
        "covariant",
        circuit,
        names,
        circuit.params[features:],
        equation="(x)_q RX(-2 x_2q) RZ(-2 x_2q+1) prod CZ prod_q RY(v_q) |0>",
    )


def _check_layers(method: str, layers: int) -> None:
    if layers < 1:
        raise UsageError(f"the encoding '{method}' has at least one layer, not {layers}")
