"""Data encodings by name: each a circuit of slots and the classical map that fills them in."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType

from qcomp.constructions.encodings.amplitude import amplitude, neural_amplitude
from qcomp.constructions.encodings.angle import angle, dense_angle
from qcomp.constructions.encodings.base import NUMPY, Encoding, Ops, SlotMap
from qcomp.constructions.encodings.basis import basis
from qcomp.constructions.encodings.feature_maps import covariant, iqp, zz
from qcomp.constructions.encodings.hamiltonian import (
    hamiltonian,
    image_hamiltonian,
    image_unitary,
)
from qcomp.constructions.encodings.in_front import in_front
from qcomp.constructions.encodings.reupload import daruan, reupload
from qcomp.errors import UsageError, suggest

__all__ = [
    "ENCODINGS",
    "NUMPY",
    "Encoding",
    "Ops",
    "SlotMap",
    "encoding",
    "image_hamiltonian",
    "image_unitary",
    "in_front",
    "options_of",
]

ENCODINGS: Mapping[str, Callable[..., Encoding]] = MappingProxyType(
    {
        "basis": basis,
        "angle": angle,
        "dense-angle": dense_angle,
        "reupload": reupload,
        "daruan": daruan,
        "iqp": iqp,
        "zz": zz,
        "hamiltonian": hamiltonian,
        "amplitude": amplitude,
        "neural-amplitude": neural_amplitude,
        "covariant": covariant,
    }
)
"""Name -> function of the number of qubits, the number of features (0: as many as fit), options."""


def options_of(method: str) -> tuple[str, ...]:
    """Return the names of the options that an encoding takes.

    Raises:
        UsageError: If there is no such encoding.
    """
    names = list(inspect.signature(_found(method)).parameters)
    return tuple(names[2:])


def encoding(method: str, num_qubits: int, features: int = 0, **options: object) -> Encoding:
    """Return an encoding.

    Args:
        method: A name of ``ENCODINGS``; ``zz-feature-map`` or ``angle-embedding`` mean the same.
        num_qubits: Qubits.
        features: Features; 0 for as many as the qubits take.
        options: Those of the method, such as ``layers``, ``scale`` or ``entanglement``.

    Raises:
        UsageError: If there is no such method or option, or a size does not fit.
    """
    build = _found(method)
    known = options_of(method)
    for name in options:
        if name not in known:
            raise UsageError(
                f"the encoding '{method}' has no option '{name}'",
                hint="it takes " + (", ".join(known) or "none"),
            )
    return build(num_qubits, features, **options)


def _found(method: str) -> Callable[..., Encoding]:
    name = method
    for ending in ("-feature-map", "-embedding", "-encoding"):
        name = name.removesuffix(ending)
    if name not in ENCODINGS:
        raise UsageError(f"there is no encoding '{method}'", hint=suggest(name, ENCODINGS))
    return ENCODINGS[name]
