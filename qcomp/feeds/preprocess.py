"""What a user means by ``--preprocess``: a file of steps, or a function of their own."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from qcomp.errors import QcompError, UsageError, suggest
from qcomp.feeds.inputs import Array
from qcomp.feeds.rules import RulePreprocess
from qcomp.feeds.rules_file import parse_rules, read_rules

__all__ = ["FunctionPreprocess", "load", "load_function"]

Function = Callable[[Mapping[str, Array]], Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class FunctionPreprocess:
    """A function of the user: raw arrays of a batch -> the inputs of the batch.

    Attributes:
        function: The function.
        where: How the user named it, for messages.
    """

    function: Function
    where: str

    def __call__(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Call the function and check that it gives arrays by name.

        Raises:
            UsageError: If it fails, or gives something else.
        """
        try:
            result = self.function(arrays)
        except QcompError:
            raise
        except Exception as error:
            hint = ""
            if isinstance(error, KeyError) and error.args and error.args[0] not in arrays:
                hint = f"the data has no such array; {suggest(str(error.args[0]), arrays)}"
            raise UsageError(
                "the preprocess function failed",
                where=f"{self.where}{_line(error)}",
                why=f"{type(error).__name__}: {error}",
                hint=hint,
            ) from error
        if not isinstance(result, Mapping):
            raise UsageError(
                f"the preprocess function returned {type(result).__name__}",
                where=self.where,
                hint="it has to return a dict: input name -> array",
            )
        return {str(name): np.asarray(array) for name, array in result.items()}


def load(preprocess: object, names: Sequence[str]) -> RulePreprocess | FunctionPreprocess | None:
    """Return what a user means by ``--preprocess``.

    Args:
        preprocess: None; the path of a JSON file; ``module:function``; a mapping as the file would
            hold; or a function.
        names: Names of the model's inputs.

    Raises:
        UsageError: If the file or the function cannot be read, or the steps are not understood.
    """
    if preprocess is None:
        return None
    if isinstance(preprocess, RulePreprocess | FunctionPreprocess):
        return preprocess
    if isinstance(preprocess, Mapping):
        return parse_rules(preprocess, names, "the preprocess steps")
    if isinstance(preprocess, str | os.PathLike):
        text = os.fspath(preprocess)
        if not Path(text).is_file() and _is_reference(text):
            return FunctionPreprocess(cast("Function", load_function(text, "preprocess")), text)
        return read_rules(Path(text), names)
    if callable(preprocess):
        name = getattr(preprocess, "__qualname__", type(preprocess).__name__)
        return FunctionPreprocess(cast("Function", preprocess), name)
    raise UsageError(
        f"{type(preprocess).__name__} is no preprocess",
        hint="give the path of a JSON file, 'module:function', a dict or a function",
    )


def load_function(text: str, what: str) -> Callable[..., object]:
    """Import ``module:function``; modules of the current folder are found as well.

    Args:
        text: The reference.
        what: What the function is for, for messages.

    Raises:
        UsageError: If there is no such module or function, or the module fails.
    """
    module_name, _, attribute = text.partition(":")
    try:
        with _current_folder():
            found: object = importlib.import_module(module_name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == module_name.partition(".")[0]:
            raise UsageError(
                f"there is no module '{error.name}' for the {what} function '{text}'",
                hint="modules of the current folder and installed ones are found",
            ) from error
        raise UsageError(
            f"the module '{module_name}' of the {what} function cannot be imported",
            where=f"{module_name}{_line(error)}",
            why=f"{type(error).__name__}: {error}",
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            known = [name for name in vars(found) if not name.startswith("_")]
            raise UsageError(
                f"the module '{module_name}' has no function '{attribute}'",
                hint=suggest(part, known),
            )
        found = getattr(found, part)
    if not callable(found):
        raise UsageError(f"'{text}' is no function")
    return found


def _is_reference(text: str) -> bool:
    module, colon, attribute = text.partition(":")
    dotted = (*module.split("."), *attribute.split("."))
    return bool(colon) and all(part.isidentifier() for part in dotted)


@contextlib.contextmanager
def _current_folder() -> Iterator[None]:
    here = os.getcwd()
    sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(here)


def _line(error: BaseException) -> str:
    """Return ", line n" of the user's own file in which an error arose."""
    trace, line = error.__traceback__, 0
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__", ""))
        if not module.startswith(("qcomp.", "importlib", "numpy")):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f", line {line}" if line else ""
