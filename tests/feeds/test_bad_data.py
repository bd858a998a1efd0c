"""Data that cannot be used gets one clear error that says what to do."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qcomp.errors import QcompError, UsageError
from qcomp.feeds import Input, calibration_batches, labels_for

X = [Input("input", np.float32, ["batch", 3])]
TWO = [Input("ids", np.int64, [None, 4]), Input("mask", np.int64, [None, 4])]
IMAGE = [Input("input", np.float32, [None, 3, 8, 9])]
GOOD = np.ones((4, 3), np.float32)


def nan_at(row: int, column: int, value: float = np.nan) -> np.ndarray:
    data = np.ones((100, 3), np.float32)
    data[row, column] = value
    return data


CASES = {
    "a wrong name": (X, {"inputs": GOOD}, "no array for the model's input 'input'", "'inputs'?"),
    "no near name": (X, {"zzz": GOOD}, "model's input 'input'", "known names: zzz"),
    "one of two": (TWO, {"ids": np.ones((2, 4), int)}, "input 'mask'", "the data holds 'ids'"),
    "an empty dict": (X, {}, "input 'input'", "nothing"),
    "a wrong width": (X, {"input": np.ones((4, 5))}, "shape [n, 5], the model takes [n, 3]", ""),
    "a missing axis": (X, {"input": np.ones(3)}, "shape [n]", "one sample was given"),
    "an axis too many": (X, {"input": np.ones((4, 1, 3))}, "shape [n, 1, 3]", '"reshape": [3]'),
    "channels last": (IMAGE, {"input": np.ones((2, 8, 9, 3))}, "[n, 3, 8, 9]", '"layout": "NCHW"'),
    "one number": (X, {"input": 1.0}, "one number", "samples come on the first axis"),
    "floats as ids": (TWO[:1], {"ids": np.ones((2, 4))}, "is float64, the model takes int64", ""),
    "complex": (X, {"input": np.ones((2, 3), complex)}, "is complex128", "array of float32"),
    "text": (X, {"input": np.array([["a"] * 3])}, "the model takes float32", ""),
    "dates": (X, {"input": np.zeros((2, 3), "M8[s]")}, "the model takes float32", ""),
    "too large for int8": (
        [("input", np.int8, [None, 3])], {"input": np.array([[0, 0, 0], [0, 200, 0]])},
        "cannot be cast from int64 to int8", "200 would change",
    ),
    "negative for uint": (
        [("input", np.uint32, [None, 3])], {"input": np.array([[0, -1, 0]])}, "to uint32", "-1",
    ),
    "too large for int64": (
        [("input", np.int64, [None, 3])], {"input": np.full((1, 3), 2**63, np.uint64)},
        "to int64", "would change",
    ),
    "two as a truth value": (
        [("input", np.bool_, [None, 3])], {"input": [[0, 1, 2]]}, "to bool", "2 would change",
    ),
    "too large for half": (
        [("input", np.float16, [None, 3])], {"input": np.full((1, 3), 70000)},
        "to float16", "scale the values",
    ),
    "nan": (X, {"input": nan_at(70, 2)}, "holds NaN", "sample 70, position [2]"),
    "infinity": (X, {"input": nan_at(99, 0, np.inf)}, "an infinite value", "sample 99"),
    "nan in a later batch": (X, [{"input": GOOD}, {"input": nan_at(1, 1)}], "NaN", "sample 5"),
    "no sample": (X, {"input": np.ones((0, 3))}, "no sample", ""),
    "an empty list": (X, [], "no sample", ""),
    "an empty generator": (X, iter(()), "no sample", ""),
    "empty batches": (X, [{"input": np.ones((0, 3))}] * 2, "no sample", ""),
    "different counts": (
        TWO, {"ids": np.ones((3, 4), int), "mask": np.ones((4, 4), int)},
        "different numbers of samples", "'ids' has 3, 'mask' has 4",
    ),
    "different counts in a batch": (
        TWO, [(np.ones((3, 4), int), np.ones((2, 4), int))], "different numbers of samples", "",
    ),
    "too few in a tuple": (TWO, [(np.ones((3, 4), int),)], "a batch of 1 arrays", "ids, mask"),
    "one array for two": (TWO, [np.ones((3, 4), int)], "the model takes 2 arrays", "ids, mask"),
    "a ragged list": (X, {"input": [[1, 2, 3], [1, 2]]}, "cannot be made an array", ""),
    "objects": (X, {"input": np.array([{}, []], object)}, "Python objects", "never read"),
    "objects in a batch": (X, iter([{"input": np.array([None] * 3)}]), "Python objects", ""),
    "a number": (X, 7, "int is no data", "DataLoader"),
    "a batch of nothing": (X, [None], "Python objects", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_one_clear_error(case: str) -> None:
    inputs, data, what, detail = CASES[case]
    with pytest.raises(UsageError) as caught:
        for _ in calibration_batches(data, inputs)():
            pass
    message = str(caught.value)
    assert what in message.splitlines()[0]
    assert detail in message
    assert caught.value.exit_code == 2


def save(path: Path, **arrays: np.ndarray) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def fails(data: object, inputs=X, **options: object) -> str:
    with pytest.raises(UsageError) as caught:
        for _ in calibration_batches(data, inputs, **options)():
            pass
    return str(caught.value)


def test_a_missing_file_and_an_empty_folder_are_said(tmp_path: Path) -> None:
    assert "there is no file" in fails(tmp_path / "no.npz")
    assert "holds no image" in fails(tmp_path)
    (tmp_path / "empty.npz").touch()
    assert "it is empty" in fails(tmp_path / "empty.npz")
    (tmp_path / "text.npz").write_text("hello world")
    assert "neither .npz nor .npy" in fails(tmp_path / "text.npz")
    with zipfile.ZipFile(tmp_path / "none.npz", "w"):
        pass
    assert "holds no array" in fails(tmp_path / "none.npz")


def test_pickled_arrays_are_never_read(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self):
            return (Path(tmp_path / "exploded").touch, ())

    np.savez(tmp_path / "x.npz", input=np.array([Bomb()] * 3, object))
    np.save(tmp_path / "x.npy", np.array([Bomb()] * 3, object))
    (tmp_path / "exploded").unlink(missing_ok=True)
    for name in ("x.npz", "x.npy"):
        assert "holds Python objects" in fails(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


def test_records_are_not_numbers(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", input=np.zeros(4, [("a", "f4"), ("b", "i4")]))
    assert "records" in fails(tmp_path / "x.npz")


def test_a_header_that_claims_an_absurd_shape_is_met_before_any_memory_is_taken(
    tmp_path: Path,
) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 3), }\n"
    body = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 24
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("input.npy", body)
    assert "its header does not fit its size" in fails(tmp_path / "x.npz")
    (tmp_path / "x.npy").write_bytes(body)
    assert "its header does not fit its size" in fails(tmp_path / "x.npy")
    (tmp_path / "y.npy").write_bytes(body.replace(b"(1000000000000, 3)", b"(-2, 3)           "))
    assert "is damaged" in fails(tmp_path / "y.npy")


@pytest.mark.parametrize("compress", [False, True])
def test_a_file_cut_anywhere_is_damaged(tmp_path: Path, compress: bool) -> None:
    whole = tmp_path / "x.npz"
    data = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    (np.savez_compressed if compress else np.savez)(whole, input=data)
    content = whole.read_bytes()
    cut = tmp_path / "cut.npz"
    for size in range(6, len(content), 7):
        cut.write_bytes(content[:size])
        assert "damaged" in fails(cut)


@given(st.integers(0, 10_000), st.integers(1, 255))
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_file_with_a_changed_byte_is_read_right_or_refused(
    tmp_path: Path, place: int, change: int
) -> None:
    whole = tmp_path / "whole.npz"
    data = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    np.savez_compressed(whole, input=data)
    content = bytearray(whole.read_bytes())
    content[place % len(content)] ^= change
    (tmp_path / "changed.npz").write_bytes(content)
    try:
        got = np.concatenate(
            [b["input"] for b in calibration_batches(tmp_path / "changed.npz", X)()]
        )
    except UsageError:
        return
    np.testing.assert_array_equal(got, data)


def test_a_broken_image_and_images_of_different_sizes_are_named(tmp_path: Path) -> None:
    from PIL import Image

    inputs = [Input("x", np.uint8, [None, None, None, 3])]
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    Image.new("RGB", (5, 4)).save(tmp_path / "b.png")
    message = fails(tmp_path, inputs)
    assert "different sizes" in message
    assert "4 x 5" in message
    assert '"resize"' in message
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    message = fails(tmp_path, inputs)
    assert "cannot be read" in message
    assert "b.png" in message
    (tmp_path / "b.png").write_bytes(b"GIF89a not allowed")
    assert "b.png" in fails(tmp_path, inputs)
    (tmp_path / "b.png").unlink()
    assert "smaller than the crop" in fails(tmp_path, inputs, preprocess={"crop": [9, 9]})


def test_pillow_is_asked_for_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "PIL", None)
    (tmp_path / "a.png").touch()
    assert "pip install 'qcomp[images]'" in fails(tmp_path)


STEPS = {
    "an unknown step": ({"sacle": 2}, "no step 'sacle'", "'scale'"),
    "an unknown input": ({"inptu": {"scale": 2}}, "no input 'inptu'", "'input'?"),
    "a text scale": ({"scale": "2"}, "'scale' is \"2\"", "a number"),
    "a truth value": ({"mean": True}, "'mean' is true", ""),
    "an infinite mean": ({"mean": [float("inf")]}, "'mean'", ""),
    "a huge whole number": ({"mean": 10**400}, "'mean'", ""),
    "an empty list": ({"mean": []}, "'mean' is []", "at least one"),
    "zero std": ({"std": [1, 0, 1]}, "'std'", "other than zero"),
    "a layout of other axes": ({"layout": "NHWC->NCHV"}, "'layout'", "NHWC->NCHW"),
    "samples not first": ({"layout": "HWNC->NCHW"}, "'layout'", "N first"),
    "a layout of a wrong rank": ({"layout": "NCHW"}, "has 4 axes", "[4, 3]"),
    "a slice of one": ({"slice": [3]}, "'slice'", "[start, stop]"),
    "an empty slice": ({"slice": [3, 9]}, "is empty", "3 entries"),
    "a resize of three": ({"resize": [1, 2, 3]}, "'resize'", "[height, width]"),
    "a resize of zero": ({"resize": [0, 2]}, "'resize'", "above zero"),
    "resizing what is no image": ({"resize": [2, 2]}, "not a batch of images", "uint8"),
    "two channels": ({"channels": 2}, "'channels' is 2", "RGB"),
    "a list of a wrong length": ({"mean": [1, 2]}, "2 numbers", "3 channels"),
    "an impossible shape": ({"reshape": [2, 2]}, "cannot be reshaped", "[4, 3]"),
    "an unknown array": ({"from": "calib"}, "no array 'calib'", "'calib_x'?"),
    "a number as name": ({"from": 3}, "'from' is 3", "name of an array"),
    "labels of a wrong kind": ({"labels": 3}, "'labels' is 3", ""),
}


@pytest.mark.parametrize("case", STEPS)
def test_a_wrong_step_is_said(case: str, tmp_path: Path) -> None:
    steps, what, detail = STEPS[case]
    data = {"input": GOOD, "calib_x": GOOD}
    for given_steps in (steps, tmp_path / "s.json"):
        (tmp_path / "s.json").write_text(json.dumps(steps))
        message = fails(data, preprocess=given_steps)
        assert what in message.splitlines()[0]
        assert detail in message


def test_a_file_that_is_no_json_is_said_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "s.json"
    assert "there is no file" in fails({"input": GOOD}, preprocess=file)
    for content, detail in (
        (b'{"scale": 1,\n "mean" 2}', "line 2, column 9"),
        (b"", "line 1"),
        (b"\xff\xfe", "not JSON"),
        (b"[1, 2]", "JSON object"),
        (b"[" * 100_000, "not JSON"),
    ):
        file.write_bytes(content)
        assert detail in fails({"input": GOOD}, preprocess=file)


def test_two_inputs_need_steps_by_input() -> None:
    data = {"ids": np.ones((2, 4), int), "mask": np.ones((2, 4), int)}
    message = fails(data, TWO, preprocess={"slice": [0, 4]})
    assert "by input" in message
    assert "'ids', 'mask'" in message


FUNCTIONS = """
import numpy as np
def fails(arrays):
    x = 1
    return 1 / 0
def asks(arrays): return {"input": arrays["pixel"]}
def gives_array(arrays): return arrays["pixels"]
def misnames(arrays): return {"inptu": arrays["pixels"]}
def takes_all(arrays): return {"input": dict(arrays.items())["pixels"]}
number = 5
"""


@pytest.mark.parametrize(
    ("name", "what", "detail"),
    [
        ("fails", "the preprocess function failed", "line 5"),
        ("asks", "the preprocess function failed", "did you mean 'pixels'?"),
        ("gives_array", "returned ndarray", "input name -> array"),
        ("misnames", "input 'input'", "'inptu'?"),
        ("takes_all", "different numbers of samples", "'labels' has 9"),
        ("fail", "has no function 'fail'", "'fails'"),
        ("number", "is no function", ""),
    ],
)
def test_a_function_that_does_not_work_is_said(
    name: str, what: str, detail: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad_feeds_fns.py").write_text(FUNCTIONS)
    monkeypatch.chdir(tmp_path)
    data = save(tmp_path / "d.npz", pixels=GOOD, labels=np.zeros(9))
    message = fails(data, preprocess=f"bad_feeds_fns:{name}")
    assert what in message.splitlines()[0]
    assert detail in message


def test_a_module_that_is_missing_or_broken_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    message = fails({"input": GOOD}, preprocess="no_such_module:make")
    assert "there is no module 'no_such_module'" in message
    (tmp_path / "broken_feeds.py").write_text("def make(:\n")
    assert "SyntaxError" in fails({"input": GOOD}, preprocess="broken_feeds:make")
    (tmp_path / "needs_feeds.py").write_text("import not_there_at_all\n")
    assert "not_there_at_all" in fails({"input": GOOD}, preprocess="needs_feeds:make")


LABELS = {
    "too few": ({"y": np.zeros(3, int)}, "3 labels for 4 samples", "order of the samples"),
    "none": ({"a": np.zeros(4), "b": np.zeros(4)}, "no array of labels", "'a', 'b'"),
    "empty": ({"y": np.zeros(0, int)}, "there is no label", ""),
    "one number": ({"y": 3}, "there is no label", ""),
    "text": ({"y": np.array(list("abcd"))}, "cannot be scored", "class numbers"),
    "nan": ({"y": np.full(4, np.nan)}, "not finite", ""),
    "objects": ({"y": np.array([None] * 4)}, "Python objects", ""),
    "not as many as its own samples": (
        {"y": np.zeros(4, int), "input": np.ones((5, 3))}, "4 labels for 5 samples", "same file",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LABELS)
def test_wrong_labels_are_said(case: str) -> None:
    data, what, detail = LABELS[case]
    with pytest.raises(UsageError) as caught:
        labels_for(data, X, calibration=calibration_batches({"input": GOOD}, X))
    assert what in str(caught.value).splitlines()[0]
    assert detail in str(caught.value)


def test_labels_without_samples_need_calibration_data(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no calibration data"):
        labels_for({"y": np.zeros(4, int)}, X)
    with pytest.raises(UsageError, match="is a folder"):
        labels_for(tmp_path, X)
    with pytest.raises(UsageError, match="there is no file"):
        labels_for(tmp_path / "y.npz", X)
    with pytest.raises(UsageError, match="no array 'eval_y' of labels"):
        labels_for({"eval_z": GOOD, "b": GOOD}, X, preprocess={"labels": "eval_y"})


def test_a_full_disk_while_batches_are_kept_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    class Full:
        def __init__(self, **_: object) -> None:
            pass

        def tell(self) -> int:
            return 0

        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", Full)
    with pytest.raises(QcompError, match="No space left") as caught:
        calibration_batches(iter([{"input": GOOD}]), X)
    assert caught.value.exit_code == 1
