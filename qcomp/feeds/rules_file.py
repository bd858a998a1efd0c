"""Reading a preprocess file; its schema, with examples, is in ``docs/preprocess.md``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from qcomp.errors import UsageError, suggest
from qcomp.feeds.rules import LabelRule, Rule, RulePreprocess, Slice

__all__ = ["parse_rules", "read_rules"]

_LARGEST = sys.float_info.max


def read_rules(path: Path, names: Sequence[str]) -> RulePreprocess:
    """Read a preprocess file.

    Args:
        path: The JSON file.
        names: Names of the model's inputs.

    Raises:
        UsageError: If it cannot be read, or its steps are not understood.
    """
    return parse_rules(_read_json(path), names, str(path))


def _read_json(path: Path) -> Mapping[str, object]:
    try:
        steps = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(
            f"there is no file '{path}'",
            hint="--preprocess takes the path of a JSON file or module:function",
        ) from error
    except OSError as error:
        raise UsageError(f"'{path}' cannot be read", why=error.strerror or str(error)) from error
    except json.JSONDecodeError as error:
        raise UsageError(
            f"'{path}' is not JSON",
            where=f"line {error.lineno}, column {error.colno}",
            why=error.msg,
        ) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"'{path}' is not JSON", why=str(error)) from error
    if not isinstance(steps, dict):
        raise UsageError(f"'{path}' has to hold a JSON object", hint='as {"scale": 0.5}')
    return steps


def parse_rules(steps: Mapping[str, object], names: Sequence[str], where: str) -> RulePreprocess:
    """Return the steps that a mapping states: of the only input, or input name -> steps.

    Args:
        steps: The mapping; ``labels`` may stand beside the steps.
        names: Names of the model's inputs.
        where: What the mapping is, for messages.

    Raises:
        UsageError: If a step is not understood.
    """
    rest = dict(steps)
    labels = None
    if "labels" in rest and "labels" not in names:
        labels = _label_rule(rest.pop("labels"), where)
    rules: dict[str, Rule] = {}
    if rest and all(isinstance(value, Mapping) for value in rest.values()):
        for name, value in rest.items():
            if name not in names:
                raise UsageError(
                    f"the model has no input '{name}'", where=where, hint=suggest(name, names)
                )
            rules[name] = _rule(cast("Mapping[str, object]", value), f"{where}, input '{name}'")
    else:
        if rest and len(names) > 1:
            known = ", ".join(f"'{name}'" for name in names)
            raise UsageError(
                f"the model has {len(names)} inputs, so the steps are given by input",
                where=where,
                hint=f'as {{"{names[0]}": {{...}}}}; inputs: {known}',
            )
        if rest:
            rules[names[0]] = _rule(rest, where)
    return RulePreprocess({name: rules.get(name, Rule()) for name in names}, labels, where)


_KEYS = ("from", "eval", "slice", "resize", "crop", "channels", "scale", "mean", "std", "layout")


def _rule(steps: Mapping[str, object], where: str) -> Rule:
    known = (*_KEYS, "reshape")
    for key in steps:
        if key not in known:
            raise UsageError(f"there is no step '{key}'", where=where, hint=suggest(key, known))
    get = steps.get
    rule = Rule(
        source=_text("from", get("from"), where),
        evaluation=_text("eval", get("eval"), where),
        slice=_slice(get("slice"), where),
        resize=_resize(get("resize"), where),
        crop=_pair("crop", get("crop"), where),
        channels=3 if "channels" not in steps else _sizes("channels", [get("channels")], where)[0],
        scale=_numbers("scale", get("scale"), where),
        mean=_numbers("mean", get("mean"), where),
        std=_numbers("std", get("std"), where),
        layout=_layout(get("layout"), where),
        reshape=None if get("reshape") is None else _sizes("reshape", get("reshape"), where),
    )
    if rule.channels not in (1, 3):
        raise _bad("channels", rule.channels, "1 (grey) or 3 (RGB)", where)
    if rule.std is not None and 0.0 in rule.std:
        raise _bad("std", get("std"), "numbers other than zero", where)
    return rule


def _label_rule(value: object, where: str) -> LabelRule:
    if isinstance(value, str):
        return LabelRule(value)
    if isinstance(value, Mapping) and set(value) <= {"from", "slice"} and "from" in value:
        return LabelRule(_text("from", value["from"], where), _slice(value.get("slice"), where))
    raise _bad("labels", value, 'an array\'s name, or {"from": name, "slice": [a, b]}', where)


def _bad(key: str, value: object, wanted: str, where: str) -> UsageError:
    return UsageError(
        f"'{key}' is {json.dumps(value, default=str)}, it takes {wanted}", where=where
    )


def _text(key: str, value: object, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or not value:
        raise _bad(key, value, "the name of an array", where)
    return value


def _numbers(key: str, value: object, where: str) -> tuple[float, ...] | None:
    if value is None:
        return None
    items = value if isinstance(value, list | tuple) else [value]
    numbers = []
    for item in items:
        if isinstance(item, bool) or not isinstance(item, int | float) or not abs(item) <= _LARGEST:
            raise _bad(key, value, "a number, or a list with one number a channel", where)
        numbers.append(float(item))
    if not numbers:
        raise _bad(key, value, "at least one number", where)
    return tuple(numbers)


def _sizes(key: str, value: object, where: str) -> tuple[int, ...]:
    if isinstance(value, list | tuple):
        sizes = tuple(v for v in value if isinstance(v, int) and not isinstance(v, bool) and v > 0)
        if len(sizes) == len(value):
            return sizes
    raise _bad(key, value, "whole numbers above zero", where)


def _pair(key: str, value: object, where: str) -> tuple[int, int] | None:
    if value is None:
        return None
    sizes = _sizes(key, value, where)
    if len(sizes) != 2:
        raise _bad(key, value, "[height, width]", where)
    return sizes[0], sizes[1]


def _resize(value: object, where: str) -> tuple[int, int] | int | None:
    if isinstance(value, int):
        return _sizes("resize", [value], where)[0]
    return _pair("resize", value, where)


def _slice(value: object, where: str) -> Slice | None:
    if value is None:
        return None
    if isinstance(value, list | tuple) and len(value) == 2:
        ends = [v for v in value if v is None or (isinstance(v, int) and not isinstance(v, bool))]
        if len(ends) == 2:
            return ends[0], ends[1]
    raise _bad("slice", value, "[start, stop], each a whole number or null", where)


def _layout(value: object, where: str) -> tuple[str, str] | None:
    if value is None:
        return None
    if isinstance(value, str):
        source, arrow, wanted = (part.strip() for part in value.partition("->"))
        if not arrow:
            # Raw images have their channels last.
            source, wanted = "NHWC", source
        letters = sorted(source)
        if source[:1] == wanted[:1] == "N" and letters == sorted(wanted):
            if len(set(letters)) == len(letters) and source.isalpha():
                return source, wanted
    raise _bad("layout", value, "'NHWC->NCHW' or the like, N first; 'NCHW' stands for it", where)
