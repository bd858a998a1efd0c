"""Text that a compiled model is judged on beside its source, through the model's own tokenizer.

| model                            | text            | figures                                |
|----------------------------------|-----------------|----------------------------------------|
| decoder: ids -> logits [n, t, V] | one long piece  | perplexity of both, KL(source || ours) |
| encoder: ids -> [n, ..., D]      | a sentence a    | cosine with the source's embeddings,   |
|                                  | line            | rank correlation of their likenesses   |

A decoder gets windows of as many tokens as its input is long (64 where that is free), spread over
the text; embeddings a token are averaged over the mask. Inputs beside the ids are known by their
names: masks are 1 where there is a token, positions count, types are 0, the past is empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from qcomp.errors import UsageError
from qcomp.feeds.inputs import Array, Input, inputs_of
from qcomp.feeds.metrics import METRICS

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Figure", "TextEvaluation", "text_evaluation"]

_LENGTH = 64
"""Tokens of a window where the model takes any number."""

_SHORTEST = 16
_WINDOWS = 128
_LINES = 256
_LEAST_LINES = 3
"""Fewer sentences have fewer than three pairs, which have no order to speak of."""

_BATCH = 8
_ROWS = 512
"""Positions whose likelihoods are compared at a time."""

Feeds = dict[str, Array]
Doubles = npt.NDArray[np.float64]
Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]


class Figure(NamedTuple):
    """One figure of both.

    Attributes:
        metric: What was measured.
        source: Of the source.
        compiled: Of the compiled model.
        samples: Tokens, sentences or pairs.
    """

    metric: str
    source: float
    compiled: float
    samples: int


@dataclass(frozen=True, slots=True)
class TextEvaluation:
    """A text in tokens.

    Attributes:
        where: The file, for messages.
        decoder: Whether the model predicts tokens; else it makes embeddings.
        tokens: int64[n, t]; of a decoder with the last target, t + 1.
        mask: int64[n, t], 1 where there is a token.
        inputs: What the model takes.
        ids: The input that takes the tokens.
        output: The output that is judged.
        batch: Samples run at a time.
    """

    where: str
    decoder: bool
    tokens: Array
    mask: Array
    inputs: tuple[Input, ...]
    ids: str
    output: str
    batch: int

    def judge(self, source: Run, compiled: Run) -> list[Figure]:
        """Run both on all of the text.

        Raises:
            UsageError: If the source gives NaN.
        """
        return (
            self._decoders(source, compiled) if self.decoder else self._encoders(source, compiled)
        )

    def _batches(self) -> Iterator[tuple[slice, Feeds]]:
        for start in range(0, len(self.tokens), self.batch):
            part = slice(start, start + self.batch)
            ids = self.tokens[part, :-1] if self.decoder else self.tokens[part]
            yield part, {item.name: self._given(item, ids, self.mask[part]) for item in self.inputs}

    def _given(self, item: Input, ids: Array, mask: Array) -> Array:
        name = item.name.lower()
        if item.name == self.ids:
            found: Array = ids
        elif "mask" in name:
            found = mask
        elif "position" in name:
            found = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
        elif "type" in name:
            found = np.zeros(ids.shape)
        else:  # keys and values of a past that is empty
            shape = [dim if isinstance(dim, int) else 0 for dim in item.shape or ()]
            found = np.zeros([len(ids), *shape[1:]])
        return np.ascontiguousarray(found.astype(item.dtype))

    def _decoders(self, source: Run, compiled: Run) -> list[Figure]:
        before, after = METRICS["perplexity"](), METRICS["perplexity"]()
        divergence, count = 0.0, 0
        for part, feeds in self._batches():
            p, q = (self._checked(run(feeds)[self.output]) for run in (source, compiled))
            wanted = self.tokens[part, 1:]
            before.add(p, wanted)
            after.add(q, wanted)
            divergence += _divergence(p, q)
            count += wanted.size
        return [
            Figure("perplexity", before.result(), after.result(), count),
            Figure("KL divergence a token", 0.0, divergence / count, count),
        ]

    def _encoders(self, source: Run, compiled: Run) -> list[Figure]:
        rows: list[list[Array]] = [[], []]
        for part, feeds in self._batches():
            for kept, run in zip(rows, (source, compiled), strict=True):
                made = self._checked(run(feeds)[self.output])
                kept.append(_pooled(made, self.mask[part]))
        a, b = (np.concatenate(kept) for kept in rows)
        cosine, rank = METRICS["cosine"](), METRICS["rank-correlation"]()
        cosine.add(b, a)
        above = np.triu_indices(len(a), 1)
        rank.add(_alike(b)[above], _alike(a)[above])
        return [
            Figure("cosine with the source's embeddings", 1.0, cosine.result(), len(a)),
            Figure("rank correlation of similarities", 1.0, rank.result(), len(above[0])),
        ]

    def _checked(self, made: Array) -> Array:
        if np.isnan(made).any():
            raise UsageError(
                f"the output '{self.output}' on the text holds NaN, which has no score",
                where=self.where,
                hint="look for an overflow in the model",
            )
        return made


def text_evaluation(
    text: str | Path, tokenizer: str | Path | None, model: ir.Model, source: str | Path = ""
) -> TextEvaluation:
    """Read a text in the tokens of a model.

    Args:
        text: A text file in UTF-8.
        tokenizer: A ``tokenizer.json`` or a folder with one; None for the one beside the source.
        model: The source graph.
        source: Its file, if any.

    Raises:
        UsageError: A file that is missing or is none of its kind, a tokenizer that does not fit, a
            text that is too short, or a model that takes no tokens.
    """
    words = _tokenizer(tokenizer, source)
    path = Path(text)
    try:
        content = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"the text '{path}' cannot be read", why=str(error.strerror)) from None
    except UnicodeDecodeError:
        raise UsageError(
            f"'{path}' is no text in UTF-8", hint="--labels takes arrays (.npz), --eval text"
        ) from None
    inputs = tuple(inputs_of(model))
    ids = _ids(inputs)
    known = _known_tokens(model, ids.name)
    output = next(iter(model.graph.outputs))
    dims = [] if output.shape is None else [d if isinstance(d, int) else None for d in output.shape]
    decoder = len(dims) == 3 and (dims[-1] is None or known is None or dims[-1] >= known)
    limit = known or (dims[-1] if decoder and dims else None)
    size = words.get_vocab_size(with_added_tokens=True)
    if limit is not None and size > limit:
        raise UsageError(
            f"the tokenizer does not fit the model: it has {size:,} tokens, the model {limit:,}",
            hint="give the tokenizer.json that came with the model: --tokenizer FILE",
        )
    first, second = ids.shape or (None, None)
    free = not isinstance(second, int)
    length = second if isinstance(second, int) else _LENGTH
    where = str(path)
    if decoder:
        tokens = _windows(words, content, length, free, where)
        mask = np.ones((len(tokens), tokens.shape[1] - 1), np.int64)
    else:
        tokens, mask = _sentences(words, content, length, free, where)
    batch = first if isinstance(first, int) else _BATCH
    whole = len(tokens) if not isinstance(first, int) else len(tokens) // batch * batch
    if not whole:
        raise UsageError(
            f"the model takes {batch} samples at a time, the text gives {len(tokens)}", where=where
        )
    return TextEvaluation(
        where, decoder, tokens[:whole], mask[:whole], inputs, ids.name, output.name or "", batch
    )


def _tokenizer(given: str | Path | None, source: str | Path) -> Any:  # noqa: ANN401  no types
    beside = Path(source).with_name("tokenizer.json") if source else Path("tokenizer.json")
    path = beside if given is None else Path(given)
    if path.is_dir():
        path = path / "tokenizer.json"
    if not path.is_file():
        raise UsageError(
            "the text needs the model's tokenizer"
            if given is None
            else f"there is no tokenizer '{path}'",
            hint="give --tokenizer tokenizer.json (or its folder)",
        )
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise UsageError(
            "text is read with the package 'tokenizers', which is not installed",
            hint="pip install 'qcomp[text]'",
        ) from None
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises Exception itself
        raise UsageError(
            f"'{path}' is no tokenizer",
            why=str(error).splitlines()[0],
            hint="the file that Hugging Face calls tokenizer.json",
        ) from None


def _ids(inputs: Sequence[Input]) -> Input:
    """The input that takes tokens; all others have to be known by their names."""
    other = ("mask", "position", "type", "past")
    found = [
        item
        for item in inputs
        if np.dtype(item.dtype).kind in "iu"
        and item.shape is not None
        and len(item.shape) == 2
        and not any(word in item.name.lower() for word in other)
    ]
    if len(found) != 1:
        names = ", ".join(f"'{item.name}'" for item in inputs)
        raise UsageError(
            "the model takes no tokens that a text could become",
            why=f"its inputs are {names}; one of whole numbers [samples, length] is looked for",
            hint="give arrays: --labels labels.npz",
        )
    for item in inputs:
        if item is not found[0] and not any(word in item.name.lower() for word in other):
            raise UsageError(
                f"a text gives nothing for the input '{item.name}'",
                hint="give arrays: --labels labels.npz",
            )
    return found[0]


def _known_tokens(model: ir.Model, ids: str) -> int | None:
    """Rows of the table that tokens are looked up in; None where it is not found."""
    names = {ids}
    for node in model.graph:
        read = [None if value is None else value.name for value in node.inputs]
        if node.op_type in ("Cast", "Identity", "Reshape", "Squeeze") and read[0] in names:
            names.add(node.outputs[0].name or "")
        places = {"Gather": (1, 0), "EmbedLayerNormalization": (0, 2)}.get(node.op_type)
        if places is None or read[places[0]] not in names:
            continue
        table = node.inputs[places[1]]
        stored = None if table is None else table.const_value
        if stored is not None and len(stored.shape) == 2:
            return int(stored.shape.numpy()[0])
    return None


def _windows(words: Any, content: str, length: int, free: bool, where: str) -> Array:  # noqa: ANN401
    tokens = np.array(words.encode(content, add_special_tokens=False).ids, np.int64)
    if free and _SHORTEST < len(tokens) <= length:
        length = len(tokens) - 1
    if len(tokens) < length + 1:
        raise UsageError(
            f"the text is too short: {len(tokens)} tokens, at least "
            f"{(_SHORTEST if free else length) + 1} are needed",
            where=where,
            hint="some thousand words of what the model is for",
        )
    count = min(_WINDOWS, len(tokens) // (length + 1))
    starts = np.linspace(0, len(tokens) - length - 1, count).astype(np.int64)
    return np.stack([tokens[start : start + length + 1] for start in starts])


def _sentences(
    words: Any,  # noqa: ANN401
    content: str,
    length: int,
    free: bool,
    where: str,
) -> tuple[Array, Array]:
    lines = [line for line in content.splitlines() if line.strip()][:_LINES]
    if len(lines) < _LEAST_LINES:
        raise UsageError(
            f"the text is too short: {len(lines)} lines, at least {_LEAST_LINES} are needed",
            where=where,
            hint="embeddings are compared sentence by sentence: one a line",
        )
    words.no_padding()
    words.enable_truncation(length)
    found = [words.encode(line).ids for line in lines]
    width = max(map(len, found)) if free else length
    pads = (words.token_to_id(word) for word in ("[PAD]", "<pad>", "<|endoftext|>"))
    tokens = np.full((len(found), width), next((p for p in pads if p is not None), 0), np.int64)
    mask = np.zeros_like(tokens)
    for row, ids in enumerate(found):
        tokens[row, : len(ids)], mask[row, : len(ids)] = ids, 1
    return tokens, mask


def _logarithms(logits: Array) -> Doubles:
    x = logits.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def _divergence(first: Array, second: Array) -> float:
    """Sum of KL(first || second) over positions, in nats."""
    p, q = (array.reshape(-1, array.shape[-1]) for array in (first, second))
    total = 0.0
    for start in range(0, len(p), _ROWS):
        a, b = (_logarithms(array[start : start + _ROWS]) for array in (p, q))
        total += float((np.exp(a) * (a - b)).sum())
    return total


def _pooled(made: Array, mask: Array) -> Array:
    """One embedding a sentence: those of its tokens averaged."""
    if made.ndim != 3:
        return made.reshape(len(made), -1)
    weights = mask[:, : made.shape[1], None].astype(np.float64)
    return np.asarray((made.astype(np.float64) * weights).sum(1) / np.maximum(weights.sum(1), 1.0))


def _alike(embeddings: Array) -> Array:
    """Cosines of all pairs."""
    size = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = embeddings / np.where(size > 0, size, 1)
    return np.asarray(unit @ unit.T)
