"""How activations of DQA are stored: levels of n bits, and shift errors in Huffman codes.

    q = hi 2^m + e  for important channels,    q = hi 2^m  for others,    x^ = (q - z 2^m) s / 2^m

A coded tensor is the n-bit levels hi of all values, then the code words of e of the important
channels, values in the order of memory, bits from the highest down. Code words are canonical: in
the order of (length, symbol), each the next number of its length, so that the lengths are the whole
table. Decoding is shifts, comparisons and look-ups of integers.

Cost: coding is linear, on whole arrays; decoding a loop over the values.
Source: Huffman 1952, "A Method for the Construction of Minimum-Redundancy Codes"; Hu et al. 2024
(DQA), arXiv:2412.09687 (that shift errors are stored so). The layout is our choice.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from qcomp.errors import UsageError

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["ActivationCodec", "code_lengths", "codecs_of", "keep_codecs"]

KEY = "qcomp.activation_codecs"
"""The model's metadata that holds the tables."""

Levels = npt.NDArray[np.uint8]


def code_lengths(counts: Sequence[int]) -> tuple[int, ...]:
    """Lengths of the code words with the least bits in all; each symbol has one.

    Args:
        counts: How often each symbol was seen; one that was not seen counts as seen once.
    """
    lengths = [0] * len(counts)
    heap: list[tuple[int, int, tuple[int, ...]]]
    heap = [(max(int(n), 1), i, (i,)) for i, n in enumerate(counts)]
    heapq.heapify(heap)
    while len(heap) > 1:
        (a, _, left), (b, i, right) = heapq.heappop(heap), heapq.heappop(heap)
        for symbol in (*left, *right):
            lengths[symbol] += 1
        heapq.heappush(heap, (a + b, i, (*left, *right)))
    return tuple(lengths)


@dataclass(frozen=True)
class ActivationCodec:
    """The tables of one activation.

    Attributes:
        bits: n, of the levels.
        extra: m, by which levels of important channels were shifted to the right.
        scale: s, of the levels.
        zero_point: z, the level of 0.
        axis: Of the channels.
        channels: How many there are.
        important: Those with shift errors, the most important first.
        lengths: Bits of the code word of each shift error.
        bits_a_value: On the calibration data, shift errors included.
    """

    bits: int
    extra: int
    scale: float
    zero_point: int
    axis: int
    channels: int
    important: tuple[int, ...]
    lengths: tuple[int, ...]
    bits_a_value: float

    def encode(self, hi: Levels, error: Levels) -> bytes:
        """Code a tensor.

        Args:
            hi: Levels, below 2^bits.
            error: Shift errors, below 2^extra; 0 in channels that are not important.

        Raises:
            UsageError: Values out of range.
        """
        coded = error.reshape(-1)[self._places(error.shape)]
        beyond = hi.max(initial=0) >> self.bits or error.max(initial=0) >> self.extra
        lost = np.count_nonzero(error) > np.count_nonzero(coded)
        if beyond or lost or hi.shape != error.shape:
            raise UsageError(
                f"these are no levels of {self.bits} bits with shift errors of {self.extra}",
                hint="take both from the graph that the codec was made for",
            )
        words = np.concatenate([hi.reshape(-1).astype(np.int64), self._words()[coded]])
        lengths = np.array(self.lengths, np.int64)[coded]
        lengths = np.concatenate([np.full(hi.size, self.bits), lengths])
        ends = np.cumsum(lengths)
        below = np.repeat(ends, lengths) - 1 - np.arange(lengths.sum())
        return np.packbits((np.repeat(words, lengths) >> below & 1).astype(np.uint8)).tobytes()

    def decode(self, data: bytes, shape: Sequence[int]) -> tuple[Levels, Levels]:
        """Levels and shift errors of a coded tensor of that shape.

        Raises:
            UsageError: The bytes end too early.
        """
        size = int(np.prod(shape, dtype=np.int64))
        bits = np.unpackbits(np.frombuffer(data, np.uint8))
        if len(bits) < size * self.bits:
            raise UsageError("a coded tensor ends too early", hint="give the shape that was coded")
        weights = 1 << np.arange(self.bits - 1, -1, -1)
        hi = (bits[: size * self.bits].reshape(size, self.bits) @ weights).astype(np.uint8)
        error = np.zeros(size, np.uint8)
        places = self._places(shape)
        error[places] = self._symbols(bits[size * self.bits :], len(places))
        return hi.reshape(shape), error.reshape(shape)

    def levels(self, hi: Levels, error: Levels) -> Levels:
        """q, of bits + extra bits."""
        return hi << np.uint8(self.extra) | error

    def real(self, levels: Levels) -> npt.NDArray[np.float32]:
        """x^, as the graph has it."""
        middle = levels.astype(np.int32) - (self.zero_point << self.extra)
        return middle.astype(np.float32) * np.float32(self.scale / (1 << self.extra))

    def _places(self, shape: Sequence[int]) -> npt.NDArray[np.int64]:
        """Flat places of the values of important channels."""
        shape = tuple(shape)
        if not shape or shape[self.axis] != self.channels:
            raise UsageError(
                f"a tensor of shape {list(shape)} has no {self.channels} channels in axis "
                f"{self.axis}",
                hint="give the shape of the activation that the codec was made for",
            )
        mask = np.zeros(shape, bool)
        np.moveaxis(mask, self.axis, -1)[..., list(self.important)] = True
        return np.flatnonzero(mask)

    def _words(self) -> npt.NDArray[np.int64]:
        words, word, before = np.zeros(len(self.lengths), np.int64), 0, 0
        for length, symbol in sorted((n, i) for i, n in enumerate(self.lengths)):
            word <<= length - before
            words[symbol], before = word, length
            word += 1
        return words

    def _symbols(self, bits: Levels, count: int) -> npt.NDArray[np.uint8]:
        """The symbols of so many code words."""
        longest = max(self.lengths, default=0)
        padded = np.concatenate([bits, np.zeros(longest, np.uint8)])
        window = np.zeros(len(bits) + 1, np.int64)
        for k in range(longest):
            window = window << 1 | padded[k : k + len(window)]
        order = np.array(sorted(range(len(self.lengths)), key=lambda i: (self.lengths[i], i)), int)
        lengths = np.array(self.lengths, np.int64)
        first = self._words()[order] << (longest - lengths[order])
        found = order[np.searchsorted(first, window, "right") - 1] if len(order) else window
        steps, symbols = lengths[found].tolist() if len(order) else [], found.tolist()
        result, at = np.zeros(count, np.uint8), 0
        for k in range(count):
            if at >= len(bits):
                raise UsageError(
                    "a coded tensor ends too early", hint="give the shape that was coded"
                )
            result[k] = symbols[at]
            at += steps[at]
        return result


def keep_codecs(model: ir.Model, codecs: Mapping[str, ActivationCodec]) -> None:
    """Write the tables of activations, by name, into the model's metadata."""
    model.metadata_props[KEY] = json.dumps({n: asdict(c) for n, c in codecs.items()})


def codecs_of(model: ir.Model) -> dict[str, ActivationCodec]:
    """The tables that a model's metadata hold, by the name of the activation."""
    found = json.loads(model.metadata_props.get(KEY, "{}"))
    for fields in found.values():
        fields.update({name: tuple(fields[name]) for name in ("important", "lengths")})
    return {name: ActivationCodec(**fields) for name, fields in found.items()}
