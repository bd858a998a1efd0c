"""Iterables of batches: dicts, tuples and tensors, those that can be read only once included."""

from __future__ import annotations

import io
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np

from qcomp.errors import QcompError, UsageError
from qcomp.feeds.inputs import Array, pickled

__all__ = ["as_array", "as_batch", "open_stream"]

Stream = Callable[[], Iterator[dict[str, Array]]]
_IN_MEMORY = 1 << 26


def open_stream(data: object, names: Sequence[str]) -> Stream:
    """Return a function that starts a new round over an iterable of batches.

    What can be read only once (a generator, an ONNX Runtime ``CalibrationDataReader``), or gives
    other batches each time (a PyTorch loader that shuffles or augments), is read once and kept, in
    memory up to 64 MiB and beyond that in a temporary file.

    Args:
        data: The iterable; each item one batch: a mapping name -> array; a tuple or list of arrays
            in the order of the inputs (what comes after them, as labels, is left out); one array.
        names: Names for items without names.

    Raises:
        UsageError: If ``data`` is nothing of the kind, or cannot be read.
    """
    get_next = getattr(data, "get_next", None)
    if callable(get_next):
        rewind = getattr(data, "rewind", None)
        if callable(rewind):
            rewind()
        return _Spool(iter(cast("Callable[[], object]", get_next), None), names)
    if not isinstance(data, Iterable):
        raise UsageError(
            f"{type(data).__name__} is no data",
            hint="give a path of .npz, a dict of arrays, an iterable of dicts, a torch DataLoader, "
            "an ONNX Runtime CalibrationDataReader, or a folder of images",
        )
    start = iter(data)
    if start is data or _is_loader(data):
        return _Spool(start, names)
    source = data

    def rounds() -> Iterator[dict[str, Array]]:
        for index, item in enumerate(source):
            yield as_batch(item, names, index)

    return rounds


def as_batch(item: object, names: Sequence[str], index: int) -> dict[str, Array]:
    """Return one batch as name -> array.

    Raises:
        UsageError: If it is nothing of the kind.
    """
    where = f"batch {index}"
    if isinstance(item, Mapping):
        return {str(name): as_array(value, f"{where}, '{name}'") for name, value in item.items()}
    if isinstance(item, list | tuple):
        if len(item) < len(names):
            raise UsageError(
                f"a batch of {len(item)} arrays was given, the model takes {len(names)}",
                where=where,
                hint="in this order: " + ", ".join(names),
            )
        pairs = zip(names, item, strict=False)
        return {name: as_array(value, f"{where}, '{name}'") for name, value in pairs}
    if len(names) != 1:
        raise UsageError(
            f"a batch of one {type(item).__name__} was given, the model takes {len(names)} arrays",
            where=where,
            hint="give a dict with " + ", ".join(names),
        )
    return {names[0]: as_array(item, where)}


def as_array(value: object, where: str) -> Array:
    """Return a tensor, array or nested list as an array of numbers.

    Raises:
        UsageError: If it is ragged, or holds Python objects.
    """
    import sys

    torch = sys.modules.get("torch")
    try:
        if torch is not None and isinstance(value, torch.Tensor):
            return _from_torch(value)
        array = np.asarray(value)
    except Exception as error:
        raise UsageError(
            f"{type(value).__name__} cannot be made an array", where=where, why=str(error)
        ) from error
    if array.dtype.hasobject and not all(isinstance(item, str) for item in array.flat):
        raise pickled(f"the array ({where})")
    return array


def _from_torch(tensor: Any) -> Array:  # noqa: ANN401  PyTorch ships no types here
    tensor = tensor.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":
        tensor = tensor.float()
    return cast("Array", tensor.resolve_conj().resolve_neg().numpy())


def _is_loader(data: object) -> bool:
    """Whether this is a PyTorch DataLoader, without importing PyTorch."""
    return any(
        kind.__name__ == "DataLoader" and kind.__module__.partition(".")[0] == "torch"
        for kind in type(data).__mro__
    )


class _Spool:
    """Batches that are read once, kept as ``.npy`` one after the other, and given again."""

    def __init__(self, items: Iterator[object], names: Sequence[str]) -> None:
        self._lock = threading.Lock()
        self._batches: list[list[tuple[str, int]]] = []
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115  kept
        for index, item in enumerate(items):
            self._batches.append(self._keep(as_batch(item, names, index)))

    def _keep(self, batch: Mapping[str, Array]) -> list[tuple[str, int]]:
        places = []
        for name, array in batch.items():
            plain = array.astype(np.str_) if array.dtype.hasobject else array
            # NumPy writes to memory first: of a real file it wants the descriptor.
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, plain, allow_pickle=False)
            try:
                places.append((name, self._file.tell()))
                self._file.write(buffer.getvalue())
            except OSError as error:
                raise QcompError(
                    "the batches cannot be kept in a temporary file",
                    where=tempfile.gettempdir(),
                    why=error.strerror or str(error),
                    hint="free some space, set TMPDIR, or give data that can be read again",
                ) from error
        return places

    def __call__(self) -> Iterator[dict[str, Array]]:
        """Start a new round; rounds may run side by side."""
        for places in self._batches:
            batch: dict[str, Any] = {}
            for name, place in places:
                with self._lock:
                    self._file.seek(place)
                    batch[name] = np.lib.format.read_array(self._file, allow_pickle=False)
            yield batch
