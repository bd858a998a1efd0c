"""Qiskit's parameter expressions as trees of :mod:`qcomp.ir.expressions`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qcomp.errors import SourceError
from qcomp.frontends.qiskit_circuit import from_qiskit_with_slots
from qcomp.ir.circuit import Circuit
from qcomp.ir.expressions import NUMPY, Tree

__all__ = ["read_feature_map", "tree_of"]


def tree_of(expression: Any, position: Mapping[str, int]) -> Tree:  # noqa: ANN401
    """Return a ``ParameterExpression`` as a tree.

    Args:
        expression: The expression.
        position: Name of a parameter -> number of the variable that it becomes.

    Raises:
        SourceError: If it uses a function that trees have not, or Qiskit cannot state it.
    """
    node = expression.sympify()
    if node is NotImplemented:
        raise SourceError(
            f"Qiskit cannot state the angle {expression} as a formula",
            hint="write a power of a number by exp(): (w * log(a)).exp() for a ** w",
        )
    return _sympy_tree(node, position, str(expression))


def _sympy_tree(node: Any, position: Mapping[str, int], whole: str) -> Tree:  # noqa: ANN401
    kind = type(node).__name__
    if node.is_Symbol:
        return ("variable", position[node.name])
    if node.is_number:
        value = complex(node)
        if value.imag:
            raise SourceError(f"the angle {whole} is not a real number")
        return ("number", value.real)
    parts = [_sympy_tree(part, position, whole) for part in node.args]
    if node.is_Add or node.is_Mul:
        return ("add" if node.is_Add else "mul", *parts)
    if kind in ("conjugate", "re"):
        return parts[0]
    if node.is_Pow:
        return ("pow", *parts)
    if kind in NUMPY:
        return (kind, *parts)
    raise SourceError(f"the angle {whole} uses the function '{kind}', which cannot be captured")


def read_feature_map(source: Any) -> tuple[Circuit, list[Tree], int]:  # noqa: ANN401
    """Return (circuit, formulas, features) of a Qiskit circuit that encodes samples.

    The circuit's parameters are all features, in Qiskit's order, and then one for each formula.

    Raises:
        SourceError: If the circuit cannot be read.
    """
    circuit, expressions = from_qiskit_with_slots(source)
    position = {p.name: i for i, p in enumerate(source.parameters)}
    return circuit, [tree_of(expression, position) for expression in expressions], len(position)
