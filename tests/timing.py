"""Tests that hold a figure of processor time."""

from __future__ import annotations

import pytest

timed = pytest.mark.flaky(reruns=3, reruns_delay=2)
"""Marks a test of processor time, which other work on the machine can turn: it may try again."""
