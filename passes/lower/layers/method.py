"""What a method is: which layers it takes, what it makes of them, what that costs."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from qcomp.errors import UsageError, suggest

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.passes.lower.layers.glue import Glue

__all__ = ["METHODS", "Built", "Method", "Options", "Run", "method_named"]

METHODS: Mapping[str, str] = MappingProxyType(
    {
        "orthogonal": "orthogonal",
        "swap-test": "swap_test",
        "hypergraph": "hypergraph",
        "hadamard": "hadamard",
        "quanvolution": "quanvolution",
    }
)
"""Method -> the module beside this one that holds it as ``METHOD``."""


@dataclass(frozen=True, slots=True)
class Options:
    """Options of all methods; each takes some of them.

    Attributes:
        block: Rows and columns of a block of the matrix; 0 for the method's own choice.
        form: Which of the method's forms; "" for the cheaper one.
    """

    block: int = 0
    form: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """How often a circuit runs for one row of the layer's input, in how many bases."""

    circuit: str
    rows: int
    settings: int


@dataclass(frozen=True, slots=True)
class Built:
    """What a method made.

    Attributes:
        output: What the layer gives now; its type may be float64.
        runs: The circuits.
        restores: How sign and norm come back, where that depends on the layer; else the method's.
        remark: What else the user should know.
        exact: Whether the layer computes the same as before, where that depends on the layer; None
            for what the method says.
    """

    output: ir.Value
    runs: tuple[Run, ...]
    restores: str = ""
    remark: str = ""
    exact: bool | None = None


@dataclass(frozen=True, slots=True)
class Method:
    """A way to make a layer of circuits.

    Attributes:
        name: Its name.
        summary: One line: what it does, and for which layers.
        restores: How sign and norm come back.
        exact: Whether the layer computes the same as before.
        options: Which of :class:`Options` it takes.
        refuse: Says why a node cannot be lowered so; "" where it can.
        lower: Writes glue and circuits.
    """

    name: str
    summary: str
    restores: str
    exact: bool
    options: tuple[str, ...]
    refuse: Callable[[ir.Node, Options], str]
    lower: Callable[[Glue, ir.Node, Options], Built]


def method_named(name: str) -> Method:
    """Return a method.

    Raises:
        UsageError: If there is none of that name.
    """
    if name not in METHODS:
        raise UsageError(f"there is no method '{name}' for layers", hint=suggest(name, METHODS))
    module = importlib.import_module(f"qcomp.passes.lower.layers.{METHODS[name]}")
    found = module.METHOD
    assert isinstance(found, Method)
    return found
