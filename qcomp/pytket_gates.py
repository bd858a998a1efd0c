"""pytket's names of the gates of the table."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["PYTKET"]

PYTKET: Mapping[str, str] = MappingProxyType(
    {
        "x": "X", "y": "Y", "z": "Z", "h": "H", "s": "S", "sdg": "Sdg", "t": "T", "tdg": "Tdg",
        "sx": "SX", "sxdg": "SXdg", "rx": "Rx", "ry": "Ry", "rz": "Rz", "p": "U1", "u": "U3",
        "r": "PhasedX", "cx": "CX", "cy": "CY", "cz": "CZ", "ch": "CH", "cs": "CS",
        "csdg": "CSdg", "csx": "CSX", "csxdg": "CSXdg", "cp": "CU1", "crx": "CRx", "cry": "CRy",
        "crz": "CRz", "swap": "SWAP", "iswap": "ISWAPMax", "xy": "ISWAP", "ecr": "ECR",
        "rxx": "XXPhase", "ryy": "YYPhase", "rzz": "ZZPhase", "zzmax": "ZZMax", "ccx": "CCX",
        "cswap": "CSWAP", "mcx": "CnX", "gpi": "GPI", "gpi2": "GPI2", "ms": "AAMS", "id": "noop",
        "gphase": "Phase", "reset": "Reset", "barrier": "Barrier",
    }
)  # fmt: skip
"""Gate -> pytket's ``OpType`` with the same matrix. Angles stand in the same order but those of
``ms``, whose last angle is pytket's first."""
