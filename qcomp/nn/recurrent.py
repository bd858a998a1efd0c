"""Loops over time steps that are exported as loops: ``scan`` and ``Recurrent``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree as pytree

from qcomp.errors import UsageError

__all__ = ["Recurrent", "scan"]

Tensors = Any
"""A tensor, or a tuple or dict of them."""


def scan(
    step: Callable[[Tensors, Tensors], tuple[Tensors, Tensors]], state: Tensors, inputs: Tensors
) -> tuple[Tensors, Tensors]:
    """Run ``state, output = step(state, input)`` for each time step.

    ::

        s_0 = state,   (s_t, y_t) = step(s_{t-1}, x_t),   t = 1 .. T   ->   s_T, (y_1 .. y_T)

    In PyTorch it is a Python loop, differentiable like any other. Exported, it is one ONNX
    ``Scan``, whatever T: circuits inside of ``step`` stand in the model once, and the artifact
    runs for sequences of any length where the export made the axis of time dynamic.

    Args:
        step: A function of tensors without side effects; the state that it returns has the
            structure, shapes and dtypes of the one that it takes.
        state: The first state: a tensor, or a tuple or dict of tensors.
        inputs: [T, ...], a tensor or a tuple or dict of tensors.

    Returns:
        (the last state, the outputs of all steps stacked on a new first axis).

    Raises:
        UsageError: If there is no step, the sequences have different lengths, or the state changes
            its shape.
    """
    leaves = pytree.tree_leaves(inputs)
    if not leaves or any(leaf.dim() == 0 for leaf in leaves):
        raise UsageError("a loop over time steps needs inputs with an axis of time in front")
    if torch.compiler.is_exporting():
        return _exported(step, state, inputs)
    lengths = {leaf.shape[0] for leaf in leaves}
    if len(lengths) > 1 or lengths == {0}:
        raise UsageError(f"sequences of {sorted(lengths)} steps are no inputs of one loop")
    shapes = _shapes(state)
    outputs = []
    for t in range(lengths.pop()):
        state, output = step(state, pytree.tree_map(lambda leaf, t=t: leaf[t], inputs))
        if _shapes(state) != shapes:
            raise UsageError(
                f"the state of a loop was {shapes} and is {_shapes(state)} after a step",
                hint="a step returns a state of the same shapes and dtypes",
            )
        outputs.append(output)
    return state, pytree.tree_map(lambda *parts: torch.stack(parts), *outputs)


def _exported(
    step: Callable[[Tensors, Tensors], tuple[Tensors, Tensors]], state: Tensors, inputs: Tensors
) -> tuple[Tensors, Tensors]:
    from torch._higher_order_ops.scan import scan as scan_op

    def apart(carried: Tensors, current: Tensors) -> tuple[Tensors, Tensors]:
        # The operator takes no result that is an input or another result.
        new, output = step(carried, current)
        return pytree.tree_map(torch.clone, new), pytree.tree_map(torch.clone, output)

    last, outputs = scan_op(apart, state, inputs)
    return last, outputs


def _shapes(state: Tensors) -> str:
    return str(pytree.tree_map(lambda leaf: (str(leaf.dtype), list(leaf.shape)), state))


def _exported_cell(
    cell: torch.nn.Module,
    step: Callable[[Tensors, Tensors], tuple[Tensors, Tensors]],
    state: Tensors,
    inputs: Tensors,
) -> tuple[Tensors, Tensors]:
    """Export the loop of a cell whose weights are all that the step holds.

    The step is traced by running it once, so it may call what torch's compiler cannot read, such
    as the circuits of another framework.
    """
    from torch._higher_order_ops.scan import scan_op
    from torch.nn.utils import stateless

    first, shape = pytree.tree_flatten(state)
    given, form = pytree.tree_flatten(inputs)
    held = {**dict(cell.named_parameters()), **dict(cell.named_buffers())}
    made: list[Any] = []

    def combine(*values: torch.Tensor) -> list[torch.Tensor]:
        carried = pytree.tree_unflatten(list(values[: len(first)]), shape)
        current = pytree.tree_unflatten(list(values[len(first) :][: len(given)]), form)
        weights = dict(zip(held, values[len(first) + len(given) :], strict=True))
        with stateless._reparametrize_module(cell, weights):
            new, output = step(carried, current)
        leaves, kind = pytree.tree_flatten(output)
        made.append(kind)
        return [leaf.clone() for leaf in (*pytree.tree_leaves(new), *leaves)]

    with torch._C._AutoDispatchBelowAutograd():
        results = scan_op(combine, first, given, tuple(held.values()))
    last = pytree.tree_unflatten(list(results[: len(first)]), shape)
    return last, pytree.tree_unflatten(list(results[len(first) :]), made[-1])


class Recurrent(torch.nn.Module):
    """A cell run over the time steps of a sequence, exported as one loop.

    Example:
        >>> recurrent = Recurrent(torch.nn.GRUCell(3, 4), state_size=4)
        >>> outputs, last = recurrent(torch.zeros(2, 7, 3))
        >>> outputs.shape, last.shape
        (torch.Size([2, 7, 4]), torch.Size([2, 4]))

    Args:
        cell: A module ``cell(input, state) -> state``, as PyTorch's own cells are, or ``-> (output,
            state)`` with ``returns_output``. A state of several tensors is a tuple, as an LSTM's.
        state_size: Size of the state, or a tuple of sizes for a tuple of tensors; the first state
            is zeros [batch, size] unless one is given.
        batch_first: Whether inputs and outputs are [batch, time, ...] in place of [time, batch,
            ...].
        returns_output: Whether the cell returns an output beside its state; else the output is the
            state, its first tensor if it is a tuple.

    Attributes:
        cell: The cell.
    """

    def __init__(
        self,
        cell: torch.nn.Module,
        state_size: int | tuple[int, ...],
        *,
        batch_first: bool = True,
        returns_output: bool = False,
    ) -> None:
        super().__init__()
        self.cell = cell
        self.state_size = state_size
        self.batch_first = batch_first
        self.returns_output = returns_output

    def forward(
        self, inputs: torch.Tensor, state: Tensors | None = None
    ) -> tuple[torch.Tensor, Tensors]:
        """Return (the outputs of all steps, the last state).

        Args:
            inputs: [batch, time, ...], or [time, batch, ...] without ``batch_first``.
            state: The first state; zeros of the inputs' dtype by default.

        Raises:
            UsageError: As :func:`scan`.
        """
        if inputs.dim() < 2:
            raise UsageError(
                f"a sequence has at least the axes of batch and time, not {list(inputs.shape)}"
            )
        if state is None:
            rows = inputs.shape[0 if self.batch_first else 1]
            state = pytree.tree_map(lambda size: inputs.new_zeros(rows, size), self.state_size)
        steps = inputs.transpose(0, 1) if self.batch_first else inputs
        if torch.compiler.is_exporting():
            last, outputs = _exported_cell(self.cell, self._step, state, steps)
        else:
            last, outputs = scan(self._step, state, steps)
        return outputs.transpose(0, 1) if self.batch_first else outputs, last

    def _step(self, state: Tensors, current: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        made = self.cell(current, state)
        if self.returns_output:
            output, new = made
            return new, output
        return made, made[0] if isinstance(made, tuple) else made

    def extra_repr(self) -> str:
        """Return the sizes for printing."""
        return f"state_size={self.state_size}, batch_first={self.batch_first}"
