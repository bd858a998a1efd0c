"""Outputs are written whole or not at all."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qcomp.atomic import atomic_file, atomic_folder, atomic_group
from qcomp.errors import QcompError, UsageError


@contextmanager
def full_disk(after: int) -> Iterator[None]:
    """Let writing fail beyond so many bytes a file, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fail_after(written: int) -> None:
    assert written
    raise ZeroDivisionError


def everything(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_file_appears_when_the_block_ends_and_its_folder_is_made(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "out.txt"
    with atomic_file(target) as path:
        path.write_text("new")
        assert not target.exists()
    assert everything(tmp_path) == {"a/b/out.txt": b"new"}


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_file(target) as path:
        fail_after(path.write_text("half"))
    assert everything(tmp_path) == {"out.txt": b"old"}


def test_an_error_takes_the_folders_back_that_were_made(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_file(tmp_path / "a" / "b" / "out.txt"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "out.bin"
    with pytest.raises(QcompError, match="disk is full") as caught, full_disk(1000):
        with atomic_file(target) as path:
            path.write_bytes(bytes(5000))
    assert "free some space" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(QcompError, match="cannot write"), atomic_file(tmp_path / "file" / "out"):
        pass
    with pytest.raises(UsageError, match="is a folder"), atomic_file(tmp_path):
        pass


def test_files_of_a_group_arrive_together(tmp_path: Path) -> None:
    with atomic_group(tmp_path / "model.onnx") as folder:
        (folder / "model.onnx").write_text("model")
        (folder / "model.onnx.data").write_text("data")
    assert everything(tmp_path) == {"model.onnx": b"model", "model.onnx.data": b"data"}


def test_a_group_without_its_leading_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(QcompError, match="cannot write"):
        with atomic_group(tmp_path / "model.onnx") as folder:
            (folder / "model.onnx.data").write_text("data")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_the_same_kind_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "out"
    for text in ("one", "two"):
        with atomic_folder(target, marker="program.json") as folder:
            (folder / "program.json").write_text(text)
            (folder / f"{text}.txt").write_text(text)
    assert everything(tmp_path) == {"out/program.json": b"two", "out/two.txt": b"two"}


def test_an_error_keeps_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with atomic_folder(target, marker="m") as folder:
        (folder / "m").write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_folder(target, marker="m") as folder:
        fail_after((folder / "m").write_text("new"))
    assert everything(tmp_path) == {"out/m": b"old"}


def test_somebody_elses_folder_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match=r"holds no 'program\.json'"):
        with atomic_folder(tmp_path / "home", marker="program.json"):
            pass
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="not a folder"):
        with atomic_folder(tmp_path / "file", marker="program.json"):
            pass
    assert everything(tmp_path) == {"home/letter.txt": b"dear", "file": b""}
