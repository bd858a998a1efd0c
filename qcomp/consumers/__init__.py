"""Consumers: the real parsers and simulators of those who read our text, asked what they see."""

from __future__ import annotations

from qcomp.consumers.acceptance import Acceptance, accept
from qcomp.consumers.table import CONSUMERS, ConsumerEntry

__all__ = ["CONSUMERS", "Acceptance", "ConsumerEntry", "accept"]
