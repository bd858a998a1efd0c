"""Bounds on what an untrusted OpenQASM source may ask for.

Each bound is far above what a real program needs and low enough that the reader answers in bounded
time and memory. Beyond a bound the reader raises a SourceError that names the bound.
"""

from __future__ import annotations

__all__ = [
    "MAX_ARRAY_ELEMENTS",
    "MAX_BITS",
    "MAX_CALL_DEPTH",
    "MAX_CHOICES",
    "MAX_CONTROLLED_GATES",
    "MAX_CONTROLS",
    "MAX_EXPANDED_GATES",
    "MAX_GATE_DEPTH",
    "MAX_INCLUDED_BYTES",
    "MAX_INCLUDES",
    "MAX_INCLUDE_DEPTH",
    "MAX_INTEGER_BITS",
    "MAX_NESTING",
    "MAX_POWER",
    "MAX_QUBITS",
    "MAX_REMEMBERED",
    "MAX_SOURCE_BYTES",
    "MAX_STEPS",
    "MAX_UNROLL",
    "MAX_VARIABLES",
    "STEPS_PER_NODE",
]

MAX_SOURCE_BYTES = 16 * 2**20
"""Bytes of a source that goes through the grammar (straight-line text has its own scanner)."""

MAX_NESTING = 100
"""Depth of nested expressions, blocks and brackets."""

MAX_QUBITS = 1_000_000
"""Qubits of one program."""

MAX_BITS = 4_000_000
"""Classical bits of one program."""

MAX_VARIABLES = 100_000
"""Classical variables that live at run time."""

MAX_ARRAY_ELEMENTS = 1_000_000
"""Elements of one classical array."""

MAX_INTEGER_BITS = 4096
"""Bits of an integer value or of a sized type."""

MAX_STEPS = 400_000
"""Statements and expressions executed at compile time, beyond some for each node of the source."""

STEPS_PER_NODE = 4
"""Further steps for each node of the source's syntax tree: a long source may take long."""

MAX_UNROLL = 100_000
"""Iterations of one loop that are unrolled."""

MAX_EXPANDED_GATES = 2_000_000
"""Operations that gate definitions, modifiers and loops may expand to."""

MAX_GATE_DEPTH = 60
"""Depth of gate definitions that call each other."""

MAX_CALL_DEPTH = 16
"""Depth of subroutine calls."""

MAX_CHOICES = 256
"""Values of an index that is known only at run time."""

MAX_CONTROLS = 24
"""Control qubits that modifiers may add to one gate."""

MAX_CONTROLLED_GATES = 20_000
"""Operations of one gate definition that a modifier puts under control."""

MAX_REMEMBERED = 500_000
"""Operations of expanded gates that are kept for further calls."""

MAX_POWER = 100_000
"""Largest integer exponent of a ``pow`` modifier that repeats its gate."""

MAX_INCLUDE_DEPTH = 16
"""Depth of nested ``include`` statements."""

MAX_INCLUDES = 1000
"""``include`` statements of one program."""

MAX_INCLUDED_BYTES = 16 * 2**20
"""Bytes of all included files together."""
