"""K03, mapping part: MQT Bench circuits of at most 12 qubits on a heavy-hexagon machine.

Two-qubit gates and depth, as geometric means, at most those of Qiskit O3 (best of three seeds) and
of TKET's FullPeepholeOptimise with its mapping; every output proven equal through its layout.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
mapping = pytest.importorskip("mapping")

from circuit_counts import geometric_mean  # noqa: E402  the benchmarks' folder comes first


@pytest.mark.parametrize("peer", ["qiskit", "tket"])
def test_mapped_circuits_have_fewer_gates_and_less_depth_than_the_peers_and_are_proven_equal(
    shared: Path, peer: str
) -> None:
    pytest.importorskip("qiskit_ibm_runtime")
    if peer == "tket":
        pytest.importorskip("pytket")
    prefix, most = mapping.PROVEN
    entries = [
        entry
        for entry in mapping.public_entries(shared / "bench")
        if entry.name.startswith(prefix) and entry.qubits <= most
    ]
    assert len(entries) == 10
    # All ten are in the benchmark: matrices of 12 qubits, and TKET, take seconds for each.
    entries = [entry for entry in entries if entry.qubits <= (8 if peer == "tket" else 10)]
    rows, _ = mapping.on_device(entries, "fake_torino", ["qcomp", peer], "default")
    for count in ("two_qubit", "depth"):
        means = [
            geometric_mean([(row["tools"][tool][count], 1) for row in rows])
            for tool in ("qcomp", peer)
        ]
        assert means[0] <= means[1]
    for row in rows:
        figures = row["tools"]["qcomp"]
        assert figures["off_the_couplings"] == 0
        assert figures["verdict"]["equal"] is True, row["name"]
