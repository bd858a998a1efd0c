"""Outputs are written whole or not at all: a temporary place beside the target, then a rename.

The guarantee holds against errors, interrupts and full disks, not against a loss of power
(nothing is forced to the platter: a compile can be repeated).
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from qcomp.errors import QcompError, UsageError

__all__ = ["atomic_file", "atomic_folder", "atomic_group", "is_full", "writing"]

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def is_full(error: OSError) -> bool:
    """Whether a disk, or somebody's share of it, is full."""
    # NumPy's own writer tells it by its text alone.
    return error.errno in _FULL or "requested and" in str(error)


@contextlib.contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn an operating-system error met while writing ``target`` into one clear error.

    Args:
        target: What is being written, for the message.

    Raises:
        QcompError: On any ``OSError``; a full disk is called by its name.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if is_full(error):
            raise QcompError(
                f"the disk is full: '{target}' was not written",
                why=reason,
                hint="free some space or choose another place; nothing was left behind",
            ) from error
        if error.filename is not None and Path(str(error.filename)) != target:
            reason = f"{reason}: '{error.filename}'"
        raise QcompError(f"cannot write '{target}'", why=reason) from error


@contextlib.contextmanager
def atomic_file(target: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``target``; rename it to ``target`` when the block ends well.

    A link is followed, as by every tool that writes. What is no regular file, as ``/dev/stdout`` or
    ``/dev/null``, is never replaced: the whole content goes into it at the end.

    Args:
        target: The file to write; its folder is made when missing.

    Yields:
        The path to write to. After an error it is removed and ``target`` is as it was.

    Raises:
        QcompError: When the file cannot be written, a full disk included.
    """
    target = Path(target)
    if _is_special(target):
        with writing(target), tempfile.TemporaryDirectory(prefix="qcomp-") as scratch:
            path = Path(scratch) / "content"
            yield path
            with path.open("rb") as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)
        return
    if target.is_symlink():
        target = target.resolve()
    with atomic_group(target) as folder:
        yield folder / target.name


@contextlib.contextmanager
def atomic_group(target: str | Path) -> Iterator[Path]:
    """Write files that belong together: ``target`` and its companions in the same folder.

    The companions are renamed first and ``target`` last, so that a reader who finds the new
    ``target`` finds all it refers to.

    Args:
        target: The leading file; its folder is made when missing.

    Yields:
        A temporary folder. It must hold a file named ``target.name`` when the block ends.

    Raises:
        QcompError: When the files cannot be written, a full disk included.
    """
    target = Path(target)
    with writing(target):
        if target.is_dir():
            raise UsageError(f"'{target}' is a folder", hint="give the name of a file inside of it")
        if _is_special(target):
            raise UsageError(
                f"'{target}' is a device or a pipe, and this is written as files beside each other",
                hint="give the name of a file",
            )
        with _scratch(target) as scratch:
            yield scratch
            names = sorted(entry.name for entry in scratch.iterdir())
            if target.name not in names:
                raise FileNotFoundError(errno.ENOENT, "nothing was written", str(target))
            names.remove(target.name)
            for name in (*names, target.name):
                os.replace(scratch / name, target.parent / name)


@contextlib.contextmanager
def atomic_folder(target: str | Path, *, marker: str) -> Iterator[Path]:
    """Give a temporary folder beside ``target``; rename it to ``target`` when the block ends well.

    A folder that is there already is replaced only when it is empty or holds ``marker``, so a
    mistyped output never deletes somebody's files.

    Args:
        target: The folder to write.
        marker: Name of the file by which a folder of this kind is known, as ``program.json``.

    Yields:
        The folder to fill. After an error it is removed and ``target`` is as it was.

    Raises:
        UsageError: When ``target`` is something else than a folder of this kind.
        QcompError: When the folder cannot be written, a full disk included.
    """
    target = Path(target)
    with writing(target):
        _refuse_foreign(target, marker)
        with _scratch(target) as scratch:
            fresh, old = scratch / "new", scratch / "old"
            fresh.mkdir()
            yield fresh
            _refuse_foreign(target, marker)
            if not target.exists():
                os.replace(fresh, target)
                return
            os.replace(target, old)
            try:
                os.replace(fresh, target)
            except BaseException:
                os.replace(old, target)
                raise


@contextlib.contextmanager
def _scratch(target: Path) -> Iterator[Path]:
    """Give a new hidden folder beside ``target`` and remove it, whatever happens."""
    parents = [folder for folder in (target.parent, *target.parent.parents) if not folder.exists()]
    scratch: Path | None = None
    done = False
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            yield scratch
        except QcompError as error:
            # What failed inside is told by the name that the user gave.
            error.what = _public(error.what, scratch, target)
            error.where = _public(error.where, scratch, target)
            raise
        done = True
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        if not done:
            for folder in parents:
                with contextlib.suppress(OSError):
                    folder.rmdir()


def _public(text: str, scratch: Path, target: Path) -> str:
    """Return a message with the target in place of the hidden folder it is made in."""
    return text.replace(str(scratch / "new"), str(target)).replace(str(scratch), str(target.parent))


def _is_special(target: Path) -> bool:
    """Whether there is something that is neither a regular file nor a folder: a device, a pipe."""
    try:
        mode = target.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _refuse_foreign(target: Path, marker: str) -> None:
    """Raise unless ``target`` may be replaced by a folder that holds ``marker``."""
    if not os.path.lexists(target):
        return
    if not target.is_dir() or target.is_symlink():
        raise UsageError(f"'{target}' is there and is not a folder", hint="choose another output")
    if any(target.iterdir()) and not (target / marker).is_file():
        raise UsageError(
            f"the folder '{target}' is not empty and holds no '{marker}'",
            why="it was not written by this tool, so it is not replaced",
            hint="choose another output, or remove the folder",
        )
