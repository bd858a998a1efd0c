"""Every form in which data is handed over gives the same checked batches."""

from __future__ import annotations

import gc
import json
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcomp.errors import UsageError
from qcomp.feeds import Input, calibration_batches, inputs_of, load_inputs

X = [Input("x", np.float32, ["batch", 3])]
TWO = [Input("ids", np.int64, [None, 4]), Input("mask", np.int64, [None, 4])]


def rows(count: int, width: int = 3) -> np.ndarray:
    return np.arange(count * width, dtype=np.float32).reshape(count, width)


def joined(batches, name: str = "x") -> np.ndarray:
    return np.concatenate([batch[name] for batch in batches()])


class Reader:
    """An ONNX Runtime CalibrationDataReader: ``get_next`` gives dicts, then None."""

    def __init__(self, arrays: np.ndarray) -> None:
        self.arrays, self.next = arrays, 0

    def get_next(self) -> dict[str, np.ndarray] | None:
        if self.next == len(self.arrays):
            return None
        self.next += 1
        return {"x": self.arrays[self.next - 1 : self.next]}

    def rewind(self) -> None:
        self.next = 0


def as_npz(tmp_path: Path) -> object:
    np.savez(tmp_path / "x.npz", x=rows(10))
    return tmp_path / "x.npz"


def as_packed_npz(tmp_path: Path) -> object:
    np.savez_compressed(tmp_path / "x.npz", x=rows(10))
    return str(tmp_path / "x.npz")


def as_npy(tmp_path: Path) -> object:
    np.save(tmp_path / "any.npy", rows(10))
    return tmp_path / "any.npy"


def as_column_major(tmp_path: Path) -> object:
    np.savez(tmp_path / "x.npz", x=np.asfortranarray(rows(10)))
    return tmp_path / "x.npz"


def as_used_reader(tmp_path: Path) -> object:
    reader = Reader(rows(10))
    reader.get_next()
    return reader


def as_torch_tensors(tmp_path: Path) -> object:
    torch = pytest.importorskip("torch")
    return {"x": torch.from_numpy(rows(10)).requires_grad_()}


def as_torch_loader(tmp_path: Path) -> object:
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.from_numpy(rows(10)), torch.arange(10))
    return torch.utils.data.DataLoader(data, batch_size=4)


FORMS = {
    "npz": as_npz,
    "packed npz": as_packed_npz,
    "npy": as_npy,
    "column-major npz": as_column_major,
    "dict": lambda _: {"x": rows(10)},
    "dict of lists": lambda _: {"x": rows(10).tolist()},
    "array": lambda _: rows(10),
    "list of dicts": lambda _: [{"x": rows(10)[:7]}, {"x": rows(10)[7:]}],
    "generator of dicts": lambda _: ({"x": row[None]} for row in rows(10)),
    "list of tuples": lambda _: [(rows(10), np.arange(10))],
    "list of arrays": lambda _: [rows(10)[:1], rows(10)[1:]],
    "data reader": lambda _: Reader(rows(10)),
    "used data reader": as_used_reader,
    "torch tensors": as_torch_tensors,
    "torch loader": as_torch_loader,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_samples_in_every_round(form: str, tmp_path: Path) -> None:
    batches = calibration_batches(FORMS[form](tmp_path), X, batch_size=4)
    for _ in range(3):
        np.testing.assert_array_equal(joined(batches), rows(10))
    assert batches.samples == 10
    assert all(batch["x"].dtype == np.float32 for batch in batches())


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_cut_to_the_batch_that_the_model_fixes(form: str, tmp_path: Path) -> None:
    fixed = [Input("x", np.float32, [5, 3])]
    batches = calibration_batches(FORMS[form](tmp_path), fixed, batch_size=4)
    assert [batch["x"].shape for batch in batches()] == [(5, 3), (5, 3)]
    np.testing.assert_array_equal(joined(batches), rows(10))


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=8),
    st.integers(1, 7),
)
@settings(max_examples=60, deadline=None)
def test_cutting_and_joining_keeps_every_sample_in_order(sizes: list[int], fixed: int) -> None:
    total = sum(sizes)
    whole, start, parts = rows(total), 0, []
    for size in sizes:
        parts.append({"x": whole[start : start + size]})
        start += size
    inputs = [Input("x", np.float32, [fixed, 3])]
    if total < fixed:
        with pytest.raises(UsageError, match="do not divide"):
            calibration_batches(parts, inputs)
        return
    batches = calibration_batches(parts, inputs)
    if total % fixed:
        with pytest.raises(UsageError, match=f"exactly {fixed} samples, {total} do not divide"):
            list(batches())
    else:
        assert {batch["x"].shape for batch in batches()} == {(fixed, 3)}
        np.testing.assert_array_equal(joined(batches), whole)


def test_two_rounds_may_run_side_by_side() -> None:
    batches = calibration_batches(({"x": row[None]} for row in rows(6)), X)
    for first, second in zip(batches(), batches(), strict=True):
        np.testing.assert_array_equal(first["x"], second["x"])


def test_a_shuffling_loader_gives_the_same_order_in_every_round() -> None:
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.from_numpy(rows(64)))
    loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True)
    batches = calibration_batches(loader, X)
    np.testing.assert_array_equal(joined(batches), joined(batches))


def test_a_loader_of_dicts_and_of_bfloat16_is_read() -> None:
    torch = pytest.importorskip("torch")
    items = [{"x": torch.tensor([1.0, 2.0, 3.0], dtype=torch.bfloat16), "y": 1}] * 4
    batches = calibration_batches(torch.utils.data.DataLoader(items, batch_size=2), X)
    np.testing.assert_array_equal(joined(batches), np.tile([[1, 2, 3]], (4, 1)))


def test_torch_is_not_imported_for_data_without_it() -> None:
    import subprocess

    code = (
        "import sys, numpy as np\n"
        "from qcomp.feeds import calibration_batches\n"
        "list(calibration_batches({'x': np.ones((2, 3))}, [('x', 'float32', [None, 3])])())\n"
        "print('torch' in sys.modules, 'PIL' in sys.modules, 'onnx' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "False"]


def test_an_onnx_runtime_reader_of_its_own_class_is_read() -> None:
    from onnxruntime.quantization import CalibrationDataReader

    class Own(CalibrationDataReader):
        def __init__(self) -> None:
            self.items = iter([{"x": rows(2)}, {"x": rows(3)}])

        def get_next(self):
            return next(self.items, None)

    batches = calibration_batches(Own(), X)
    assert [len(batch["x"]) for batch in batches()] == [2, 3] == [len(b["x"]) for b in batches()]


def test_a_large_stream_is_kept_on_disk_and_not_in_memory() -> None:
    def stream() -> Iterator[dict[str, np.ndarray]]:
        for index in range(100):
            yield {"x": np.full((1 << 18, 3), index, np.float32)}

    tracemalloc.start()
    batches = calibration_batches(stream(), X)  # 300 MB
    for index, batch in enumerate(batches()):
        assert batch["x"][0, 0] == index
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del batches
    gc.collect()
    assert peak < 150e6


def test_a_large_file_is_read_in_constant_memory(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros((1 << 23, 3), np.float32))  # 100 MB
    tracemalloc.start()
    batches = calibration_batches(tmp_path / "x.npz", X, batch_size=1 << 14)
    assert sum(len(batch["x"]) for batch in batches()) == 1 << 23
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10e6


def test_other_arrays_are_left_out_and_named_once_every_input_is_there() -> None:
    batches = calibration_batches({"x": rows(4), "y": np.arange(9)}, X)
    assert list(next(batches())) == ["x"]
    assert batches.ignored == ("y",)


def test_arrays_that_the_steps_name_for_the_evaluation_are_not_called_ignored() -> None:
    data = {"a": rows(4), "b": rows(5), "c": np.zeros(5), "d": np.zeros(2)}
    steps = {"from": "a", "eval": "b", "labels": "c"}
    assert calibration_batches(data, X, preprocess=steps).ignored == ("d",)


def test_two_inputs_keep_the_order_of_the_model() -> None:
    ids = np.ones((5, 4), np.int32)
    batches = calibration_batches({"mask": ids.astype(np.int8), "ids": ids}, TWO, batch_size=2)
    assert [list(batch) for batch in batches()] == [["ids", "mask"]] * 3
    by_place = calibration_batches([(ids, ids, np.zeros(5))], TWO)
    assert list(next(by_place())) == ["ids", "mask"]


def test_a_wholly_fixed_input_and_a_scalar_go_with_every_batch() -> None:
    inputs = [
        Input("x", np.float32, [None, 3]),
        Input("table", np.float32, [7, 2]),
        Input("level", np.float32, []),
    ]
    data = {"x": rows(5), "table": np.ones((7, 2)), "level": 0.5}
    for batch in calibration_batches(data, inputs, batch_size=2)():
        assert batch["table"].shape == (7, 2)
        assert batch["level"].shape == ()
    with pytest.raises(UsageError, match=r"'table' has shape \[5, 2\], the model takes \[7, 2\]"):
        calibration_batches({**data, "table": np.ones((5, 2))}, inputs)


def test_a_model_without_any_sample_axis_takes_its_arrays_as_they_are() -> None:
    inputs = [Input("a", np.float32, [2, 3]), Input("b", np.float32, [4])]
    batches = calibration_batches({"a": np.ones((2, 3)), "b": np.ones(4)}, inputs)
    assert [{n: a.shape for n, a in batch.items()} for batch in batches()] == [
        {"a": (2, 3), "b": (4,)}
    ]


def test_inputs_come_from_the_graph_without_its_defaults() -> None:
    import onnx
    import onnx_ir as ir

    text = """
        <ir_version: 10, opset_import: ["" : 21]>
        g (float16[N, 3] x, float[3] w, int64[2, M] i) => (float16[N, 3] y)
        <float[3] w = {1, 2, 3}> { y = Identity(x) }
    """
    inputs = inputs_of(ir.from_proto(onnx.parser.parse_model(text)))
    assert inputs == [Input("x", np.float16, ["N", 3]), Input("i", np.int64, [2, "M"])]


def test_whole_arrays_are_loaded_for_a_run(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=rows(100).astype(np.float64))
    loaded = load_inputs(tmp_path / "x.npz", X)
    assert loaded["x"].dtype == np.float32
    np.testing.assert_array_equal(loaded["x"], rows(100))
    assert np.isnan(load_inputs({"x": np.full((2, 3), np.nan)}, X)["x"]).all()


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (np.array([[1.5, -2.0, 1e-30]], np.float64), np.float32),
        (np.array([[0, 255, 7]], np.uint8), np.float32),
        (np.array([[True, False, True]]), np.float32),
        (np.array([[2**40, -5, 0]], np.int64), np.float32),
        (np.array([[1, -5, 0]], np.int16), np.int64),
        (np.array([[1, 5, 127]], np.int64), np.int8),
        (np.array([[1, 5, 2**62]], np.uint64), np.int64),
        (np.array([[0, 1, 1]], np.int64), np.bool_),
        (np.array([[1.5, 2.5, 0]], np.float32), np.float16),
        (np.array([[1, 2, 3]], ">f4"), np.float32),
    ],
)
def test_a_cast_keeps_the_values_but_for_rounding(values: np.ndarray, wanted: type) -> None:
    batch = next(calibration_batches({"x": values}, [("x", wanted, [None, 3])])())
    assert batch["x"].dtype == wanted
    assert batch["x"].dtype.isnative
    np.testing.assert_allclose(batch["x"].astype(np.float64), values.astype(np.float64), rtol=1e-3)


def test_a_type_of_ml_dtypes_is_cast_to() -> None:
    import ml_dtypes

    batch = next(calibration_batches({"x": rows(1)}, [("x", ml_dtypes.bfloat16, [None, 3])])())
    assert batch["x"].dtype == ml_dtypes.bfloat16


def images(folder: Path, sizes: list[tuple[int, int]]) -> None:
    from PIL import Image

    for index, (width, height) in enumerate(sizes):
        place = folder / f"class{index % 2}"
        place.mkdir(parents=True, exist_ok=True)
        suffix = ("png", "jpg", "JPEG")[index % 3]
        colour = (10 * index, 20, 30)
        Image.new("RGB", (width, height), colour).save(place / f"{index}.{suffix}")


def test_a_folder_of_images_is_resized_normalised_and_laid_out(tmp_path: Path) -> None:
    images(tmp_path / "set", [(40, 30), (20, 20), (64, 32)])
    (tmp_path / "notes.txt").write_text("no image")
    steps = {"resize": [8, 12], "scale": 1 / 255, "mean": [0, 0.1, 0.2], "layout": "NCHW"}
    inputs = [Input("input", np.float32, ["n", 3, 8, 12])]
    batches = calibration_batches(tmp_path / "set", inputs, preprocess=steps, batch_size=2)
    assert batches.samples == 3
    got = joined(batches, "input")
    # Files in the order of their paths: class0/0.png, class0/2.JPEG, class1/1.jpg.
    expected = np.array([0, 20, 10])[:, None] / 255 - [0.0]
    np.testing.assert_allclose(got.mean(axis=(2, 3))[:, :1], expected, atol=0.01)
    np.testing.assert_allclose(got[:, 1], 20 / 255 - 0.1, atol=0.01)
    np.testing.assert_allclose(got[:, 2], 30 / 255 - 0.2, atol=0.01)


def test_images_of_one_size_need_no_steps_and_grey_ones_have_one_channel(tmp_path: Path) -> None:
    images(tmp_path / "set", [(5, 4), (5, 4)])
    plain = calibration_batches(tmp_path / "set", [Input("x", np.uint8, [None, 4, 5, 3])])
    assert next(plain())["x"].shape == (2, 4, 5, 3)
    grey = [Input("x", np.float32, [None, 1, 4, 5])]
    steps = {"channels": 1, "layout": "NCHW"}
    assert next(calibration_batches(tmp_path / "set", grey, preprocess=steps)())["x"].shape == (
        2, 1, 4, 5,
    )  # fmt: skip


def test_shorter_side_and_crop_cut_the_middle(tmp_path: Path) -> None:
    from PIL import Image

    picture = np.zeros((20, 60, 3), np.uint8)
    picture[:, 20:40] = 200
    (tmp_path / "set").mkdir()
    Image.fromarray(picture).save(tmp_path / "set" / "a.png")
    inputs = [Input("x", np.float32, [None, 6, 6, 3])]
    steps = {"resize": 10, "crop": [6, 6]}
    from_file = next(calibration_batches(tmp_path / "set", inputs, preprocess=steps)())["x"]
    np.testing.assert_array_equal(from_file, 200)
    # The same from an array.
    from_array = next(calibration_batches({"x": picture[None]}, inputs, preprocess=steps)())["x"]
    np.testing.assert_array_equal(from_array, from_file)


def test_steps_are_read_by_input_and_for_the_only_input(tmp_path: Path) -> None:
    data = {"a": np.full((4, 6), 10, np.uint8), "b": np.full((4, 4), 3, np.int16)}
    file = tmp_path / "steps.json"
    file.write_text(json.dumps({"ids": {"from": "b"}, "mask": {"from": "a", "slice": [1, -1]}}))
    batch = next(calibration_batches(data, TWO, preprocess=file)())
    assert (batch["ids"] == 3).all()
    assert (batch["mask"] == 10).all()
    one = {"from": "a", "slice": [None, 3], "scale": 0.1, "mean": 0.5, "std": [1, 2, 4]}
    batch = next(calibration_batches(data, X, preprocess=one)())
    np.testing.assert_allclose(batch["x"], [[0.5, 0.25, 0.125]] * 4, rtol=1e-6)


def test_the_only_array_needs_no_name_where_there_are_steps(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", pixels=np.ones((2, 4), np.uint8))
    inputs = [Input("x", np.float32, [None, 1, 2, 2])]
    batch = next(
        calibration_batches(tmp_path / "d.npz", inputs, preprocess={"reshape": [1, 2, 2]})()
    )
    assert batch["x"].shape == (2, 1, 2, 2)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC->NCHW", " NHWC -> NCHW "])
def test_a_layout_moves_axes_and_channels(layout: str) -> None:
    raw = np.arange(2 * 2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 2, 3)
    inputs = [Input("x", np.float32, [None, 3, 2, 2])]
    steps = {"layout": layout, "std": [1, 2, 3]}
    batch = next(calibration_batches({"x": raw}, inputs, preprocess=steps)())
    expected = (raw / [1, 2, 3]).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(batch["x"], expected, rtol=1e-6)


def test_a_function_of_the_current_folder_makes_the_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_feeds_fn.py").write_text(
        "def make(arrays):\n    return {'x': arrays['raw'] * 2.0 + arrays['shift']}\n"
    )
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "d.npz", raw=rows(7), shift=np.float64(1), other=np.zeros(3))
    before = list(sys.path)
    batches = calibration_batches("d.npz", X, preprocess="my_feeds_fn:make", batch_size=3)
    assert sys.path == before
    np.testing.assert_array_equal(joined(batches), rows(7) * 2 + 1)
    assert batches.samples == 7


def test_a_function_is_also_called_on_batches_of_an_iterable() -> None:
    def make(arrays):
        return {"x": arrays["raw"] + 1}

    batches = calibration_batches([{"raw": rows(2)}, {"raw": rows(3)}], X, preprocess=make)
    assert [batch["x"][0, 0] for batch in batches()] == [1, 1]
