"""A decoder on disk is compiled layer by layer: killed, resumed, shared out, always one result."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import qcomp
from benchmarks.big_decoder import (
    PIPELINES,
    Shape,
    finished,
    graph_bytes,
    kill_half_way,
    write_decoder,
    write_tokens,
)
from qcomp import layer_store, layer_work
from qcomp.errors import PassError, QcompError
from qcomp.execute import Session
from qcomp.ir.program import Program
from qcomp.model_file import model_bytes
from qcomp.passes.analyze import quantization_error
from qcomp.passes.quantize import finished_rounding, streams
from qcomp.passes.quantize.error_feedback import layerwise, rows
from qcomp.passes.quantize.learn_rounding_graph import make_twin
from qcomp.passmanager import Context
from qcomp.workers import Workers
from tests.layered_work import die_once

SHAPE = Shape(hidden=128, inner=344, heads=2, vocabulary=500)
BLOCKS, TOKENS = 3, 24
LAYERS = 7 * BLOCKS + 1
GPTQ = PIPELINES["gptq"].replace("SWEEPS", "1").replace("group=128", "group=32")
ROUNDING = PIPELINES["rounding"].replace("group=128", "group=32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder of 3 MB, calibration data, and what gptq makes of it without a store."""
    folder = tmp_path_factory.mktemp("decoder")
    blocks = write_decoder(folder / "decoder.onnx", 2_900_000, SHAPE, tokens=TOKENS)
    assert blocks == BLOCKS
    write_tokens(folder / "data.npz", SHAPE, samples=4, tokens=TOKENS)
    compiled(folder, "plain")
    return folder


def call(folder: Path, out: str, pipeline: str = GPTQ, **more: object) -> dict[str, object]:
    found: dict[str, object] = {
        "source": str(folder / "decoder.onnx"),
        "target": "cpu-int4",
        "pipeline": pipeline,
        "out": str(folder / out),
        **more,
    }
    return found | ({"calibration": str(folder / "data.npz")} if pipeline == GPTQ else {})


def compiled(folder: Path, out: str, pipeline: str = GPTQ, **more: object) -> str:
    qcomp.compile(**call(folder, out, pipeline, **more))
    return graph_bytes(folder / out)


@pytest.fixture
def rounded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The layers that were rounded in this process."""
    done: list[str] = []
    inner = rows._round

    def counted(slab: rows._Slab) -> rows.RoundedRows:
        done.append(slab.label)
        return inner(slab)

    monkeypatch.setattr(rows, "_round", counted)
    return done


def test_a_compile_that_was_killed_goes_on_where_it_was_and_gives_the_same_bytes(
    folder: Path, rounded: list[str]
) -> None:
    cache = folder / "killed.layers"
    done = kill_half_way(call(folder, "killed", cache=str(cache)), cache, LAYERS // 2)
    assert LAYERS // 2 <= done < LAYERS
    assert not (folder / "killed").exists()
    assert compiled(folder, "killed", cache=cache) == graph_bytes(folder / "plain")
    assert len(rounded) == LAYERS - done
    assert finished(cache) == LAYERS
    # All there: nothing is rounded, nothing is run.
    rounded.clear()
    assert compiled(folder, "again", cache=cache) == graph_bytes(folder / "plain")
    assert not rounded


def test_other_weights_data_or_options_take_nothing_from_the_cache(
    folder: Path, tmp_path: Path, rounded: list[str]
) -> None:
    cache = tmp_path / "layers"
    compiled(folder, "first", cache=cache)
    for name in ("decoder.onnx", "decoder.onnx.data", "data.npz"):
        shutil.copy(folder / name, tmp_path / name)
    with open(tmp_path / "decoder.onnx.data", "r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(np.float32(0.5).tobytes())
    rounded.clear()
    compiled(tmp_path, "out", cache=cache)
    assert len(rounded) == LAYERS
    rounded.clear()
    write_tokens(tmp_path / "data.npz", SHAPE, samples=3, tokens=TOKENS)
    compiled(tmp_path, "out", cache=cache)
    assert len(rounded) == LAYERS
    rounded.clear()
    damped = call(tmp_path, "out", cache=cache)
    damped["pipeline"] = GPTQ.replace("gptq{", "gptq{damping=0.02,")
    qcomp.compile(**damped)
    assert len(rounded) == LAYERS


def test_two_local_processes_give_the_same_bytes_and_leave_no_cache(
    folder: Path,
) -> None:
    assert compiled(folder, "two", jobs=2) == graph_bytes(folder / "plain")
    assert not (folder / "two.layers").exists()


def test_layers_that_do_not_wait_for_each_other_go_to_workers_together(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[list[str]] = []

    def at_once(
        self: Workers, function: Callable[[Any], Any], pieces: Iterable[Any], label: object
    ) -> Iterator[Any]:
        taken = list(pieces)
        handed.append([piece.label for piece in taken if isinstance(piece, rows._Slab)])
        return map(function, taken)

    monkeypatch.setattr(Workers, "map", at_once)
    assert compiled(folder, "waves", jobs=2) == graph_bytes(folder / "plain")
    factors = handed[::2]
    assert not any(factors)  # found in workers before any row is rounded
    blocks = [
        [[f"block{b}/{name}" for name in names] for names in (("q", "k", "v"), "o", ("gate", "up"))]
        + [[f"block{b}/down"]]
        for b in range(BLOCKS)
    ]
    assert handed[1::2] == [*(wave for block in blocks for wave in block), ["logits"]]


def test_the_towers_of_a_model_are_rounded_side_by_side(build: Callable[..., Program]) -> None:
    program = build(
        """g (float[n, 8] x, float[n, 8] y) => (float[n, 4] z) {
            a = MatMul(x, a1)
            b = MatMul(a, a2)
            c = MatMul(y, b1)
            d = MatMul(y, b2)
            s = Add(b, c)
            z = MatMul(s, last)
        }""",
        {
            name: np.eye(8, 4 if name == "last" else 8, dtype=np.float32)
            for name in ("a1", "a2", "b1", "b2", "last")
        },
    )
    twin = make_twin(program, Context(), "weights", 4)
    waves = layerwise._waves(twin, layerwise._groups(twin, True))
    names = [[[layer.weight for layer in group] for group in wave] for wave in waves]
    assert names == [[["a1"], ["b1", "b2"]], [["a2"]], [["last"]]]


def test_two_workers_of_a_dask_cluster_give_the_same_bytes_and_one_that_dies_is_replaced(
    folder: Path, tmp_path: Path
) -> None:
    distributed = pytest.importorskip("distributed", reason="Dask is not installed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        address = cluster.scheduler_address
        with Workers(1, address) as workers:
            pieces = [(number, str(tmp_path / "died")) for number in range(5)]
            assert list(workers.map(die_once, pieces)) == [0, 1, 4, 9, 16]
        assert compiled(folder, "dask", scheduler=address) == graph_bytes(folder / "plain")


@pytest.mark.parametrize("form", ["matmulnbits", "int8"])
def test_rounding_by_workers_or_from_the_cache_gives_the_same_bytes(
    folder: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = ROUNDING.replace("group=32", f"group=32,form={form}")
    plain = compiled(folder, f"rounded-{form}", pipeline)
    cache = folder / f"{form}.layers"
    jobs = 2 if form == "int8" else 1
    assert compiled(folder, f"workers-{form}", pipeline, jobs=jobs, cache=cache) == plain
    assert finished(cache) == LAYERS
    shutil.rmtree(sorted(cache.glob("*/entry.json"))[0].parent)
    done: list[object] = []
    inner = finished_rounding._round

    def counted(piece: finished_rounding._Piece) -> None:
        done.append(piece)
        inner(piece)

    monkeypatch.setattr(finished_rounding, "_round", counted)
    assert compiled(folder, f"again-{form}", pipeline, cache=cache) == plain
    assert len(done) == 1


def test_no_more_than_one_block_of_weights_is_run_at_a_time_and_activations_lie_on_disk(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    held: list[int] = []
    inner = Session.__init__

    def counted(self: Session, model: object, *more: object, **named: object) -> None:
        if not isinstance(model, (str, Path)):
            sizes.append(model_bytes(model))  # type: ignore[arg-type]
        inner(self, model, *more, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Session, "__init__", counted)
    put = layer_store.DiskValues.__setitem__

    def weighed(self: layer_store.DiskValues, name: str, value: object) -> None:
        put(self, name, value)  # type: ignore[arg-type]
        held.append(sum(a.nbytes for a in self._kept.values() if isinstance(a, np.ndarray)))

    monkeypatch.setattr(layer_store.DiskValues, "__setitem__", weighed)
    monkeypatch.setattr(layer_store, "_SMALL", 1 << 12)
    # As for models that are larger than these limits.
    monkeypatch.setattr(quantization_error, "_RUN_LIMIT", 0)
    monkeypatch.setattr(streams, "_WEIGHTS", 1 << 17)
    made = compiled(folder, "bounded", cache=folder / "bounded.layers")
    assert made == graph_bytes(folder / "plain")
    whole = (folder / "decoder.onnx.data").stat().st_size
    block = 4 * (4 * SHAPE.hidden**2 + 3 * SHAPE.hidden * SHAPE.inner)
    assert len(sizes) > 4 * BLOCKS
    assert max(sizes) <= block < whole / 3
    assert len(held) > 10
    assert max(held) < 4 * 4 * TOKENS * SHAPE.hidden  # one value between two products
    # The artifact was compared with the source, part by part.
    checks = qcomp.load(folder / "bounded").report["checks"]
    assert checks[0]["result"] == "measured"
    plain = qcomp.load(folder / "plain").report["checks"][0]
    said = [float(re.findall(r"logits ([0-9.]+) dB", c["how"])[0]) for c in (checks[0], plain)]
    assert abs(said[0] - said[1]) < 1.0


def test_a_full_disk_is_said_and_what_was_finished_is_not_lost(
    folder: Path, monkeypatch: pytest.MonkeyPatch, rounded: list[str]
) -> None:
    cache = folder / "full.layers"
    with monkeypatch.context() as patched:
        inner = np.save

        def save(place: object, array: object, **named: object) -> None:
            if finished(cache) >= 5:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            inner(place, array, **named)  # type: ignore[arg-type]

        patched.setattr(layer_store.np, "save", save)
        with pytest.raises(QcompError, match="the disk is full") as caught:
            compiled(folder, "full", jobs=1, cache=cache)
    assert "the same command goes on from there" in str(caught.value)
    assert not (folder / "full").exists()
    rounded.clear()
    assert compiled(folder, "full", cache=cache) == graph_bytes(folder / "plain")
    assert len(rounded) == LAYERS - 5


def test_another_error_says_what_is_kept_and_an_early_one_loses_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = rows._round

    def broken(slab: rows._Slab) -> rows.RoundedRows:
        if slab.label == "block1/o":
            raise PassError("something is wrong", hint="mend it")
        return inner(slab)

    monkeypatch.setattr(rows, "_round", broken)
    monkeypatch.setattr(layer_work, "INLINE_LIMIT", 1 << 20)  # as for a large model
    with pytest.raises(PassError) as caught:
        compiled(folder, "broken")
    assert caught.value.hint.startswith("mend it; the layers that were finished are kept in")
    done = finished(folder / "broken.layers")
    assert done >= 7
    # An error before the layers are looked for loses none of them.
    with pytest.raises(QcompError) as early:
        compiled(folder, "broken", f"store-weights,quantize-static,{GPTQ.strip()}")
    assert "are kept in" not in early.value.hint
    assert finished(folder / "broken.layers") == done


def test_inputs_that_are_dead_and_a_hessian_of_rank_one_are_no_trouble_for_workers(
    folder: Path, tmp_path: Path
) -> None:
    model = onnx.load(folder / "decoder.onnx", load_external_data=False)
    gain = np.ones(SHAPE.hidden, np.float32)
    gain[:40] = 0.0  # forty inputs of each product behind a normalization are zero
    for tensor in model.graph.initializer:
        if tensor.name == "gain":
            tensor.CopyFrom(onnx.numpy_helper.from_array(gain, "gain"))
    onnx.save(model, tmp_path / "decoder.onnx")
    shutil.copy(folder / "decoder.onnx.data", tmp_path / "decoder.onnx.data")
    np.savez(tmp_path / "data.npz", tokens=np.full((2, TOKENS), 7))
    one = compiled(tmp_path, "one")
    assert compiled(tmp_path, "two", jobs=2) == one
    logits = qcomp.load(tmp_path / "two").run({"tokens": np.full((1, TOKENS), 7)})["logits"]
    assert np.isfinite(logits).all()


def test_ctrl_c_says_what_is_kept_and_the_same_command_goes_on(folder: Path) -> None:
    arguments = ["decoder.onnx", "-t", "cpu-int4", "--calib", "data.npz", "-o", "stopped"]
    command = [
        *(sys.executable, "-m", "qcomp", "compile", *arguments),
        *("--cache", "stopped.layers", "-p", GPTQ.replace("sweeps=1", "sweeps=9,refits=9")),
    ]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and finished(folder / "stopped.layers") < 3:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    assert process.returncode == 130
    assert re.search(r"layers that were finished are kept in '.*stopped\.layers'", said)
    assert "nothing half-written" in said
    done = finished(folder / "stopped.layers")
    assert 3 <= done < LAYERS
    assert not [p for p in (folder / "stopped.layers").iterdir() if p.name.startswith("work-")]
    shutil.rmtree(folder / "stopped.layers")
