"""Work for other processes, which have to find it in a module."""

from __future__ import annotations

import os
import time
from pathlib import Path


def square(number: int) -> int:
    """Return the square."""
    return number * number


def die_once(piece: tuple[int, str]) -> int:
    """Kill this process at the piece 3, the first time."""
    number, place = piece
    if number == 3 and not Path(place).exists():
        Path(place).write_text("died", encoding="utf-8")
        os._exit(9)
    return square(number)


def die(number: int) -> int:
    """Kill this process."""
    os._exit(number)


def say_and_sleep(place: str) -> None:
    """Write this process's number and work for long."""
    Path(place).write_text(str(os.getpid()), encoding="utf-8")
    time.sleep(600)


def fail(number: int) -> int:
    """Raise an error of the work's own."""
    raise ValueError(f"no {number}")
