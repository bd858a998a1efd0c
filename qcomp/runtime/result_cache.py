"""Results of devices kept on disk by content: circuit, parameters, readout, shots, seed, device.

Each result is one file named by the hash of everything that it follows from, the versions of qcomp
and of the device's package included. Files lie in ``QCOMP_HOME/results``, else where the system
keeps what programs can make again. The oldest are removed when all take more than ``MAX_BYTES``.
``QCOMP_CACHE=off`` in the environment keeps and reads nothing.
"""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qcomp.atomic import atomic_file
from qcomp.errors import QcompError
from qcomp.ir.circuit import Circuit
from qcomp.ir.program import Readout
from qcomp.registry import load
from qcomp.runtime.estimates import Estimate

__all__ = ["MAX_BYTES", "key_of", "kept", "keep", "results_folder"]

MAX_BYTES = 256 << 20
"""Bytes that the results may take together."""

PACKAGES = {
    "aer": "qiskit-aer",
    "lightning": "pennylane-lightning",
    "braket": "amazon-braket-default-simulator",
    "ibm": "qiskit-ibm-runtime",
}
"""Device -> the package whose version its results depend on."""


def results_folder() -> Path:
    """Return the folder of this user's results."""
    home = os.environ.get("QCOMP_HOME")
    if home:
        return Path(home) / "results"
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "qcomp" / "results"


def key_of(
    device: str,
    circuit: Circuit,
    readout: Readout,
    rows: NDArray[np.float64],
    shots: int | None,
    seed: int,
    rest: object = None,
) -> str:
    """Return the name of a result.

    Args:
        device: The device.
        circuit: The circuit; its text and its layout count.
        readout: What is read out.
        rows: float64[B, P].
        shots: Shots in place of the readout's own.
        seed: Seed of the shots.
        rest: Noise and what is done about it.
    """
    layout = None if circuit.layout is None else circuit.layout.to_dict()
    package = PACKAGES.get(device.partition(":")[0], "")
    try:
        version = metadata.version(package) if package else ""
    except metadata.PackageNotFoundError:
        version = ""
    qcomp_version = metadata.version("qcomp") if _is_installed() else ""
    digest = hashlib.sha256()
    parts = (device, version, qcomp_version, circuit.params, layout, readout, shots, seed, rest)
    digest.update(repr(parts).encode())
    digest.update(load("services", "write-qasm")(circuit, "full").encode())
    digest.update(repr(rows.shape).encode() + np.ascontiguousarray(rows).tobytes())
    return digest.hexdigest()


def _is_installed() -> bool:
    try:
        metadata.version("qcomp")
    except metadata.PackageNotFoundError:
        return False
    return True


def _off() -> bool:
    return os.environ.get("QCOMP_CACHE", "").lower() in ("off", "0", "no")


def kept(key: str) -> Estimate | None:
    """Return a result that is on disk, None where it is not or cannot be read."""
    path = results_folder() / f"{key}.npz"
    if _off() or not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as data:
            errors = data["errors"] if "errors" in data.files else None
            found = Estimate(data["values"], errors)
        os.utime(path)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # a damaged or vanished file: the result is made again
    return found


def keep(key: str, result: Estimate) -> None:
    """Put a result on disk, and remove the oldest ones over ``MAX_BYTES``.

    A disk that is full or read-only costs the cache, never the run.
    """
    if _off() or result.values.nbytes > MAX_BYTES // 8:
        return
    folder = results_folder()
    arrays = {"values": result.values}
    if result.errors is not None:
        arrays["errors"] = result.errors
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(folder / f"{key}.npz") as path, path.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        _trim(folder)
    except (OSError, QcompError):
        return


def _trim(folder: Path) -> None:
    found = []
    for path in folder.glob("*.npz"):
        status = path.stat()
        found.append((status.st_mtime, status.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= MAX_BYTES:
            return
        path.unlink(missing_ok=True)
        total -= size
