"""Each device against the built-in simulator: values, shots, seeds, standard errors, refusals."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from qcomp.errors import QcompError, UsageError
from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.ir.layout import Layout
from qcomp.ir.observable import Observable
from qcomp.ir.program import Readout
from qcomp.runtime import devices
from qcomp.runtime.devices import DEVICES, estimate_on, run_on

OBSERVABLES = tuple(
    Observable.parse(t) for t in ("Z0", "0.5*Z0*Z1 - X2", "Y1*Y2 + 0.25", "Z0 + Z1")
)
EXPVAL = Readout("expval", OBSERVABLES)
ROWS = np.array([[0.3, 1.1], [2.0, -0.4], [0.3, 1.1]])
SHOTS = 2000


def circuit() -> Circuit:
    out = Circuit(3, name="three", params=("a", "b"))
    out.ry(Parameter("a"), 0).rx(Parameter("b"), 1).h(2).cx(0, 1).s(1)
    out.append("rzz", (1, 2), (Parameter("a") + 0.2,))
    out.append("ccx", (0, 1, 2)).ry(0.4, 2)
    return out


def measured() -> Circuit:
    """Measured into bits of another order, one of them not at all."""
    out = Circuit(3, 3, name="measured", params=("a", "b"))
    out.ry(Parameter("a"), 0).rx(Parameter("b"), 1).cx(0, 2)
    out.measure(0, 2).measure(2, 0)
    return out


def mapped() -> Circuit:
    """Two qubits on the wires 4 and 3 of a larger machine, in FakeTorino's gates."""
    out = Circuit(133, name="mapped", params=("a",))
    out.sx(4).rz(Parameter("a"), 4).sx(4).cz(3, 4).sx(3).rz(0.7, 3).sx(3)
    out.layout = Layout((4, 3), (4, 3), 133)
    return out


@pytest.mark.parametrize("device", ["aer", "lightning"])
def test_exact_values_are_those_of_the_built_in_simulator(device: str) -> None:
    for source, readouts in (
        (circuit(), [EXPVAL]),
        (mapped(), [Readout("expval", (Observable.parse("Z0*X1"), Observable.parse("Y1")))]),
    ):
        rows = ROWS[:, : source.num_params]
        for readout in readouts:
            expected = run_on("sim", source, readout, rows, 0, 0)
            found = estimate_on(device, source, readout, rows, 0, 0)
            assert np.abs(found.values - expected).max() < 1e-12
            assert found.errors is not None
            assert not found.errors.any()


def test_lightning_gives_distributions_and_amplitudes_too() -> None:
    for source in (circuit(), measured(), mapped()):
        rows = ROWS[:, : source.num_params]
        for readout in (Readout("probs"), Readout("probs", order=(1, 0))):
            expected = run_on("sim", source, readout, rows, 0, 0)
            assert np.abs(run_on("lightning", source, readout, rows, 0, 0) - expected).max() < 1e-12
    expected = run_on("sim", circuit(), Readout("state"), ROWS, 0, 0)
    found = run_on("lightning", circuit(), Readout("state"), ROWS, 0, 0)
    assert np.abs(found - expected).max() < 1e-12


@pytest.mark.parametrize("device", list(DEVICES))
def test_expectation_values_from_shots_lie_within_their_standard_errors(device: str) -> None:
    exact = run_on("sim", circuit(), EXPVAL, ROWS, 0, 0)
    found = estimate_on(device, circuit(), EXPVAL, ROWS, SHOTS, 3)
    assert found.errors is not None
    assert (found.errors[:, 0] > 0).all()
    assert np.abs((found.values - exact) / found.errors).max() < 4.5
    single = np.sqrt((1 - exact[:, 0] ** 2) / SHOTS)
    assert found.errors[:, 0] == pytest.approx(single, rel=0.3)


def test_the_standard_error_is_the_spread_over_many_seeds() -> None:
    """Products read in one setting are correlated: Z0 + Z1 is not two independent values."""
    runs = [estimate_on("sim", circuit(), EXPVAL, ROWS[:1], 100, seed) for seed in range(300)]
    spread = np.std([run.values[0] for run in runs], axis=0)
    claimed = np.mean([run.errors[0] for run in runs if run.errors is not None], axis=0)
    assert claimed == pytest.approx(spread, rel=0.15)


@pytest.mark.parametrize("device", list(DEVICES))
def test_frequencies_from_shots_lie_within_their_standard_errors(device: str) -> None:
    for source in (circuit(), measured()):
        exact = run_on("sim", source, Readout("probs"), ROWS, 0, 0)
        found = estimate_on(device, source, Readout("probs"), ROWS, SHOTS, 5)
        assert found.values.shape == exact.shape
        assert found.errors is not None
        assert found.values.sum(axis=1) == pytest.approx(1.0)
        true = np.sqrt(exact * (1 - exact) / SHOTS)
        assert (np.abs(found.values - exact) <= 4.5 * true + 2 / SHOTS).all()
        sure = exact * (1 - exact) > 0.02
        assert found.errors[sure] == pytest.approx(true[sure], rel=0.2)


@pytest.mark.parametrize("device", list(DEVICES))
def test_samples_and_bits_have_the_shape_that_is_stated_and_no_errors(device: str) -> None:
    samples = estimate_on(device, measured(), Readout("samples"), ROWS, 50, 1)
    assert samples.values.shape == (3, 50, 3)
    assert samples.errors is None
    assert not np.asarray(samples.values)[:, :, 1].any()  # the bit that nothing is measured into
    bits = estimate_on(device, measured(), Readout("bits"), ROWS, None, 1)
    assert bits.values.shape == (3, 3)


@pytest.mark.parametrize("device", ["sim", "aer", "lightning"])
def test_the_same_seed_gives_the_same_shots(device: str) -> None:
    first, again, other = (run_on(device, circuit(), EXPVAL, ROWS, 100, seed) for seed in (7, 7, 8))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def on_manila() -> Circuit:
    """Two qubits on the wires 1 and 0 of a machine of five, in its own gates."""
    out = Circuit(5, name="manila", params=("a",))
    out.sx(1).rz(Parameter("a"), 1).sx(1).cx(0, 1).sx(0).rz(0.7, 0).sx(0)
    out.layout = Layout((1, 0), (1, 0), 5)
    return out


def test_ibm_estimates_and_samples_on_a_fake_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import qiskit_ibm_runtime

    sizes = []
    run = qiskit_ibm_runtime.EstimatorV2.run

    def counted(self: object, pubs: list[tuple[object, ...]], **options: object) -> object:
        (pub,) = pubs
        (values,) = dict(pub[2]).values()  # type: ignore[call-overload]
        sizes.append(np.shape(values))
        return run(self, pubs, **options)

    monkeypatch.setattr(qiskit_ibm_runtime.EstimatorV2, "run", counted)
    source, rows = on_manila(), ROWS[:, :1]
    readout = Readout("expval", (Observable.parse("Z0"), Observable.parse("Z0*X1")))
    exact = run_on("sim", source, readout, rows, 0, 0)
    found = estimate_on("ibm:fake_manila", source, readout, rows, 1000, 1)
    assert sizes == [(3, 1)]  # all rows are the parameter array of one PUB
    assert found.errors is not None
    assert ((found.errors > 0) & (found.errors < 0.05)).all()
    assert np.abs(found.values - exact).max() < 0.2  # its noise, and its shots
    weights = np.asarray(run_on("ibm:fake_manila", source, Readout("probs"), rows, 1000, 1))
    assert np.abs(weights - run_on("sim", source, Readout("probs"), rows, 0, 0)).max() < 0.15


@pytest.mark.parametrize(
    ("device", "readout", "shots", "message"),
    [
        ("braket", EXPVAL, 0, "'braket' gives 'expval' from samples only"),
        ("lightning", Readout("samples"), 0, "readout 'samples' needs shots"),
        ("lightning", Readout("state"), 10, "readout 'state' is exact"),
        ("simm", EXPVAL, 0, "there is no device 'simm'"),
        ("ibm:ibm_torino", EXPVAL, 10, "a machine of IBM's service"),
        ("ibm:fake_torin", EXPVAL, 10, "there is no device 'fake_torin'"),
        ("ibm:fake_manila", EXPVAL, 10, "cannot run this artifact"),
    ],
)
def test_what_a_device_cannot_give_is_refused(
    device: str, readout: Readout, shots: int, message: str
) -> None:
    with pytest.raises(QcompError, match=message) as caught:
        run_on(device, circuit(), readout, ROWS, shots, 0)
    assert caught.value.hint


@pytest.mark.parametrize(("shots", "seed"), [(2.5, 0), ("10", 0), (True, 0), (-1, 0), (10, 1.5)])
def test_shots_and_seeds_are_whole_numbers(shots: Any, seed: Any) -> None:
    with pytest.raises(UsageError, match=r"number of shots is|seed is") as caught:
        run_on("sim", circuit(), EXPVAL, ROWS, shots, seed)
    assert "whole number" in caught.value.hint


def test_a_circuit_that_measures_in_between_is_refused_where_it_cannot_run() -> None:
    dynamic = Circuit(1, 1)
    dynamic.h(0).measure(0, 0).h(0)
    for device in ("lightning", "braket"):
        with pytest.raises(QcompError, match=r"measures before its end|needs a unitary"):
            run_on(device, dynamic, Readout("probs"), np.zeros((1, 0)), 10, 0)


@pytest.mark.parametrize(
    ("device", "package", "extra"),
    [
        ("lightning", "pennylane_lightning", "qcomp[pennylane]"),
        ("braket", "braket", "qcomp[braket]"),
        ("ibm:fake_torino", "qiskit_ibm_runtime", "qcomp[ibm]"),
        ("aer", "qiskit_aer", "qiskit-aer"),
    ],
)
def test_a_missing_package_is_named_with_what_installs_it(
    device: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError) as caught:
        run_on(device, circuit(), EXPVAL, ROWS, 10, 0)
    assert extra in str(caught.value.hint)


class TestResultsOnDisk:
    """The cache of results: what is kept, what is told apart, what is bounded."""

    @pytest.fixture(autouse=True)
    def home(self, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("QCOMP_HOME", str(tmp_path))
        monkeypatch.setenv("QCOMP_CACHE", "on")

    def counted(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        calls: list[int] = []
        inner = DEVICES["aer"]

        def run(*args: object) -> object:
            calls.append(1)
            return inner(*args)  # type: ignore[arg-type]

        monkeypatch.setitem(devices.DEVICES, "aer", run)  # type: ignore[arg-type]
        return calls

    def test_an_equal_call_is_not_run_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        calls = self.counted(monkeypatch)
        found = [estimate_on("aer", circuit(), EXPVAL, ROWS, 100, 1, cache=True) for _ in range(2)]
        assert len(calls) == 1
        assert np.array_equal(found[0].values, found[1].values)
        assert np.array_equal(found[0].errors, found[1].errors)  # type: ignore[arg-type]
        estimate_on("aer", circuit(), EXPVAL, ROWS, 100, 1)
        assert len(calls) == 2

    def test_whatever_a_result_depends_on_tells_it_apart(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls = self.counted(monkeypatch)
        other = circuit()
        other.x(0)
        fewer = Readout("expval", OBSERVABLES[:2])
        for source, readout, rows, shots, seed in (
            (circuit(), EXPVAL, ROWS, 100, 1),
            (other, EXPVAL, ROWS, 100, 1),
            (circuit(), fewer, ROWS, 100, 1),
            (circuit(), EXPVAL, ROWS + 1e-9, 100, 1),
            (circuit(), EXPVAL, ROWS, 101, 1),
            (circuit(), EXPVAL, ROWS, 100, 2),
        ):
            estimate_on("aer", source, readout, rows, shots, seed, cache=True)
        assert len(calls) == 6

    def test_a_damaged_file_is_made_again_and_old_ones_go(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from qcomp.runtime import result_cache

        calls = self.counted(monkeypatch)
        estimate_on("aer", circuit(), EXPVAL, ROWS, 10, 0, cache=True)
        (path,) = result_cache.results_folder().glob("*.npz")
        path.write_bytes(b"no archive")
        estimate_on("aer", circuit(), EXPVAL, ROWS, 10, 0, cache=True)
        assert len(calls) == 2
        size = path.stat().st_size
        monkeypatch.setattr(result_cache, "MAX_BYTES", 8 * 3 * size)
        for seed in range(1, 40):
            estimate_on("aer", circuit(), EXPVAL, ROWS[:1], 1, seed, cache=True)
        left = list(result_cache.results_folder().glob("*.npz"))
        assert sum(p.stat().st_size for p in left) <= 8 * 3 * size
        assert len(left) < 40

    def test_it_can_be_switched_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from qcomp.runtime import result_cache

        monkeypatch.setenv("QCOMP_CACHE", "off")
        estimate_on("aer", circuit(), EXPVAL, ROWS, 10, 0, cache=True)
        assert not result_cache.results_folder().exists()
