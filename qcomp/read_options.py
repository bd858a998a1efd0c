"""Options of frontends: which there are, and what is said of those that there are not."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from qcomp.errors import UsageError, suggest

__all__ = ["check_options", "with_examples"]


def check_options(reader: Callable[..., object], options: Mapping[str, Any], name: str) -> None:
    """Check that a frontend knows the options that it is given.

    Args:
        reader: Its function ``read``.
        options: What the caller gave.
        name: The frontend's name.

    Raises:
        UsageError: If it does not know one.
    """
    known = inspect.signature(reader).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known):
        return
    names = [parameter.name for parameter in known if parameter.kind is parameter.KEYWORD_ONLY]
    for option in options:
        if option not in names:
            raise UsageError(
                f"the frontend '{name}' has no option '{option}'",
                hint=suggest(option, names) if names else "leave it out",
            )


def with_examples(options: Mapping[str, Any], example_inputs: object) -> dict[str, Any]:
    """Return the options of a frontend with a module's example inputs among them.

    Raises:
        UsageError: If the example inputs are the name of a target.
    """
    if example_inputs is None:
        return dict(options)
    if isinstance(example_inputs, str):
        raise UsageError(
            f"'{example_inputs}' stands where a module's example inputs are expected",
            hint=f"name the target: qcomp.compile(source, target='{example_inputs}')",
        )
    return {**options, "example_inputs": example_inputs}
