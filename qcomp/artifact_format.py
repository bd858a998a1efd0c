"""The artifact on disk, as its writer and its reader both know it."""

from __future__ import annotations

import hashlib
from pathlib import Path

__all__ = ["FORMAT", "MANIFEST", "REPORT", "VERSION", "sha256"]

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
