"""Pieces of work in processes that may die, and the bytes of a store that may be full."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qcomp import layer_store
from qcomp.errors import QcompError, UsageError
from qcomp.layer_store import DiskValues, LayerStore, digest
from qcomp.workers import Workers
from tests.layered_work import die, die_once, fail


def test_pieces_come_back_in_their_order_and_a_worker_that_died_is_replaced(tmp_path: Path) -> None:
    flag = str(tmp_path / "died")
    with Workers(2) as workers:
        pieces = [(number, flag) for number in range(8)]
        assert list(workers.map(die_once, pieces)) == [n * n for n in range(8)]
    assert Path(flag).exists()


def test_workers_that_die_each_time_are_one_clear_error_and_other_errors_stay_what_they_are() -> (
    None
):
    before = dict(os.environ)
    with Workers(2) as workers:
        with pytest.raises(ValueError, match="no 1"):
            list(workers.map(fail, [1, 2]))
        with pytest.raises(QcompError, match="died 3 times while it did the layer 'x'") as caught:
            list(workers.map(die, [1, 2, 3], "the layer 'x'"))
        assert "fewer --jobs" in caught.value.hint
    assert dict(os.environ) == before


@pytest.mark.skipif(os.name == "nt", reason="processes are killed by signals here")
def test_workers_end_with_the_process_that_began_them(tmp_path: Path) -> None:
    place = tmp_path / "number"
    code = f"""
from qcomp.workers import Workers
from tests.layered_work import say_and_sleep
if __name__ == "__main__":
    with Workers(2) as workers:
        list(workers.map(say_and_sleep, [{str(place)!r}]))
"""
    script = tmp_path / "script.py"
    script.write_text(code, encoding="utf-8")
    root = str(Path(__file__).parent.parent)
    process = subprocess.Popen([sys.executable, script], env={**os.environ, "PYTHONPATH": root})
    wait_until(lambda: place.exists() and place.read_text(encoding="utf-8") != "")
    process.kill()
    process.wait()
    worker = int(place.read_text(encoding="utf-8"))
    wait_until(lambda: not layer_store._runs(str(worker)))


def wait_until(done: Callable[[], bool]) -> None:
    for _ in range(3000):
        if done():
            return
        time.sleep(0.02)
    raise AssertionError("it did not happen within a minute")


def test_one_job_runs_here() -> None:
    with Workers() as workers:
        assert list(workers.map(lambda x: x + 1, [1, 2])) == [2, 3]
    with pytest.raises(UsageError, match="0 jobs"):
        Workers(0)
    with pytest.raises(UsageError, match="its own number of workers"):
        Workers(2, "tcp://localhost:1")


def test_a_scheduler_without_dask_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError, match="Dask, which is not installed"):
        Workers(1, "tcp://localhost:1")


def test_no_scheduler_at_an_address_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="Dask is not installed")
    monkeypatch.setattr("qcomp.workers._SECONDS", 1)
    with pytest.raises(UsageError, match=r"no Dask scheduler answers at 'tcp://127\.0\.0\.1:9'"):
        Workers(1, "tcp://127.0.0.1:9")
    with pytest.raises(UsageError, match="no Dask scheduler answers at 'nonsense://x'"):
        Workers(1, "nonsense://x")


def test_an_entry_comes_back_as_it_was_and_a_damaged_one_does_not(tmp_path: Path) -> None:
    store = LayerStore(tmp_path / "layers")
    levels = np.arange(12, dtype=np.int8).reshape(3, 4)
    key = digest("layer", levels)
    assert store.find(key) is None
    entry = store.put(key, {"levels": levels}, {"bits": 4})
    np.testing.assert_array_equal(entry.arrays["levels"], levels)
    again = LayerStore(tmp_path / "layers").find(key)
    assert again is not None
    assert again.facts == {"bits": 4}
    (tmp_path / "layers" / key / "0.npy").write_bytes(b"half of it")
    assert LayerStore(tmp_path / "layers").find(key) is None
    assert digest("layer", levels + np.int8(1)) != key


def test_a_folder_of_somebody_else_is_not_taken_for_finished_layers(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear", encoding="utf-8")
    with pytest.raises(UsageError, match="holds other files"):
        LayerStore(tmp_path)
    with pytest.raises(UsageError, match="no folder"):
        LayerStore(tmp_path / "letter.txt")


def test_what_a_killed_run_left_half_written_is_removed_and_what_it_finished_stays(
    tmp_path: Path,
) -> None:
    store = LayerStore(tmp_path)
    store.put("one", {"x": np.ones(3)}, {})
    for name in ("work-999999999-a", ".two.b"):
        (tmp_path / name).mkdir()
    again = LayerStore(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["one"]
    assert again.find("one") is not None
    with again.scratch() as place:
        LayerStore(tmp_path)  # a second run leaves the first one's alone
        assert place.exists()
    assert not place.exists()


def test_a_full_disk_is_said_with_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LayerStore(tmp_path)
    store.put("one", {"x": np.ones(3)}, {})

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(layer_store.np, "save", full)
    with pytest.raises(QcompError, match="the disk is full") as caught:
        store.put("two", {"x": np.ones(3)}, {})
    assert "free some space" in caught.value.hint
    assert "the same command goes on from there" in caught.value.hint
    with pytest.raises(QcompError, match="the disk is full"), store.scratch() as place:
        DiskValues(place / "0", {"x": np.ones(100_000)})
    assert store.find("one") is not None
    assert store.find("two") is None


def test_large_values_of_a_stream_lie_in_files_and_go_with_them(tmp_path: Path) -> None:
    large, small = np.arange(50_000, dtype=np.float32), np.arange(3)
    values = DiskValues(tmp_path / "0", {"large": large, "small": small})
    assert len(list((tmp_path / "0").iterdir())) == 1
    np.testing.assert_array_equal(values["large"], large)
    assert isinstance(values["large"], np.memmap)
    values["large"] = large + 1
    assert values["large"][0] == 1
    del values["large"]
    assert list(values) == ["small"]
    assert not list((tmp_path / "0").iterdir())
