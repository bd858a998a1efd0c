"""Angles that are no affine functions: formulas as data, evaluated many at a time.

A tree is ``("number", 2.0)``, ``("variable", column)``, ``("add", *trees)``, ``("mul", *trees)``,
or the name of a function and its operands. It is evaluated with any library's functions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import UsageError

__all__ = ["NUMPY", "Tree", "columns_of", "evaluate", "grouped"]

Tree = tuple[object, ...]

NUMPY: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "pow": np.power, "sin": np.sin, "cos": np.cos, "tan": np.tan, "asin": np.arcsin,
        "acos": np.arccos, "atan": np.arctan, "exp": np.exp, "log": np.log, "Abs": np.abs,
        "sign": np.sign,
    }
)  # fmt: skip
"""The functions that an expression may use, in NumPy."""


def grouped(trees: Sequence[Tree]) -> list[tuple[Tree, list[list[int]], list[int]]]:
    """Return (template, columns, members) of each set of trees that differ in variables alone.

    Args:
        trees: Expressions over numbered variables.

    Returns:
        For each group its template, whose variables are numbered from 0 in the order in which
        they appear; for each of these the column that it is in each member; and which of the
        trees the members are.
    """
    groups: dict[Tree, list[tuple[int, list[int]]]] = {}
    for index, tree in enumerate(trees):
        columns: list[int] = []
        groups.setdefault(_template(tree, columns), []).append((index, columns))
    return [
        (
            template,
            [list(column) for column in zip(*(c for _, c in members), strict=True)],
            [index for index, _ in members],
        )
        for template, members in groups.items()
    ]


def _template(tree: Tree, columns: list[int]) -> Tree:
    head, *rest = tree
    if head == "number":
        return tree
    if head == "variable":
        (column,) = rest
        assert isinstance(column, int)
        if column not in columns:
            columns.append(column)
        return ("variable", columns.index(column))
    return (head, *(_template(part, columns) for part in rest if isinstance(part, tuple)))


def evaluate(
    tree: Tree, variables: Sequence[Any], functions: Mapping[str, Callable[..., Any]] = NUMPY
) -> Any:  # noqa: ANN401  arrays of any library
    """Return the value of an expression: an array, or a number if it has no variables.

    Args:
        tree: The expression.
        variables: Value of each variable, arrays of one shape.
        functions: Name -> function on such arrays.

    Raises:
        UsageError: If the expression uses a function that is not there.
    """
    head, *rest = tree
    if head in ("number", "variable"):
        (value,) = rest
        return value if head == "number" else variables[int(str(value))]
    values = [evaluate(part, variables, functions) for part in rest if isinstance(part, tuple)]
    if head == "add":
        return functools.reduce(lambda a, b: a + b, values)
    if head == "mul":
        return functools.reduce(lambda a, b: a * b, values)
    if head not in functions:
        raise UsageError(f"there is no function '{head}' for angles")
    return functions[str(head)](*values)


def columns_of(trees: Sequence[Tree], rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the value of each tree for each row of variables, float64[B, trees]."""
    out = np.empty((len(rows), len(trees)))
    for template, columns, members in grouped(trees):
        out[:, members] = evaluate(template, [rows[:, column] for column in columns])
    return out
