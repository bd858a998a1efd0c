"""``--max-bytes`` and ``--max-drop`` of ``cpu-mixed``: how bits are shared out under them."""

from pathlib import Path

import pytest

import qcomp
from qcomp.byte_budget import ByteBudget
from qcomp.errors import PassError, UsageError
from qcomp.execute import Session
from tests.papers.digits_mlp import accuracy, digits

SOURCE = Path(__file__).parent.parent / "data" / "digits_cnn.onnx"


def images(flat):
    return flat.reshape(-1, 1, 8, 8)


@pytest.fixture(scope="module")
def given():
    x, _, y, _ = digits()
    return {
        "model": SOURCE,
        "calibration": {"image": images(x)},
        "labels": {"image": images(x), "y": y},
    }


def compiled(given, out, **limits):
    labels = given["labels"] if "max_drop" in limits else None
    artifact = qcomp.compile(
        given["model"],
        target="cpu-mixed",
        calibration=given["calibration"],
        labels=labels,
        out=out,
        **limits,
    )
    (path,) = out.glob("*.onnx")
    return path, dict(artifact.report)


def right(path):
    return accuracy(Session(path).run({"image": images(digits()[1])})["logits"])


@pytest.fixture(scope="module")
def sizes(given, tmp_path_factory):
    """Share of the float file -> bytes asked for, path, report."""
    whole = SOURCE.stat().st_size
    found = {}
    for share in (0.22, 0.27, 0.36):
        limit = int(share * whole)
        out = tmp_path_factory.mktemp("mixed") / "out"
        found[share] = limit, *compiled(given, out, max_bytes=limit)
    return found


def test_the_file_is_never_larger_than_the_limit_and_nearly_as_large(sizes):
    for share, (limit, path, _) in sizes.items():
        size = path.stat().st_size
        assert size <= limit
        if share < 0.3:
            assert size >= 0.8 * limit


def test_more_bytes_bring_the_outputs_nearer_to_float(given, sizes):
    x = {"image": images(digits()[1])}
    y = Session(given["model"]).run(x)["logits"]
    noise = [((Session(p).run(x)["logits"] - y) ** 2).sum() for _, p, _ in sizes.values()]
    assert noise[0] > 1.5 * noise[1] > 2 * noise[2]


def test_bits_differ_from_layer_to_layer(sizes):
    _, _, report = sizes[0.27]
    assert len({layer["bits"] for layer in report["quantization"]["layers"]}) >= 3


def test_a_drop_is_met_by_a_smaller_file_than_that_of_the_most_bits(given, sizes, tmp_path):
    path, _ = compiled(given, tmp_path / "drop", max_drop="1%")
    x, _, y, _ = digits()
    before, after = (
        float((Session(m).run({"image": images(x)})["logits"].argmax(1) == y).mean())
        for m in (given["model"], path)
    )
    assert after >= 0.99 * before
    assert path.stat().st_size < sizes[0.36][1].stat().st_size


def test_limits_that_contradict_one_another_and_budgets_too_small_say_the_nearest(given, tmp_path):
    with pytest.raises(PassError, match="contradict one another") as caught:
        compiled(given, tmp_path / "a", max_bytes="15kB", max_drop="0.1%")
    assert "allow" in caught.value.hint
    with pytest.raises(PassError, match="cannot be met") as caught:
        compiled(given, tmp_path / "b", max_bytes=2000)
    assert "allow" in caught.value.hint
    with pytest.raises(UsageError, match="shares no bits out"):
        qcomp.compile(
            given["model"],
            target="cpu-int8",
            calibration=given["calibration"],
            max_bytes="1MB",
            out=tmp_path / "c",
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "size"),
    [("2MB", 2_000_000), ("1.5 MiB", 1_572_864), (4096, 4096), ("12kb", 12_000), ("1GiB", 2**30)],
)
def test_bytes_are_read_with_their_units(text, size):
    assert ByteBudget.parse(text).bytes == size


@pytest.mark.parametrize("text", ["2 apples", "-3", "", "0", True, "1e6", "nan"])
def test_what_is_no_number_of_bytes_is_refused(text):
    with pytest.raises(UsageError, match="byte"):
        ByteBudget.parse(text)
