"""map-to-device: every gate on a coupled pair, the meaning kept, layouts honoured."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

from qcomp import equivalence
from qcomp.device import Device, get_device
from qcomp.errors import TargetError, UsageError
from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import IS_UNITARY, NUM_QUBITS, G
from qcomp.ir.observable import Observable
from qcomp.ir.program import Program, Readout
from qcomp.ir.verify import verify
from qcomp.passes.map import map_to_device
from qcomp.passes.map.map_to_device import MapToDevice
from qcomp.passes.map.orient_gates import OrientGates
from qcomp.passmanager import Context, Pipeline
from qcomp.simulate import run_readout
from qcomp.target import Target, get_target

REDUCE = (
    "consolidate-two-qubit{basis=rz-sx-x,two_qubit=4},merge-rotations,cancel-inverses,"
    "fuse-one-qubit{basis=rz-sx-x}"
)


def on(device: Device, layout: tuple[int, ...] | None = None) -> Context:
    """Return the context of a compile for a device."""
    target = Target("test", "", "", "circuit", "openqasm3", machine=device, initial_layout=layout)
    return Context(target=target)


@functools.cache
def devices() -> dict[str, Device]:
    ring = np.stack([np.arange(7), (np.arange(7) + 1) % 7], axis=1)
    return {
        "line": Device.line(7),
        "grid": Device.grid(3, 3),
        "heavy-hex": Device.heavy_hex(3),
        "directed": Device.from_pairs(ring, directed=True, name="directed"),
    }


def random_circuit(rng: np.random.Generator, qubits: int, gates: int) -> Circuit:
    circuit = Circuit(qubits, params=["a", "b"])
    for _ in range(gates):
        a, b, *_ = rng.permutation(qubits).tolist()
        kind = int(rng.integers(11))
        angle = float(rng.uniform(-3, 3))
        match kind:
            case 0 | 1 | 2:
                circuit.cx(a, b)
            case 3:
                circuit.swap(a, b)
            case 4:
                circuit.rzz(angle, a, b)
            case 5:
                circuit.h(a)
            case 6:
                circuit.t(a)
            case 7:
                circuit.cp(Parameter("a"), a, b)
            case 8:
                circuit.rx(angle, a)
            case 9:
                circuit.ry(Parameter("b"), a)
            case _:
                circuit.cx(a, b).cx(b, a).t(a).cx(a, b)
    return circuit


def assert_on_device(circuit: Circuit, device: Device, *, directed: bool = False) -> None:
    assert circuit.num_qubits == device.num_qubits
    for run in circuit.runs():
        two = (NUM_QUBITS[run.code] == 2) & IS_UNITARY[run.code]
        a, b = run.qubit[two, :2].T
        allowed = device.allows(a, b)
        if directed:
            allowed = allowed | np.isin(run.code[two], [G.CZ, G.RZZ, G.SWAP])
        else:
            allowed = allowed | device.allows(b, a)
        assert np.all(allowed)
        assert not (NUM_QUBITS[run.code] > 2).any()


@pytest.mark.parametrize("name", ["line", "grid", "heavy-hex", "directed"])
@pytest.mark.parametrize("seed", range(6))
def test_random_circuits_keep_their_unitary_through_the_layout(name: str, seed: int) -> None:
    device = devices()[name]
    rng = np.random.default_rng([seed, len(name)])
    before = random_circuit(rng, int(rng.integers(2, 6)), int(rng.integers(4, 30)))
    context = on(device)
    after = MapToDevice(effort="fast").run(before, context)
    verify(after)
    assert_on_device(after, device)
    verdict = equivalence.check(before, after)
    assert verdict.equal is True, verdict
    program = Program.of_circuit(after)
    Pipeline.parse(f"to-basis{{gates=[cx],max_qubits=1}},{REDUCE},orient-gates").run(
        program, context
    )
    reduced = program.only_circuit
    assert_on_device(reduced, device, directed=True)
    assert equivalence.check(before, reduced).equal is True
    assert reduced.layout == after.layout


def test_large_circuits_run_on_compiled_kernels() -> None:
    before = random_circuit(np.random.default_rng(4), 4, 5000)
    after = MapToDevice(effort="fast").run(before, on(Device.line(5)))
    assert_on_device(after, Device.line(5))
    assert equivalence.check(before, after).equal is True


def test_what_is_mapped_is_kept() -> None:
    device = devices()["grid"]
    after = MapToDevice().run(random_circuit(np.random.default_rng(5), 5, 20), on(device))
    assert MapToDevice().run(after, on(device)) is after
    plain = Circuit(9).cx(0, 1).cz(1, 4)
    assert MapToDevice().run(plain, on(device)) is plain


def test_a_mapped_circuit_is_mapped_to_another_machine_by_composing_layouts() -> None:
    before = random_circuit(np.random.default_rng(6), 4, 14)
    first = MapToDevice().run(before, on(Device.line(5)))
    star = Device.from_pairs([(0, 5), (1, 5), (2, 5), (3, 5), (4, 5)], name="star")
    second = MapToDevice().run(first, on(star))
    assert second.layout is not None
    assert second.layout.num_virtual == 4
    assert equivalence.check(before, second).equal is True


@pytest.mark.parametrize("name", ["line", "grid", "heavy-hex", "directed"])
def test_initial_layouts_are_honoured_exactly(name: str) -> None:
    device = devices()[name]
    rng = np.random.default_rng(3)
    before = random_circuit(rng, 4, 16)
    places = tuple(rng.permutation(device.present)[:4].tolist())
    for after in (
        MapToDevice(layout=places).run(before, on(device)),
        MapToDevice().run(before, on(device, places)),
    ):
        assert after.layout is not None
        assert after.layout.initial == places
        assert_on_device(after, device)
        assert equivalence.check(before, after).equal is True


def test_the_same_seed_gives_the_same_circuit() -> None:
    before = random_circuit(np.random.default_rng(8), 6, 40)
    one, two = (MapToDevice().run(before, on(devices()["heavy-hex"])) for _ in range(2))
    assert one.equals(two)


def test_searches_side_by_side_give_the_best_of_them_whatever_the_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    costs: list[int] = []
    kept: list[int] = []
    search, choose = map_to_device.route_skeleton, map_to_device.quieter

    def searched(*args: Any, **options: Any) -> Any:
        routed = search(*args, **options)
        costs.append(routed.cost)
        return routed

    def chosen(skeleton: Any, routed: Any, *rest: Any) -> Any:
        kept.append(routed.cost)
        return choose(skeleton, routed, *rest)

    monkeypatch.setattr(map_to_device, "route_skeleton", searched)
    monkeypatch.setattr(map_to_device, "quieter", chosen)
    before = random_circuit(np.random.default_rng(31), 9, 60)
    several = MapToDevice(effort="fast", seeds=4).run(before, on(Device.grid(4, 4)))
    assert len(costs) == 4
    assert len(set(costs)) > 1
    assert kept == [min(costs)]
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    again = MapToDevice(effort="fast", seeds=4).run(before, on(Device.grid(4, 4)))
    assert again.equals(several)
    text = get_target("ibm-heron").on(Device.grid(4, 4)).pipeline("max")
    assert "map-to-device{basis=rz-sx-x,effort=max,seeds=4}" in text


def test_circuits_that_fit_need_no_swap() -> None:
    """A ring of 12 fits a hexagon of the heavy-hex lattice and nowhere else."""
    device = get_device("heavy-hex-3x9")
    ring = Circuit(12)
    for q in range(12):
        ring.cx(q, (q + 1) % 12).h(q)
    after = MapToDevice().run(ring, on(device))
    assert after.stats().two_qubit == 12
    assert after.layout is not None
    assert after.layout.initial == after.layout.final


def test_swaps_of_the_circuit_are_renamings() -> None:
    before = Circuit(4)
    before.h(0).swap(0, 3).cx(3, 1).t(0).cx(0, 2).cx(2, 0).cx(0, 2).t(2).cx(2, 3)
    after = MapToDevice().run(before, on(Device.line(4)))
    assert after.stats().two_qubit == 2
    assert equivalence.check(before, after).equal is True


def test_layers_of_commuting_gates_are_done_in_any_order() -> None:
    """A complete graph of rzz gates on a line: swap networks take 3 CX gates a pair."""
    n = 6
    before = Circuit(n)
    for a in range(n):
        for b in range(a):
            before.rzz(0.1 + a + 0.3 * b, a, b)
    context = on(Device.line(n))
    program = Program.of_circuit(MapToDevice().run(before, context))
    Pipeline.parse(f"to-basis{{gates=[cx],max_qubits=1}},{REDUCE}").run(program, context)
    assert program.only_circuit.stats().two_qubit <= 3 * n * (n - 1) // 2
    assert equivalence.check(before, program.only_circuit).equal is True


def test_a_bridge_does_a_cx_gate_across_a_qubit_without_moving_anything() -> None:
    before = Circuit(3)
    for _ in range(3):
        before.cx(0, 1).h(1).cx(1, 2).h(1)
    before.cx(0, 2)
    for _ in range(3):
        before.h(1).cx(0, 1).h(1).cx(1, 2)
    after = MapToDevice().run(before, on(Device.line(3)))
    assert equivalence.check(before, after).equal is True
    assert after.stats().two_qubit == before.stats().two_qubit + 3


def dynamic() -> Circuit:
    return Circuit.from_qasm(
        """
        OPENQASM 3.0;
        include "stdgates.inc";
        qubit[4] q;
        bit[4] c;
        h q[0];
        cx q[0], q[1];
        cx q[0], q[2];
        c[0] = measure q[0];
        if (c[0]) { cx q[1], q[3]; cx q[3], q[0]; } else { cx q[2], q[0]; h q[3]; }
        for int i in [0:2] {
            cx q[0], q[3];
            c[1] = measure q[1];
            if (c[1]) { cx q[2], q[1]; break; }
            cx q[3], q[1];
            h q[1];
        }
        reset q[2];
        cx q[3], q[2];
        c[2] = measure q[2];
        c[3] = measure q[3];
        """
    )


@pytest.mark.parametrize("name", ["line", "directed"])
def test_control_flow_is_mapped(name: str) -> None:
    device = devices()[name]
    before = dynamic()
    after = MapToDevice().run(before, on(device))
    verify(after)
    assert_on_device(after, device)
    assert MapToDevice().run(after, on(device)) is after
    verdict = equivalence.check(before, after)
    assert verdict.equal is True, verdict
    turned = OrientGates().run(after, on(device))
    assert equivalence.check(before, turned, only_bits=True).equal is True


def test_delays_boxes_and_switches_are_mapped() -> None:
    before = Circuit.from_qasm(
        """
        OPENQASM 3.0;
        include "stdgates.inc";
        qubit[3] q;
        bit[2] c;
        h q[0];
        cx q[0], q[1];
        delay[100ns] q[1];
        box { cx q[1], q[2]; cx q[0], q[2]; }
        c[0] = measure q[0];
        c[1] = measure q[1];
        switch (c) { case 1 { cx q[2], q[0]; } case 2, 3 { cx q[1], q[0]; } default { x q[2]; } }
        cx q[0], q[1];
        """
    )
    device = Device.line(3)
    after = MapToDevice().run(before, on(device))
    assert_on_device(after, device)
    assert equivalence.check(before, after).equal is True


def test_measurements_into_one_bit_keep_their_order() -> None:
    before = Circuit(3, 2)
    before.h(0).cx(0, 2).measure(0, 0).h(1).measure(1, 0).cx(1, 2).cx(0, 1).measure(2, 1)
    before.barrier(0, 1, 2).x(0)
    after = MapToDevice().run(before, on(Device.line(3)))
    assert equivalence.check(before, after).equal is True


def test_wide_gates_are_taken_apart() -> None:
    before = Circuit(4).h(0).h(1).ccx(0, 1, 2)
    before.append("mcx", (0, 1, 2, 3))
    after = MapToDevice().run(before, on(Device.line(4)))
    assert_on_device(after, Device.line(4))
    assert equivalence.check(before, after).equal is True


@pytest.fixture(scope="session")
def torino() -> Device:
    pytest.importorskip("qiskit_ibm_runtime")
    return get_device("fake_torino")


def test_expectations_on_torino_without_noise_are_those_before(torino: Device) -> None:
    rng = np.random.default_rng(11)
    observables = tuple(Observable.parse(t) for t in ("Z0", "X1*Y4", "0.5*Z2*Z3*Z5 - Y0", "Z6"))
    for _ in range(3):
        before = random_circuit(rng, 7, 40)
        after = MapToDevice().run(before, on(torino))
        assert_on_device(after, torino)
        rows = rng.uniform(-3, 3, (2, 2))
        readout = Readout("expval", observables)
        first, second = (run_readout(c, readout, rows) for c in (before, after))
        assert np.abs(first - second).max() < 1e-9


def test_known_error_rates_choose_the_qubits(torino: Device) -> None:
    from qcomp.passes.map.perfect import _filled

    chain = Circuit(4)
    for q in range(3):
        chain.cx(q, q + 1).h(q)
    after = MapToDevice().run(chain, on(torino))
    assert after.layout is not None
    rates = _filled(torino.errors["cz"])
    run = after.run
    two = NUM_QUBITS[run.code] == 2
    used = rates[torino.pair_index(*run.qubit[two, :2].T)]
    assert used.sum() < 3 * np.median(rates)


def test_circuits_wider_than_the_device_are_refused() -> None:
    with pytest.raises(TargetError, match="has 9 qubits"):
        MapToDevice().run(Circuit(9).cx(0, 8), on(Device.line(5)))


def test_unconnected_coupling_maps_are_refused_where_the_circuit_does_not_fit() -> None:
    device = Device.from_pairs([(0, 1), (1, 2), (3, 4)], name="two parts")
    with pytest.raises(TargetError, match="not connected"):
        MapToDevice().run(Circuit(4).cx(0, 3), on(device))
    small = MapToDevice().run(Circuit(3).cx(0, 1).cx(1, 2).cx(0, 2), on(device))
    assert_on_device(small, device)


@pytest.mark.parametrize("layout", [(0, 1), (0, 1, 1), (0, 1, 9), (0, 1, -1)])
def test_layouts_that_do_not_fit_are_refused(layout: tuple[int, ...]) -> None:
    with pytest.raises(UsageError):
        MapToDevice(layout=layout).run(Circuit(3).cx(0, 1), on(Device.line(5)))


def test_a_pass_without_a_device_says_what_to_give() -> None:
    for instance in (MapToDevice(), OrientGates()):
        with pytest.raises(UsageError, match="no device"):
            instance.run(Circuit(2).cx(0, 1), Context())
    with pytest.raises(UsageError, match="no effort"):
        MapToDevice(effort="most").run(Circuit(2), on(Device.line(2)))


def test_gates_off_the_couplings_are_found_when_directions_are_checked() -> None:
    with pytest.raises(TargetError, match="not coupled"):
        OrientGates(device="line-3").run(Circuit(3).cx(0, 2), Context())


@pytest.mark.parametrize("gate", ["cx", "ecr", "rzx"])
def test_gates_are_turned_around_exactly(gate: str) -> None:
    device = Device.from_pairs([(1, 0)], directed=True)
    before = Circuit(2)
    before.append(gate, (0, 1), (0.4,) if gate == "rzx" else ())
    after = OrientGates().run(before, on(device))
    assert_on_device(after, device, directed=True)
    assert equivalence.check(before, after).error < 1e-12


def test_pairs_that_always_fail_are_left_out() -> None:
    ring = np.stack([np.arange(8), (np.arange(8) + 1) % 8], axis=1)
    pairs = np.concatenate([ring, ring[:, ::-1]]).astype(np.int32)
    broken = (pairs == [2, 3]).all(axis=1) | (pairs == [3, 2]).all(axis=1)
    rates = np.where(broken, 1.0, 0.01)
    device = Device("broken", 8, pairs, ("cz", "rz", "sx", "x"), errors={"cz": rates})
    before = random_circuit(np.random.default_rng(2), 8, 40)
    after = MapToDevice().run(before, on(device))
    assert_on_device(after, device)
    used = {tuple(sorted(q)) for _, q, _ in after.run.operations() if len(q) == 2}
    assert (2, 3) not in used
    assert equivalence.check(before, after).equal is True
