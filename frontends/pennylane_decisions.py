"""Decisions that a QNode's code makes by the values of tensors: seen while its tape is built."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from qcomp.errors import SourceError
from qcomp.frontends.pennylane_lines import is_package

__all__ = ["decisions_refused"]


@contextlib.contextmanager
def decisions_refused(name: str) -> Iterator[None]:
    """Refuse, in the block, that a user's code decides by a tensor's value.

    Args:
        name: The QNode's name.

    Raises:
        SourceError: From ``if x > 0``, ``range(int(x))`` and the like, with the line.
    """
    with _Decisions(name):
        yield


class _Decisions(TorchFunctionMode):
    """Sees ``bool(tensor)`` and whole numbers made of floats, as for ``range``.

    Those of packages, which check arguments by them, are let through.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401  torch's protocol
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401  what the function gives
        whole = func in (torch.Tensor.__int__, torch.Tensor.__index__)
        if func is torch.Tensor.__bool__ or (whole and args[0].is_floating_point()):
            frame = sys._getframe(1)
            torch_itself = os.path.dirname(str(torch.__file__)) + os.sep
            while frame.f_back is not None and frame.f_code.co_filename.startswith(torch_itself):
                frame = frame.f_back
            if not is_package(frame.f_code.co_filename):
                file = os.path.basename(frame.f_code.co_filename)
                raise SourceError(
                    "the circuit's structure depends on data",
                    where=f"line {frame.f_lineno} of {file}, in the QNode '{self.name}'",
                    why="a decision is made by the value of a tensor",
                    hint="let the data choose angles, not gates: a rotation by 0 is no gate",
                )
        return func(*args, **(kwargs or {}))
