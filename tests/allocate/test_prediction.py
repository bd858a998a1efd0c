"""The allocator's table against what is measured with all tensors rounded at once."""

import sys
from pathlib import Path

import pytest

import qcomp

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def mixed():
    """The small decoder: sensitivities of calibration rows, and a measure on rows held out."""
    folders = [str(ROOT / "benchmarks"), str(ROOT / "examples" / "char_model")]
    sys.path[:0] = folders
    import char_model
    from mixed_bits import Mixed

    for folder in folders:
        sys.path.remove(folder)
    weights, alphabet = char_model.load()
    train, held_out = char_model.split(char_model.tokens(alphabet))
    program = qcomp.read(char_model.graph(weights))
    data = {"ids": char_model.calibration(train, 32)}
    return Mixed(program, data, {"ids": held_out[:24, :-1]}, rows=16)


def test_shared_out_bits_beat_the_same_bits_for_all_at_equal_bytes(mixed):
    lines = mixed.against_uniform()
    assert [line["bits"] for line in lines] == [2, 4, 8]
    assert all(line["mixed"] < line["uniform"] for line in lines)
    assert lines[1]["mixed"] < 0.8 * lines[1]["uniform"]


def test_predictions_rank_random_allocations_as_measurement_does(mixed):
    one_size, across_sizes = mixed.correlations()
    assert one_size >= 0.8
    assert across_sizes >= 0.95
