"""Calibration data in every form as rounds of checked batches."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from qcomp.errors import UsageError
from qcomp.feeds.columns import ArrayColumns, Columns, FileColumns, Rows
from qcomp.feeds.images import IMAGES, ImageColumns, ImageShape
from qcomp.feeds.inputs import (
    Array,
    Conversion,
    Input,
    different_counts,
    missing_input,
)
from qcomp.feeds.preprocess import FunctionPreprocess, load
from qcomp.feeds.rules import Rule, RulePreprocess
from qcomp.feeds.streams import Stream, as_array, open_stream

__all__ = ["Batches", "calibration_batches", "load_inputs", "open_columns"]

Batch = dict[str, Array]


class Batches:
    """Data for the inputs of a model: each call starts a new round over the batches.

    A batch is a dict, input name -> array, samples first, types and shapes as the model takes them.
    Memory is that of one batch.

    Args:
        source: Where raw batches come from.
        conversion: The check against the model's inputs.
        where: What the data is, for messages.

    Attributes:
        where: What the data is, for messages.
        ignored: Names of arrays of a file or dict that no input needed.
    """

    def __init__(
        self,
        source: _ColumnBatches | _StreamBatches,
        conversion: Conversion,
        where: str,
        ignored: tuple[str, ...] = (),
    ) -> None:
        self.where, self.ignored = where, ignored
        self._source, self._conversion = source, conversion
        self._samples: int | None = None

    def __call__(self) -> Generator[Mapping[str, Array], None, None]:
        """Start a new round.

        Raises:
            UsageError: At a batch that the model cannot take.
        """
        seen = 0
        for batch in self._regrouped():
            seen += self._conversion.samples(batch)
            yield batch
        if not seen:
            raise UsageError(f"{self.where} has no sample", hint="give at least one")
        self._samples = seen

    @property
    def samples(self) -> int:
        """Number of samples; counted by a round over the data where nothing tells it."""
        if self._samples is None:
            for _ in self():
                pass
        assert self._samples is not None
        return self._samples

    def check(self) -> None:
        """Look at the first batch, so that a mistake is met before any work is done."""
        with contextlib.closing(self()) as batches:
            next(batches)

    def _converted(self) -> Iterator[Batch]:
        start = 0
        raw_batches = self._source()
        try:
            for raw in raw_batches:
                batch = self._conversion(raw, start=start)
                count = self._conversion.samples(batch)
                start += count
                if count:
                    yield batch
        except UsageError as error:
            if self.where not in error.where:
                error.where = f"{self.where}, {error.where}" if error.where else self.where
            raise

    def _regrouped(self) -> Iterator[Batch]:
        """Cut and join the batches where the model fixes the number of samples."""
        size = self._conversion.fixed
        if size is None:
            yield from self._converted()
            return
        held: Batch = {}
        total = 0
        for batch in self._converted():
            total += self._conversion.samples(batch)
            for name in self._conversion.sampled:
                if name in held and held[name].shape[0]:
                    batch[name] = np.concatenate([held[name], batch[name]])
            while self._conversion.samples(batch) >= size:
                yield {n: a if a.ndim == 0 else a[:size] for n, a in batch.items()}
                batch = {n: a if a.ndim == 0 else a[size:] for n, a in batch.items()}
            held = batch
        if held and self._conversion.samples(held):
            raise UsageError(
                f"the model takes batches of exactly {size} samples, {total} do not divide",
                where=self.where,
                hint=f"give {total // size * size or size} samples, "
                "or export the model with a free batch dimension",
            )


class _ColumnBatches:
    """Raw batches of named arrays, the rows of each read as they are needed."""

    def __init__(
        self,
        columns: Columns,
        conversion: Conversion,
        steps: RulePreprocess | FunctionPreprocess | None,
        batch_size: int,
    ) -> None:
        self.columns, self.conversion, self.steps = columns, conversion, steps
        self.size = batch_size
        self.constants: dict[str, Array] = {}
        self.sources: dict[str, str] = {}
        if not isinstance(steps, FunctionPreprocess):
            rules = steps.rules if steps else {}
            for name in conversion.names:
                if name in conversion.required or name in columns.headers or name in rules:
                    self.sources[name] = _source_name(name, rules.get(name), columns, conversion)
            counts = {
                source: columns.length(source)
                for name, source in self.sources.items()
                if name in conversion.sampled
            }
            for source in counts:
                if not columns.headers[source].shape:
                    raise UsageError(
                        f"'{source}' of {columns.where} is one number",
                        hint="samples come on the first axis",
                    )
            if len(set(counts.values())) > 1:
                raise different_counts(counts)
            for name in conversion.constant:
                array = columns.whole(self.sources[name])
                self.constants[name] = _ruled(rules.get(name), array, name, columns)

    def used(self) -> frozenset[str]:
        """Return the names of the arrays that are read; a function may read any."""
        return frozenset(self.sources.values() if self.sources else self.columns.headers)

    def __call__(self) -> Iterator[Mapping[str, Array]]:
        with contextlib.closing(_Cursor(self.columns)) as cursor:
            start = 0
            while True:
                cursor.move(start, start + self.size)
                batch = self._batch(cursor)
                end = cursor.length()
                if start < end or not start:
                    yield batch
                start += self.size
                if start >= end:
                    return

    def _batch(self, cursor: _Cursor) -> Mapping[str, Array]:
        if isinstance(self.steps, FunctionPreprocess):
            return self.steps(cursor)
        rules = self.steps.rules if self.steps else {}
        batch = dict(self.constants)
        for name in self.conversion.sampled:
            if name in self.sources:
                rows = cursor[self.sources[name]]
                batch[name] = _ruled(rules.get(name), rows, name, self.columns)
        return batch


class _Cursor(Mapping[str, Array]):
    """A window of rows over named arrays, each opened when it is first asked for.

    Arrays of rank 0 are given whole. Which arrays were asked for decides how many samples there
    are, so a file may hold arrays of other lengths beside them.
    """

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._rows: dict[str, Rows] = {}
        self._at: dict[str, int] = {}
        self._window: dict[str, Array] = {}
        self._start = self._stop = 0

    def move(self, start: int, stop: int) -> None:
        """Set the window."""
        self._start, self._stop = start, stop
        self._window = {}

    def __getitem__(self, name: str) -> Array:
        if name not in self._columns.headers:
            raise KeyError(name)
        if name not in self._window:
            if name not in self._rows:
                self._rows[name] = self._columns.rows(name)
                self._at[name] = 0
            rows = self._rows[name]
            if not self._columns.headers[name].shape:
                self._window[name] = self._columns.whole(name)
            else:
                rows.skip(self._start - self._at[name])
                self._window[name] = rows.read(self._stop - self._start)
                self._at[name] = self._stop
        return self._window[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns.headers)

    def __len__(self) -> int:
        return len(self._columns.headers)

    def length(self) -> int:
        """Return the number of samples of the arrays that were asked for."""
        headers = self._columns.headers
        counts = {n: self._columns.length(n) for n in self._rows if headers[n].shape}
        if len(set(counts.values())) > 1:
            raise different_counts(counts)
        return next(iter(counts.values()), 1)

    def close(self) -> None:
        """Close what was opened."""
        for rows in self._rows.values():
            rows.close()


class _StreamBatches:
    """Raw batches of an iterable."""

    def __init__(
        self,
        stream: Stream,
        conversion: Conversion,
        steps: RulePreprocess | FunctionPreprocess | None,
    ) -> None:
        self.stream, self.conversion, self.steps = stream, conversion, steps

    def __call__(self) -> Iterator[Mapping[str, Array]]:
        for index, batch in enumerate(self.stream()):
            try:
                yield self._batch(batch)
            except UsageError as error:
                place = f"batch {index}"
                if not error.where.startswith(place):
                    error.where = f"{place}, {error.where}" if error.where else place
                raise

    def _batch(self, batch: Batch) -> Mapping[str, Array]:
        if self.steps is None:
            return batch
        if isinstance(self.steps, FunctionPreprocess):
            return self.steps(batch)
        columns = ArrayColumns(batch, "the batch")
        result = {}
        for name in self.conversion.names:
            rule = self.steps.rules.get(name)
            source = _source_name(name, rule, columns, self.conversion)
            result[name] = _ruled(rule, batch[source], name, columns)
        return result


def calibration_batches(
    data: object,
    inputs: Sequence[Input] | Sequence[tuple[str, object, Sequence[int | str | None] | None]],
    *,
    batch_size: int = 32,
    preprocess: object = None,
    finite: bool = True,
) -> Batches:
    """Return data for a model's inputs as rounds of batches; the first batch is checked here.

    Args:
        data: One of: the path of an ``.npz`` whose arrays are named as the inputs, or of an
            ``.npy`` for a model of one input; a dict of arrays; an array for a model of one input;
            an iterable of batches (dicts, or tuples in the order of the inputs); a PyTorch
            DataLoader; an ONNX Runtime ``CalibrationDataReader``; a folder of PNG or JPEG images.
            Samples come first. Where every input is there, other arrays are left out.
        inputs: (name, type, shape) of what the model takes.
        batch_size: Samples of a batch, where the data does not come in batches and the model does
            not fix them.
        preprocess: How raw arrays become inputs: the path of a JSON file, ``module:function``, a
            mapping as the file would hold, or a function.
        finite: Whether NaN and infinite values are refused.

    Returns:
        A function that starts a new round; its attribute ``samples`` counts them.

    Raises:
        UsageError: If the data cannot be read, or does not fit the inputs; one reason.
    """
    conversion = Conversion(cast("Sequence[Input]", inputs), finite=finite)
    if batch_size < 1:
        raise UsageError(f"a batch of {batch_size} samples is none")
    steps = load(preprocess, conversion.names)
    batches = _open(data, conversion, steps, batch_size)
    batches.check()
    return batches


def load_inputs(
    data: object,
    inputs: Sequence[Input] | Sequence[tuple[str, object, Sequence[int | str | None] | None]],
    *,
    preprocess: object = None,
    finite: bool = False,
) -> dict[str, Array]:
    """Return data for a model's inputs as whole arrays, all samples in one batch.

    Args:
        data: As for :func:`calibration_batches`.
        inputs: (name, type, shape) of what the model takes.
        preprocess: As for :func:`calibration_batches`.
        finite: Whether NaN and infinite values are refused.

    Raises:
        UsageError: If the data cannot be read, or does not fit the inputs.
    """
    batches = calibration_batches(data, inputs, preprocess=preprocess, finite=finite)
    conversion = batches._conversion
    parts = list(batches())
    return {
        name: np.concatenate([part[name] for part in parts])
        if name in conversion.sampled and len(parts) > 1
        else parts[0][name]
        for name in conversion.names
    }


def open_columns(data: object, shape: ImageShape | None = None) -> Columns | None:
    """Return data that is named arrays as such; None where it is an iterable of batches.

    Raises:
        UsageError: If it cannot be read.
    """
    if isinstance(data, str | os.PathLike):
        path = Path(data)
        return ImageColumns(path, shape or ImageShape()) if path.is_dir() else FileColumns(path)
    if isinstance(data, Mapping):
        return ArrayColumns({str(n): as_array(a, f"array '{n}'") for n, a in data.items()})
    if isinstance(data, np.ndarray) or _is_tensor(data):
        return ArrayColumns({"data": as_array(data, "the data")})
    return None


def _open(
    data: object,
    conversion: Conversion,
    steps: RulePreprocess | FunctionPreprocess | None,
    batch_size: int,
) -> Batches:
    images = None
    if isinstance(steps, RulePreprocess):
        images = next((r.images for r in steps.rules.values() if r.source in ("", IMAGES)), None)
    columns = open_columns(data, images)
    if columns is None:
        names = conversion.names
        if isinstance(steps, RulePreprocess):
            names = tuple(rule.source or name for name, rule in steps.rules.items())
        source = _StreamBatches(open_stream(data, names), conversion, steps)
        return Batches(source, conversion, "the data")
    if not conversion.sampled and not isinstance(steps, FunctionPreprocess):
        batch_size = 1
    columns_source = _ColumnBatches(columns, conversion, steps, conversion.fixed or batch_size)
    used = columns_source.used()
    if isinstance(steps, RulePreprocess):
        # What the steps name for the evaluation is no oversight either.
        used |= {rule.evaluation for rule in steps.rules.values()}
        used |= {steps.labels.source} if steps.labels else set()
    ignored = tuple(name for name in columns.headers if name not in used)
    return Batches(columns_source, conversion, columns.where, ignored)


def _source_name(name: str, rule: Rule | None, columns: Columns, conversion: Conversion) -> str:
    """Return the array that an input is made from."""
    wanted = rule.source if rule else ""
    if wanted in columns.headers:
        return wanted
    if not wanted:
        if name in columns.headers:
            return name
        only = list(columns.headers)
        unnamed = isinstance(columns, ImageColumns) or only == ["data"] or _is_npy(columns)
        if len(only) == len(conversion.names) == 1 and (unnamed or rule is not None):
            return only[0]
        raise missing_input(name, conversion.names, columns.headers)
    error = missing_input(wanted, (), columns.headers)
    raise UsageError(
        f"the data has no array '{wanted}', from which the input '{name}' is made",
        where=columns.where,
        hint=error.hint.partition(" - name the array")[0],
    )


def _is_npy(columns: Columns) -> bool:
    return isinstance(columns, FileColumns) and columns.path.suffix.lower() == ".npy"


def _ruled(rule: Rule | None, array: Array, name: str, columns: Columns) -> Array:
    if rule is None:
        return array
    return rule(array, name, is_sized=isinstance(columns, ImageColumns))


def _is_tensor(data: object) -> bool:
    import sys

    torch = sys.modules.get("torch")
    return torch is not None and isinstance(data, torch.Tensor)
