"""The maps of ``qcomp.constructions.encodings`` on torch tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["TORCH_OPS"]


class _Torch:
    """The operations of ``encodings.Ops``; see there.

    Products with a matrix are done in float64: rotations between the CX of a multiplexer are sums
    of angles that add up to angles again, and no compiler rounds them to integers.
    """

    def columns(self, x: Any, index: Sequence[int]) -> Any:  # noqa: ANN401
        if isinstance(index, range):
            return x[..., index.start : index.stop : index.step]
        return x.index_select(-1, torch.tensor(list(index), device=x.device))

    def joined(self, parts: Sequence[Any]) -> Any:  # noqa: ANN401
        return torch.cat(list(parts), dim=-1)

    def matmul(self, x: Any, matrix: NDArray[np.float64]) -> Any:  # noqa: ANN401
        return x.to(torch.float64) @ torch.from_numpy(matrix).to(x.device)

    def constant(self, values: NDArray[np.float64]) -> Any:  # noqa: ANN401
        return torch.from_numpy(np.asarray(values, dtype=np.float32))

    def positive(self, x: Any, then: Any, other: Any) -> Any:  # noqa: ANN401
        return torch.where(x > 0, then, other)

    def sqrt(self, x: Any) -> Any:  # noqa: ANN401
        return torch.sqrt(x)

    def atan(self, x: Any) -> Any:  # noqa: ANN401
        # ONNX Runtime has it in float32 only; sin(t - short) is exact to float64.
        if x.dtype != torch.float64:
            return torch.atan(x)
        short = torch.atan(x.to(torch.float32)).to(torch.float64)
        return short + (x * torch.cos(short) - torch.sin(short)) / torch.sqrt(1.0 + x * x)

    def exp(self, x: Any) -> Any:  # noqa: ANN401
        return torch.exp(x)

    def floor(self, x: Any) -> Any:  # noqa: ANN401
        return torch.floor(x)

    def largest(self, x: Any) -> Any:  # noqa: ANN401
        return x.amax(dim=-1, keepdim=True)


TORCH_OPS = _Torch()
"""The operations on torch tensors, differentiable and exported."""
