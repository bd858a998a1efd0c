"""The artifact on disk, as its writer and its reader both know it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["FORMAT", "MANIFEST", "REPORT", "VERSION", "all_stages", "graph_files", "sha256"]

FORMAT = "qcomp-program"
"""Name of the format of ``program.json``."""

VERSION = 1
"""Its version; a reader refuses others."""

MANIFEST = "program.json"
"""The table of contents."""

REPORT = "report.json"
"""What the compile did."""


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def all_stages(stages: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Give every stage of ``program.json`` with its depth: 0, or 1 for those inside of a loop."""
    for stage in stages:
        yield 0, stage
        for depth, inner in all_stages(stage.get("stages", ())):
            yield depth + 1, inner


def graph_files(stages: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the files of all classical stages, those inside of loops too."""
    return [str(stage["file"]) for _, stage in all_stages(stages) if stage["kind"] == "graph"]
