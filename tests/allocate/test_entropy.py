"""Sensitivities by the entropy of activations: against Gaussian channels and measured errors."""

import numpy as np
import pytest

from qcomp.errors import PassError
from qcomp.passes.allocate.entropy_sensitivity import lost_information
from qcomp.passmanager import Context, Pipeline
from qcomp.sensitivity import AllocatedBits, Sensitivities
from tests.quantize.conftest import build_program

BODY = """
g (float[n, 32] x) => (float[n, 5] y) {
    a = MatMul(x, w0)
    h = Tanh(a)
    b = MatMul(h, w1)
    i = Tanh(b)
    y = MatMul(i, w2)
}"""
SHAPES = {"w0": (32, 48), "w1": (48, 40), "w2": (40, 5)}


def prepared(scale=1.0):
    rng = np.random.default_rng(0)
    weights = {n: rng.normal(0, 0.2, s).astype(np.float32) for n, s in SHAPES.items()}
    data = {"x": scale * rng.normal(size=(64, 32)).astype(np.float32)}
    return build_program(BODY, weights), Context(calibration=lambda: iter([data]))


def table(text, scale=1.0):
    program, context = prepared(scale)
    Pipeline.parse(text).run(program, context)
    return context.get(Sensitivities)


def test_noise_takes_from_gaussian_values_the_capacity_of_a_gaussian_channel():
    """h(Y + D) - h(Y) = 1/2 log2(1 + s^2 / t^2) for independent Gaussians."""
    values = np.random.default_rng(1).normal(0, 3.0, 400_000)
    for noise in (0.01, 1.0, 9.0):
        exact = 0.5 * np.log2(1 + noise / 9.0)
        assert lost_information(values, noise) == pytest.approx(exact, rel=0.02)


def test_values_that_crowd_together_are_disturbed_by_less_noise():
    rng = np.random.default_rng(2)
    wide = rng.normal(size=50_000)
    crowded = rng.laplace(size=50_000) ** 3
    crowded /= crowded.std()
    assert lost_information(crowded, 0.01) > 2 * lost_information(wide, 0.01)


def test_a_constant_result_gives_a_finite_loss():
    assert np.isfinite(lost_information(np.ones(100), 0.5))
    assert lost_information(np.zeros(100), 0.0) == 0.0


def test_the_table_is_that_of_measured_errors_and_falls_four_times_a_bit():
    options = "bits=[2,4,6],groups=[16],rows=64}"
    entropic = table("entropy-sensitivity{" + options)
    measured = table("measure-sensitivity{measured=all," + options)
    assert (entropic.method, entropic.unit) == ("entropy", "bits a value")
    for ours, theirs in zip(entropic.tensors, measured.tensors, strict=True):
        assert [(c.bits, c.bytes) for c in ours.choices] == [
            (c.bits, c.bytes) for c in theirs.choices
        ]
        assert ours.value is not None
        assert np.isfinite(ours.value)
        errors = [c.error for c in sorted(ours.choices, key=lambda c: c.bits)]
        assert 8 < errors[1] / errors[2] < 40, "two bits are a factor of 16"
        assert errors[0] > errors[1] > 0


def test_the_loss_does_not_depend_on_the_unit_of_the_data():
    """The first layer is linear in the data: its noise and its entropy power scale alike."""
    one, other = (
        table("entropy-sensitivity{bits=[4],groups=[16],rows=64}", s).tensors[0] for s in (1.0, 8.0)
    )
    assert one.choices[0].error == pytest.approx(other.choices[0].error, rel=1e-3)
    assert other.value == pytest.approx(one.value + 3, abs=1e-2)


def test_bits_are_chosen_by_it():
    program, context = prepared()
    text = "entropy-sensitivity{bits=[2,4,8],groups=[16],rows=64},allocate-bits{max-ratio=0.8}"
    Pipeline.parse(text).run(program, context)
    chosen = context.get(AllocatedBits)
    assert chosen is not None
    assert chosen.sensitivity == "entropy"
    assert {choice.bits for choice in chosen.chosen.values()} != {8}


def test_without_data_it_says_so():
    program, _ = prepared()
    with pytest.raises(PassError, match="no data"):
        Pipeline.parse("entropy-sensitivity").run(program, Context())
