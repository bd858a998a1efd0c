"""Included files: only inside the source's folder, within bounds, never in a circle."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from qcomp.errors import QcompError, SourceError
from qcomp.frontends.openqasm import syntax as s
from qcomp.frontends.openqasm.limits import MAX_INCLUDE_DEPTH, MAX_INCLUDED_BYTES, MAX_INCLUDES
from qcomp.frontends.openqasm.parser import decode
from qcomp.frontends.openqasm.values import fail

__all__ = ["Includes"]


class Includes:
    """Opens included files.

    Args:
        folder: The source's folder; None for text without one, which can include nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = None if folder is None else folder.resolve()
        self.open_now: list[Path] = []
        self.done: set[Path] = set()
        self.bytes = 0
        self.count = 0

    @contextmanager
    def open(self, node: s.Include) -> Iterator[str]:
        """Return an included file's text; the file counts as open while the context is.

        Raises:
            SourceError: If the file is outside the folder, missing, too large, or open already.
        """
        path = self._resolve(node)
        self.count += 1
        if path in self.open_now:
            fail(node, f'"{node.path}" includes itself')
        if path in self.done:
            fail(node, f'"{node.path}" is included twice')
        if len(self.open_now) >= MAX_INCLUDE_DEPTH:
            fail(node, f"includes nested more than {MAX_INCLUDE_DEPTH} levels deep")
        if self.count > MAX_INCLUDES:
            fail(node, f"more than {MAX_INCLUDES} includes")
        try:
            size = path.stat().st_size
            if self.bytes + size > MAX_INCLUDED_BYTES:
                fail(node, f"the included files have more than {MAX_INCLUDED_BYTES} bytes")
            data = path.read_bytes()
        except OSError as error:
            fail(node, f'"{node.path}" cannot be read', why=error.strerror or "")
        self.bytes += len(data)
        self.open_now.append(path)
        self.done.add(path)
        try:
            yield decode(data)
        except UnicodeError as error:
            fail(node, f'"{node.path}" cannot be read', why=str(error))
        finally:
            self.open_now.pop()

    def _resolve(self, node: s.Include) -> Path:
        hint = (
            'only "stdgates.inc", "qelib1.inc", "hqslib1.inc" and files in the source\'s folder '
            "can be included"
        )
        if self.folder is None:
            fail(
                node,
                f'"{node.path}" cannot be included',
                why="the source is text, it has no folder",
                hint="read the source from its file, or give folder=...",
            )
        parts = PurePosixPath(node.path.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or ":" in node.path or "\0" in node.path:
            fail(node, f'"{node.path}" leaves the source\'s folder', hint=hint)
        try:
            path = (self.folder / parts).resolve()
        except (OSError, RuntimeError, ValueError):
            fail(node, f'"{node.path}" cannot be read')
        if not path.is_relative_to(self.folder):
            fail(node, f'"{node.path}" leaves the source\'s folder by a link', hint=hint)
        try:
            found = path.is_file()
        except (OSError, ValueError):
            found = False
        if not found:
            fail(node, f'"{node.path}" is not there', hint=hint)
        return path

    @staticmethod
    def inside(node: s.Include, error: QcompError) -> SourceError:
        """Return an error of an included file, placed there and at the include."""
        line = getattr(error, "line", 0)
        column = getattr(error, "column", 0)
        inner = f"{node.path}, {error.where}" if error.where else node.path
        return SourceError(
            error.what,
            where=f"{inner}, included at line {node.line}, column {node.column}",
            why=error.why,
            hint=error.hint,
            line=line or node.line,
            column=column or node.column,
        )
