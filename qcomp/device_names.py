"""Devices by name: lattices, the fake backends of ``qiskit_ibm_runtime``, and real IBM machines."""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from qcomp.device import Device
from qcomp.errors import TargetError, UsageError, suggest

__all__ = ["device_names", "find_device"]

EXAMPLES = ("line-20", "ring-12", "grid-10x10", "heavy-hex-7", "heavy-hex-7x15", "all-to-all-8")
"""One name for each form of lattice."""

_LATTICE = re.compile(r"(line|ring|grid|heavy-hex|all-to-all)-([0-9]{1,6})(?:x([0-9]{1,6}))?")


def find_device(name: str) -> Device:
    """Return a device by its name; see :func:`qcomp.device.get_device`."""
    text = name.strip()
    lattice = _lattice(text)
    if lattice is not None:
        return lattice
    known = _fakes()
    key = text.lower()
    if key in known:
        return _quiet(known[key])
    joined = {name.replace("_", ""): name for name in known}
    if key.replace("_", "") in joined:  # the class's own name: FakeTorino
        return _quiet(known[joined[key.replace("_", "")]])
    if key.startswith("ibm_"):
        return _real(key)
    raise UsageError(f"there is no device '{name}'", hint=_hint(text, known))


def device_names() -> tuple[str, ...]:
    """Return an example of each form of lattice, then the fake backends that are installed."""
    return (*EXAMPLES, *_fakes())


def _hint(text: str, known: Mapping[str, Any]) -> str:
    found = suggest(text, (*EXAMPLES, *known))
    if found.startswith("did you mean"):
        return found
    forms = ", ".join(EXAMPLES)
    if not known:
        return f"{forms}; with qcomp[ibm] installed also fake_torino and IBM's machines"
    return f"{forms}, a fake backend such as fake_torino, or an IBM machine such as ibm_fez"


def _lattice(text: str) -> Device | None:
    found = _LATTICE.fullmatch(text.lower().replace("_", "-"))
    if found is None:
        return None
    kind, first, second = found[1], int(found[2]), found[3]
    if kind == "grid" and second:
        return Device.grid(first, int(second))
    if kind == "heavy-hex":
        return Device.heavy_hex(first, int(second) if second else None)
    if second or kind == "grid":
        raise UsageError(
            f"there is no device '{text}'",
            hint="a grid has rows and columns: grid-10x10" if kind == "grid" else f"{kind}-{first}",
        )
    makers = {"line": Device.line, "ring": Device.ring, "all-to-all": Device.all_to_all}
    return makers[kind](first)


@functools.cache
def _fakes() -> Mapping[str, Any]:
    """Return name -> class of the fake backends; none where the package is not installed."""
    try:
        from qiskit_ibm_runtime import fake_provider
    except ImportError:
        return MappingProxyType({})
    found = {}
    for kind in vars(fake_provider).values():
        name = getattr(kind, "backend_name", None)
        if isinstance(kind, type) and isinstance(name, str):
            found[name] = kind
    return MappingProxyType(dict(sorted(found.items())))


@functools.cache
def _quiet(kind: Any) -> Device:  # noqa: ANN401  a class of fake backends
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it warns of stands in the device's notes
        return Device.from_qiskit(kind())


def _real(name: str) -> Device:
    """Return a machine that the account saved by IBM's own client can see.

    Raises:
        UsageError: If the client is not installed, or the account cannot see such a machine.
        TargetError: If IBM cannot be reached or refuses the account.
    """
    from qiskit.providers.exceptions import QiskitBackendNotFoundError

    try:
        from qiskit_ibm_runtime import QiskitRuntimeService
    except ImportError as error:
        raise UsageError(
            f"the machine '{name}' needs IBM's client", hint="pip install 'qcomp[ibm]'"
        ) from error
    try:
        service = QiskitRuntimeService()
        try:
            return Device.from_qiskit(service.backend(name, use_fractional_gates=None))
        except QiskitBackendNotFoundError as error:
            seen = [backend.name for backend in service.backends()]
            raise UsageError(
                f"your IBM account sees no machine '{name}'", hint=suggest(name, seen)
            ) from error
    except UsageError:
        raise
    except Exception as error:  # the client's errors have no common root
        raise TargetError(
            f"IBM does not give the machine '{name}'",
            why=str(error).splitlines()[0] if str(error) else type(error).__name__,
            hint="save an account with QiskitRuntimeService.save_account, or take fake_"
            + name.removeprefix("ibm_"),
        ) from error
