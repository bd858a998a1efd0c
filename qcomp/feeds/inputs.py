"""What a model takes, and the check and conversion of an array to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import UsageError, suggest

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import DTypeLike

__all__ = ["Array", "Conversion", "Input", "inputs_of"]

Array = NDArray[np.generic]


class Input(NamedTuple):
    """An input of a model.

    Attributes:
        name: Its name.
        dtype: Its element type.
        shape: A number for a fixed dimension, a name or None for one that may be any; None as a
            whole when not even the rank is known.
    """

    name: str
    dtype: DTypeLike
    shape: Sequence[int | str | None] | None

    def empty_past(self, samples: int) -> Array | None:
        """Keys or values of a past without a token; None for an input that is not of that kind.

        Args:
            samples: Samples of the batch.
        """
        shape = self.shape or ()
        if "past" not in self.name.lower() or len(shape) < 4:
            return None
        sizes = [dim if isinstance(dim, int) else 0 for dim in shape[1:]]
        return None if all(sizes) else np.zeros([samples, *sizes], self.dtype)


def inputs_of(model: ir.Model) -> list[Input]:
    """Return the inputs of a graph that have to be given, in order."""
    result = []
    for value in model.graph.inputs:
        if value.name is None or value.name in model.graph.initializers:
            continue
        dtype = np.dtype(np.float32) if value.dtype is None else value.dtype.numpy()
        shape = None
        if value.shape is not None:
            shape = [dim if isinstance(dim, int) else dim.value for dim in value.shape]
        result.append(Input(value.name, dtype, shape))
    return result


class Conversion:
    """Checks batches against the inputs of a model and casts them where nothing is lost.

    Inputs whose first dimension may be any, or is the same number for all, are sampled: samples
    come first. Among inputs of both kinds, the wholly fixed ones and the scalars are constants:
    the same array goes with every batch. A past (keys and values before the tokens at hand) that is
    not given is empty.

    Args:
        inputs: What the model takes.
        finite: Whether NaN and infinite values are refused.

    Attributes:
        names: Names of the inputs, in order.
        required: Those that have to be given.
        sampled: Those that have samples first.
        constant: Those given once.
        fixed: The number of samples of every batch where the model fixes it, else None.
    """

    def __init__(self, inputs: Sequence[Input], *, finite: bool = True) -> None:
        self.inputs = {item[0]: Input(item[0], np.dtype(item[1]), item[2]) for item in inputs}
        self.names = tuple(self.inputs)
        self.required = tuple(n for n, item in self.inputs.items() if item.empty_past(1) is None)
        self.finite = finite
        if not self.inputs:
            raise UsageError("the model takes no input, so no data can be given to it")
        first: dict[str, int | None] = {}
        for name, item in self.inputs.items():
            if item.shape is None or len(item.shape):
                head = None if item.shape is None else item.shape[0]
                first[name] = head if isinstance(head, int) else None
        free = [name for name, size in first.items() if size is None]
        sizes = set(first.values())
        self.fixed: int | None = None
        if free:
            self.sampled = tuple(free)
        elif len(sizes) == 1:
            self.sampled = tuple(first)
            self.fixed = sizes.pop()
        else:
            self.sampled = ()
        self.constant = tuple(name for name in self.names if name not in self.sampled)

    def __call__(self, arrays: Mapping[str, Array], *, start: int = 0) -> dict[str, Array]:
        """Return the batch as the model takes it, inputs in the model's order.

        Args:
            arrays: Input name -> array; other names are left out.
            start: Number of samples before this batch, for messages.

        Raises:
            UsageError: If an input is missing, or an array has the wrong shape, a type that cannot
                be cast without loss, or values that are not finite.
        """
        batch: dict[str, Array] = {}
        given = [np.asarray(arrays[name]) for name in self.sampled if name in arrays]
        samples = max((array.shape[0] for array in given if array.ndim), default=0)
        for name, item in self.inputs.items():
            past = item.empty_past(samples) if name not in arrays else None
            if name not in arrays and past is None:
                raise missing_input(name, self.names, arrays)
            array = np.asarray(arrays[name] if past is None else past)
            self._check_shape(item, array)
            batch[name] = self._cast(item, array, start)
        counts = {name: batch[name].shape[0] for name in self.sampled}
        if len(set(counts.values())) > 1:
            raise different_counts(counts)
        return batch

    def samples(self, batch: Mapping[str, Array]) -> int:
        """Return the number of samples of a converted batch; one where nothing is sampled."""
        return int(batch[self.sampled[0]].shape[0]) if self.sampled else 1

    def _check_shape(self, item: Input, array: Array) -> None:
        if item.shape is None:
            if item.name in self.sampled and array.ndim == 0:
                raise UsageError(f"'{item.name}' is one number; samples come on the first axis")
            return
        sampled = item.name in self.sampled
        skip = 1 if sampled else 0
        dims = list(item.shape)
        fits = array.ndim == len(dims) and all(
            not isinstance(dim, int) or dim == size
            for dim, size in zip(dims[skip:], array.shape[skip:], strict=True)
        )
        if fits:
            return
        wanted = (["n"] if sampled else []) + [_word(dim) for dim in dims[skip:]]
        got = (["n"] if sampled and array.ndim else []) + [str(k) for k in array.shape[skip:]]
        raise UsageError(
            f"the data of input '{item.name}' has shape [{', '.join(got)}], "
            f"the model takes [{', '.join(wanted)}]",
            hint=_shape_hint(dims, array.shape, sampled),
        )

    def _cast(self, item: Input, array: Array, start: int) -> Array:
        wanted = np.dtype(item.dtype)
        if array.dtype != wanted:
            array = _cast(item.name, array, wanted, start)
        if self.finite and not _is_finite(array):
            index, value = _first_bad(array)
            place = f"sample {start + index[0]}" if item.name in self.sampled else "the array"
            raise UsageError(
                f"the data of input '{item.name}' holds {value}",
                where=f"{place}, position {_show(index[1:] or index)}",
                why="ranges cannot be taken from values that are not finite",
                hint="clean the data; a mask of -inf can be a large negative number",
            )
        return np.ascontiguousarray(array) if array.ndim else array


def missing_input(name: str, wanted: Sequence[str], there: Mapping[str, object]) -> UsageError:
    """Return the error for data without an input of the model."""
    others = [other for other in there if other not in wanted]
    if not others:
        have = ", ".join(f"'{other}'" for other in there) or "nothing"
        hint = f"the data holds {have}, the model takes " + ", ".join(f"'{w}'" for w in wanted)
    else:
        hint = (
            f"{suggest(name, others)} - name the array as the input, "
            f'or map it with --preprocess: {{"{name}": {{"from": "{nearest(name, others)}"}}}}'
        )
    return UsageError(f"the data has no array for the model's input '{name}'", hint=hint)


def nearest(name: str, known: Sequence[str]) -> str:
    """Return the nearest of some names; the first when none is near."""
    import difflib

    lower = {item.lower(): item for item in known}
    found = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
    return lower[found[0]] if found else known[0]


def different_counts(counts: Mapping[str, int]) -> UsageError:
    """Return the error for arrays that do not have the same number of samples."""
    return UsageError(
        "the arrays have different numbers of samples",
        why=", ".join(f"'{name}' has {count}" for name, count in counts.items()),
        hint="samples come on the first axis, the same number in every array",
    )


def _word(dim: int | str | None) -> str:
    return str(dim) if isinstance(dim, int) else (dim or "any")


def _show(shape: Sequence[int]) -> str:
    return "[" + ", ".join(str(size) for size in shape) + "]"


def _shape_hint(dims: Sequence[int | str | None], got: Sequence[int], sampled: bool) -> str:
    rest = list(dims[1:])
    if sampled and len(got) == len(rest) and _like(rest, got):
        return "one sample was given; samples come on the first axis, so give [1, ...]"
    if sampled and len(got) == len(dims) == 4 and _like([rest[1], rest[2], rest[0]], got[1:]):
        return 'channels are last here and first in the model: --preprocess with {"layout": "NCHW"}'
    if sampled and len(got) == len(dims) == 4 and _like([rest[2], rest[0], rest[1]], got[1:]):
        return (
            "channels are first here and last in the model: "
            '--preprocess with {"layout": "NCHW->NHWC"}'
        )
    known = [dim for dim in rest if isinstance(dim, int)]
    if sampled and len(known) == len(rest) and got and int(np.prod(got[1:])) == int(np.prod(known)):
        return f'the sizes agree: --preprocess with {{"reshape": {_show(known)}}}'
    return "samples come on the first axis, then the shape of one sample"


def _like(dims: Sequence[int | str | None], got: Sequence[int]) -> bool:
    """Whether sizes fit dimensions, at least one of which is a number."""
    fixed = [isinstance(dim, int) for dim in dims]
    return any(fixed) and all(
        not isinstance(dim, int) or dim == size for dim, size in zip(dims, got, strict=True)
    )


def _is_float(dtype: np.dtype[np.generic]) -> bool:
    """Whether a type is a real float, those of ml_dtypes (kind V, with a name) included."""
    return dtype.kind == "f" or (dtype.kind == "V" and "float" in dtype.name)


def _is_finite(array: Array) -> bool:
    if array.dtype.kind == "c" or _is_float(array.dtype):
        return bool(np.isfinite(array).all())
    return True


def _first_bad(array: Array) -> tuple[tuple[int, ...], str]:
    bad = ~np.isfinite(array)
    flat = int(np.argmax(bad))
    index = tuple(int(i) for i in np.unravel_index(flat, array.shape))
    value = array.reshape(-1)[flat]
    return index or (0,), "NaN" if bool(np.isnan(value)) else "an infinite value"


def _cast(name: str, array: Array, wanted: np.dtype[np.generic], start: int) -> Array:
    """Cast an array; floats may round, whole numbers may not change, nothing may overflow."""
    have = array.dtype
    if have.hasobject:
        raise pickled(f"the data of input '{name}'")
    hint = ""
    if have.kind in "biuf" or _is_float(have):
        if _is_float(wanted):
            with np.errstate(over="ignore", invalid="ignore"):
                result = array.astype(wanted)
            lost = np.isinf(result) & np.isfinite(array)
            if not lost.any():
                return result
            hint = "scale the values first"
        elif wanted.kind in "biu" and have.kind in "biu":
            result = array.astype(wanted)
            # Compared as whole numbers: a sign that changed shows by itself.
            same = (result == array) & (np.less(result, 0) == np.less(array, 0))
            if same.all():
                return result
            lost, hint = ~same, "the values do not fit"
        elif wanted.kind in "iub":
            raise _no_cast(name, have, wanted, "give whole numbers, or round them yourself")
        else:
            raise _no_cast(name, have, wanted, "")
        index = int(np.unravel_index(int(np.argmax(lost)), array.shape)[0]) if array.ndim else 0
        value = array.reshape(-1)[int(np.argmax(lost))]
        raise UsageError(
            f"the data of input '{name}' cannot be cast from {have.name} to {wanted.name}",
            where=f"sample {start + index}",
            why=f"{value} would change",
            hint=hint,
        )
    if have.kind in "US" and wanted.kind in "OUST":
        return array.astype(np.str_).astype(object) if wanted.kind == "O" else array
    raise _no_cast(name, have, wanted, "")


def _no_cast(
    name: str, have: np.dtype[np.generic], wanted: np.dtype[np.generic], hint: str
) -> UsageError:
    return UsageError(
        f"the data of input '{name}' is {have.name}, the model takes {wanted.name}",
        why="the cast would lose values",
        hint=hint or f"give an array of {wanted.name}",
    )


def pickled(what: str) -> UsageError:
    """Return the error for data of Python objects."""
    return UsageError(
        f"{what} holds Python objects",
        why="objects are stored by pickle, which can run any code, so they are never read",
        hint="store plain arrays of numbers, all samples of one shape",
    )
