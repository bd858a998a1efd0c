"""Images as states: the state itself, what it costs, and the image read back."""

from __future__ import annotations

from math import pi

import numpy as np
import pytest

from qcomp.constructions.images.cubes import added_cubes
from qcomp.constructions.images.decode import decode_image
from qcomp.constructions.images.frqi import encode_image, frqi, neqr
from qcomp.constructions.images.tables import append_table, plan_table
from qcomp.constructions.images.tours import short_walk, walk_length
from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.simulate import probabilities, sample, statevector

BLOCK = np.zeros((4, 4))
BLOCK[1:3, 1:3] = 1.0


def turned(angles: np.ndarray, circuit: Circuit) -> float:
    """The largest error of the state that a table of angles is to give over uniform controls."""
    wanted = np.concatenate([np.cos(angles / 2), np.sin(angles / 2)]) / np.sqrt(len(angles))
    return float(np.abs(statevector(circuit)[0] - wanted).max())


def written(angles: np.ndarray, method: str = "auto", epsilon: float = 0.0) -> Circuit:
    table = plan_table(angles, method=method, epsilon=epsilon)
    circuit = Circuit(table.bits + 1)
    for q in range(table.bits):
        circuit.h(q)
    append_table(circuit, table, range(table.bits), table.bits)
    assert circuit.stats().two_qubit == table.two_qubit
    return circuit


@pytest.mark.parametrize("bits", [1, 2, 3, 5])
def test_a_table_turns_by_its_angles(bits: int) -> None:
    angles = np.random.default_rng(7).normal(size=1 << bits)
    assert turned(angles, written(angles)) < 1e-12
    assert written(angles).stats().two_qubit == (1 << bits) - 1


@pytest.mark.parametrize("literals", [5, 6, 7])
def test_one_place_among_many_is_a_product_of_two_halves(literals: int) -> None:
    angles = np.full(1 << literals, 0.4)
    angles[5] = 2.1
    circuit = written(angles, "cubes")
    assert turned(angles, circuit) < 1e-12
    assert circuit.stats().two_qubit == {5: 24, 6: 32, 7: 48}[literals]


def test_tables_of_few_levels_are_the_same_by_every_way() -> None:
    for seed in range(6):
        rng = np.random.default_rng(seed)
        angles = rng.choice([0.0, 0.7, 1.9], size=32, p=[0.7, 0.2, 0.1])
        ways = [written(angles, method) for method in ("walsh", "cubes", "auto")]
        assert all(turned(angles, way) < 1e-12 for way in ways)
        counts = [way.stats().two_qubit for way in ways]
        assert counts[2] == min(counts)


def test_the_cubes_of_a_table_add_up_to_it() -> None:
    table = np.random.default_rng(7).integers(0, 3, size=32)
    found = added_cubes(table, [0.1, 0.5, 2.0])
    assert found is not None
    constant, cubes = found
    total = np.full(32, constant)
    for cube in cubes:
        total[cube.holds(5)] += cube.added
    assert np.abs(total - np.array([0.1, 0.5, 2.0])[table]).max() < 1e-12


def test_a_rectangle_of_equal_pixels_is_one_cube() -> None:
    pixels = np.zeros((16, 16), dtype=int)
    pixels[4:8, 8:16] = 1
    found = added_cubes(pixels.ravel(), [0.0, 1.0])
    assert found is not None
    assert len(found[1]) == 1
    pixels[5, 9] = 2  # and what differs inside of it is added on top
    found = added_cubes(pixels.ravel(), [0.0, 1.0, 3.0])
    assert found is not None
    assert sorted(cube.added for cube in found[1]) == [1.0, 2.0]


def test_a_walk_visits_each_parity_once_and_is_no_longer_than_the_gray_code() -> None:
    for size in (1, 5, 20, 40, 64):
        masks = np.random.default_rng(size).permutation(64)[:size]
        walk = short_walk(masks, 6)
        assert sorted(walk) == sorted(masks)
        assert walk_length(walk) <= 63
        assert walk_length(walk) >= len(walk) - 1


def test_weights_that_were_dropped_are_kept_where_the_walk_passes_them() -> None:
    angles = np.random.default_rng(1).uniform(0, pi, size=64)
    table = plan_table(angles, epsilon=0.1)
    weights = 0.1 < np.abs(plan_table(angles).angles())
    assert len(table.factors) > 0
    assert weights.any()
    kept = {m for m, w in table.factors if abs(w) <= 0.1}
    assert kept, "the walk passes none, so nothing was tested"
    errors = [
        np.abs(plan_table(angles, epsilon=e).angles() - angles).max() for e in (0.0, 0.05, 0.1)
    ]
    assert errors[0] < 1e-12 < errors[1] <= errors[2] * 1.5


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (2, 2), (8, 8), (4, 16), (5, 7)])
def test_frqi_is_its_state_and_gives_the_image_back(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(7).uniform(-3, 9, size=shape)
    found = frqi(image)
    wide = np.pad(image, [(0, s - t) for s, t in zip(found.padded, shape, strict=True)], "edge")
    theta = pi / 2 * (wide.ravel() - found.low) / (found.high - found.low)
    wanted = np.concatenate([np.cos(theta), np.sin(theta)]) / np.sqrt(len(theta))
    assert np.abs(statevector(found.circuit)[0] - wanted).max() < 1e-9
    assert np.abs(found.decode(probabilities(found.circuit)[0]) - image).max() < 1e-9


def test_neqr_is_a_basis_state_of_each_position() -> None:
    image = np.random.default_rng(7).integers(0, 16, size=(4, 8))
    found = neqr(image)
    assert found.bits == int(image.max()).bit_length()
    index = np.arange(32) | (image.ravel() << 5)
    wanted = np.zeros(1 << found.circuit.num_qubits)
    wanted[index] = 1 / np.sqrt(32)
    assert np.abs(statevector(found.circuit)[0] - wanted).max() < 1e-9
    assert np.abs(found.decode(probabilities(found.circuit)[0]) - image).max() < 1e-9


def test_neqr_rounds_a_brightness_that_is_no_whole_number_and_says_so() -> None:
    image = np.random.default_rng(7).uniform(size=(4, 4))
    found = neqr(image, bits=3)
    back = found.decode(probabilities(found.circuit)[0])
    assert np.abs(back - image).max() == pytest.approx(found.dropped)
    assert any("at most" in note for note in found.notes)


@pytest.mark.parametrize("method", ["frqi", "neqr"])
def test_shots_give_the_image_up_to_their_noise(method: str) -> None:
    image = np.random.default_rng(7).integers(0, 8, size=(4, 4))
    found = encode_image(image, method)
    measured = found.circuit.copy().measure_all()
    bits = sample(measured, None, 40_000, np.random.default_rng(3))[0]
    index = bits.astype(np.int64) @ (1 << np.arange(bits.shape[1]))
    counts = np.bincount(index, minlength=1 << found.circuit.num_qubits)
    back = found.decode(counts)
    texts = {format(i, f"0{bits.shape[1]}b"): int(c) for i, c in enumerate(counts) if c}
    assert np.array_equal(found.decode(texts), back)
    # An angle t has the deviation 1 / (2 sqrt(N)) of its N shots: 2,500 a pixel.
    limit = 5 * 7 * (2 / pi) / (2 * np.sqrt(2_300)) if method == "frqi" else 1e-12
    assert np.abs(back - image).max() < limit


def test_a_pixel_that_was_never_seen_is_no_number() -> None:
    assert np.isnan(decode_image([4, 0, 4, 0], (1, 2))[0, 1])


def test_an_image_of_one_brightness_costs_nothing() -> None:
    for value in (0.0, 0.25, -2.0):
        found = frqi(np.full((8, 8), value))
        assert found.circuit.stats().two_qubit == 0
        assert np.abs(found.decode(probabilities(found.circuit)[0]) - value).max() < 1e-12


def test_padding_is_said() -> None:
    assert any(
        "padded to 8x8" in note
        for note in frqi(np.random.default_rng(7).uniform(size=(5, 7))).notes
    )
    assert not any(
        "padded" in note for note in frqi(np.random.default_rng(7).uniform(size=(4, 8))).notes
    )


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: frqi(np.zeros(4)), "one channel [h, w]"),
        (lambda: frqi(np.zeros((2, 2), complex)), "matrix of real numbers"),
        (lambda: frqi([[1.0, np.nan]]), "the pixel [0, 1] is nan"),
        (lambda: frqi(BLOCK, epsilon=-1), "must not be negative"),
        (lambda: frqi(BLOCK, way="best"), "auto, walsh, cubes"),
        (lambda: frqi(BLOCK, high=0.5), "leave low and high out"),
        (lambda: frqi(np.zeros((2048, 1024))), "cut it into tiles"),
        (lambda: neqr(BLOCK, bits=17), "1 .. 16 bits"),
        (lambda: encode_image(BLOCK, "frqy"), "did you mean 'frqi'"),
        (lambda: decode_image([1, 2], (2, 2)), "measure all of its qubits"),
        (lambda: decode_image({"01": 3}, (2, 2)), "no outcome of 3 qubits"),
        (lambda: decode_image([1, 2], (1, 1), method="neqr"), "at least one"),
    ],
)
def test_what_is_no_image_is_said_with_the_next_step(call: object, text: str) -> None:
    with pytest.raises(UsageError) as error:
        call()  # type: ignore[operator]
    assert text in str(error.value)
