"""Where in a user's code PennyLane's operations are made, for messages."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

import pennylane as qml

__all__ = ["is_package", "lines_of_operations", "place_of"]


def place_of(error: BaseException, name: str) -> str:
    """Return the innermost line of the user's own code that an error went through.

    Args:
        error: The error.
        name: The QNode's name.
    """
    place = f"the QNode '{name}'"
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if not is_package(code.co_filename):
            place = f"line {trace.tb_lineno} of {os.path.basename(code.co_filename)}"
        trace = trace.tb_next
    return f"{place}, in the QNode '{name}'" if place.startswith("line") else place


def is_package(filename: str) -> bool:
    """Whether a file belongs to Python, to an installed package or to qcomp, not to a user."""
    packages = os.path.dirname(os.path.dirname(str(qml.__file__)))
    own = os.path.dirname(str(sys.modules["qcomp"].__file__))
    folders = (
        packages,
        os.path.dirname(os.__file__),
        own,
        os.path.dirname(os.path.realpath(__file__)),
    )
    return filename.startswith(tuple(folder + os.sep for folder in folders)) or "<" in filename


@contextlib.contextmanager
def lines_of_operations() -> Iterator[dict[int, str]]:
    """Note the line of the user's code that each operation is made in, by its identity."""
    lines: dict[int, str] = {}
    append = qml.QueuingManager.__dict__["append"]

    def noting(cls: type, obj: object, /, **kwargs: object) -> None:
        frame = sys._getframe(1)
        while frame is not None and is_package(frame.f_code.co_filename):
            frame = frame.f_back  # type: ignore[assignment]  # None ends the walk
        if frame is not None:
            name = os.path.basename(frame.f_code.co_filename)
            lines[id(obj)] = f"line {frame.f_lineno} of {name}"
        append.__func__(cls, obj, **kwargs)

    qml.QueuingManager.append = classmethod(noting)
    try:
        yield lines
    finally:
        qml.QueuingManager.append = append
