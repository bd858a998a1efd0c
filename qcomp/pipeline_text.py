"""The text form of passes and pipelines: parse, print, typed options."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from qcomp.cost import CostModel
from qcomp.errors import UsageError, suggest
from qcomp.passmanager import CircuitPass, Pass, option_fields
from qcomp.registry import load, names

if TYPE_CHECKING:
    from lark import Lark, Token, Tree

__all__ = ["Step", "make_pass", "parse_steps", "print_pass"]

REPEAT = "repeat"
"""Name of the group that runs until nothing changes."""

BEST, WAY = "best", "way"
"""Names of the group that keeps the cheapest of several ways, and of the groups in it."""

DEFAULT_TIMES = 4
DEFAULT_COST = "gates+3*two_qubit+rotations"
MAX_TIMES = 1000

Value = str | int | float | bool | tuple["Value", ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a pipeline: a pass, or a group of steps.

    Attributes:
        instance: The pass; None for a group.
        group: The steps of a group.
        times: How often the group runs at most, until nothing changes; 0 for a way of ``best``.
        model: For ``best``, by what the ways in the group are judged.
    """

    instance: Pass | None
    group: tuple[Step, ...] = ()
    times: int = 1
    model: CostModel | None = None

    def __str__(self) -> str:
        """Return the step's text form."""
        if self.instance is not None:
            return str(self.instance)
        inner = ",".join(str(step) for step in self.group)
        if self.model is not None:
            return f"{BEST}{{cost={_print(str(self.model))}}}({inner})"
        if self.times == 0:
            return f"{WAY}({inner})"
        return f"{REPEAT}{{times={self.times}}}({inner})"


@functools.cache
def _grammar() -> Lark:
    from lark import Lark

    text = files("qcomp").joinpath("pipeline.lark").read_text(encoding="utf-8")
    return Lark(text, parser="lalr", maybe_placeholders=False)


@functools.lru_cache(maxsize=256)
def _tree(text: str) -> Tree[Token]:
    """Return the syntax of a text, which does not depend on the passes that there are."""
    return _grammar().parse(text)


def parse_steps(text: str) -> tuple[Step, ...]:
    """Return the steps of a pipeline text.

    Raises:
        UsageError: If the text is no pipeline.
    """
    from lark.exceptions import LarkError, UnexpectedInput

    try:
        tree = _tree(text)
    except UnexpectedInput as error:
        raise UsageError(
            f"'{text}' is no pipeline",
            where=f"column {getattr(error, 'column', 0)}",
            why=error.get_context(text).rstrip(),
            hint="write passes with commas between: merge-rotations,to-basis{gates=[cz,rz,sx,x]}",
        ) from None
    except LarkError as error:
        raise UsageError(f"'{text}' is no pipeline", why=str(error)) from None
    return _steps(tree)


def _steps(tree: Tree[Token]) -> tuple[Step, ...]:
    return tuple(_step(child) for child in tree.children if not isinstance(child, str))


def _step(tree: Tree[Token]) -> Step:
    name = str(tree.children[0])
    options: dict[str, Value] = {}
    group: tuple[Step, ...] | None = None
    for child in tree.children[1:]:
        assert not isinstance(child, str)
        if child.data == "start":
            group = _steps(child)
            continue
        key = str(child.children[0]).replace("-", "_")
        if key in options:
            raise UsageError(f"the option '{key}' of '{name}' stands twice")
        options[key] = _value(child.children[1])
    if name == REPEAT:
        times = options.pop("times", DEFAULT_TIMES)
        if options or group is None:
            raise UsageError("'repeat' takes times=N and a group: repeat{times=4}(a,b)")
        if not isinstance(times, int) or not 1 <= times <= MAX_TIMES:
            raise UsageError(f"'repeat' runs between 1 and {MAX_TIMES} times, not {times}")
        return Step(None, group, times)
    if name == WAY:
        if options or group is None:
            raise UsageError("'way' takes a group and no options: best(way(a),way(b,c))")
        _only_circuit_passes(group)
        return Step(None, group, 0)
    if name == BEST:
        cost = str(options.pop("cost", DEFAULT_COST))
        if options or not group or any(step.times != 0 for step in group):
            raise UsageError("'best' takes cost=SUM and ways: best{cost=gates}(way(a),way(b,c))")
        return Step(None, group, 1, CostModel.parse(cost))
    if group is not None:
        raise UsageError(
            f"'{name}' takes no group in parentheses", hint="'repeat', 'best' and 'way' do"
        )
    return Step(make_pass(name, options))


def _only_circuit_passes(group: tuple[Step, ...]) -> None:
    """Check that a way changes nothing but circuits: only these are put back."""
    for step in group:
        _only_circuit_passes(step.group)
        if step.instance is not None and not isinstance(step.instance, CircuitPass):
            raise UsageError(
                f"'{step.instance.name}' works on graphs, a way takes passes over circuits",
                hint="write it before 'best'",
            )


def _value(node: Any) -> Value:  # noqa: ANN401  a lark tree or token
    if node.data == "list":
        return tuple(_value(child) for child in node.children)
    text = str(node.children[0])
    if node.data == "string":
        return text[1:-1]
    if node.data == "number":
        return float(text) if any(c in text for c in ".eE") else int(text)
    return {"true": True, "false": False}.get(text, text)


def make_pass(name: str, options: Mapping[str, object] | None = None) -> Pass:
    """Return the pass of that name with these options, checked against their types.

    Raises:
        UsageError: If the pass or an option is unknown, or a value does not fit.
    """
    if name not in names("passes"):
        raise UsageError(f"there is no pass named '{name}'", hint=suggest(name, names("passes")))
    kind = load("passes", name)
    fields = option_fields(kind)
    hints = _option_types(kind)
    checked: dict[str, object] = {}
    for key, value in (options or {}).items():
        if key not in fields:
            known = suggest(key, fields) if fields else "it has no options"
            raise UsageError(f"'{name}' has no option '{key}'", hint=known)
        checked[key] = _convert(value, hints[key], f"option '{key}' of '{name}'")
    missing = [
        key
        for key, f in fields.items()
        if key not in checked and f.default is MISSING and f.default_factory is MISSING
    ]
    if missing:
        raise UsageError(f"'{name}' needs the option {', '.join(missing)}")
    try:
        made = kind(**checked)
    except ValueError as error:
        raise UsageError(f"'{name}' cannot have these options: {error}") from error
    assert isinstance(made, Pass)
    return made


@functools.cache
def _option_types(kind: type[Pass]) -> Mapping[str, Any]:
    return typing.get_type_hints(kind)


def _convert(value: object, hint: Any, what: str) -> object:  # noqa: ANN401  a type expression
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value in ("none", None) and type(None) in arguments:
            return None
        inner = [a for a in arguments if a is not type(None)]
        for candidate in inner:
            try:
                return _convert(value, candidate, what)
            except UsageError:
                if candidate is inner[-1]:
                    raise
    if origin is Literal:
        text = value if value in arguments else str(value)
        if text not in arguments:
            raise UsageError(
                f"{what} cannot be {value!r}", hint=suggest(str(value), map(str, arguments))
            )
        return text
    if origin is tuple:
        items = value if isinstance(value, tuple) else (value,)
        return tuple(_convert(item, arguments[0], what) for item in items)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is str and not isinstance(value, tuple):
        return str(value)
    if isinstance(value, hint) and isinstance(value, bool) == (hint is bool):
        return value
    raise UsageError(f"{what} must be {hint.__name__}, not {value!r}")


def print_pass(instance: Pass) -> str:
    """Return a pass's text form with the options that differ from their defaults."""
    parts = []
    for key, f in option_fields(type(instance)).items():
        value = getattr(instance, key)
        if f.default is not MISSING and value == f.default:
            continue
        if f.default_factory is not MISSING and value == f.default_factory():
            continue
        parts.append(f"{key}={_print(value)}")
    return instance.name + (f"{{{','.join(parts)}}}" if parts else "")


def _print(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return "[" + ",".join(_print(item) for item in value) + "]"
    if isinstance(value, str):
        plain = value.replace("-", "").replace("_", "").replace("+", "").replace(".", "")
        return value if plain.isalnum() and value[0].isalpha() else f'"{value}"'
    return repr(value)
