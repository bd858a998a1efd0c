"""Angles that are no affine functions: expressions as data, evaluated in torch many at a time."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch

from qcomp.errors import UsageError

__all__ = ["FUNCTIONS", "Tree", "evaluate", "grouped"]

Tree = tuple[object, ...]
"""``("number", 2.0)``, ``("variable", column)``, or a function's name and its operands."""

FUNCTIONS: Mapping[str, object] = MappingProxyType(
    {
        "pow": torch.pow,
        "sin": torch.sin,
        "cos": torch.cos,
        "tan": torch.tan,
        "asin": torch.asin,
        "acos": torch.acos,
        "atan": torch.atan,
        "exp": torch.exp,
        "log": torch.log,
        "Abs": torch.abs,
        "sign": torch.sign,
    }
)
"""Functions that an expression may use beside ``add`` and ``mul``, which take any number."""


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


def evaluate(tree: Tree, variables: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the value of an expression, of the variables' shape and dtype.

    Args:
        tree: The expression.
        variables: Value of each variable, floating point and all of one shape.

    Raises:
        UsageError: If the expression uses a function that is not there.
    """
    value = _value(tree, variables)
    if isinstance(value, torch.Tensor):
        return value
    return torch.full_like(variables[0], value)


def _value(tree: Tree, variables: Sequence[torch.Tensor]) -> torch.Tensor | float:
    head, *rest = tree
    if head == "number":
        (number,) = rest
        assert isinstance(number, float)
        return number
    if head == "variable":
        (index,) = rest
        assert isinstance(index, int)
        return variables[index]
    values = [_value(part, variables) for part in rest if isinstance(part, tuple)]
    if head == "add":
        return functools.reduce(lambda a, b: a + b, values)
    if head == "mul":
        return functools.reduce(lambda a, b: a * b, values)
    function = FUNCTIONS.get(str(head))
    if not callable(function):
        raise UsageError(f"there is no function '{head}' for angles")
    result = function(*values)
    assert isinstance(result, torch.Tensor)
    return result
