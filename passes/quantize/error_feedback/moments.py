"""Second moments of a layer's input: all that error feedback has to know about the data.

For a layer y = W x, with x~ its input in the float model and x in the model whose earlier layers
are quantized already, and a weight r_t for each token t,

    H = 2/n sum_t r_t^2 x_t x_t^T,        D = 2/n sum_t r_t^2 (x~_t - x_t) x_t^T.

H is the Hessian of the squared output error in each row of W (Frantar et al. 2022,
arXiv:2210.17323, section 3.1); D is the cross moment of asymmetric calibration (Li et al. 2025,
arXiv:2504.02692, equation 9); the weights r_t are RSQ's token importance (Sung et al. 2025,
arXiv:2503.01820). Both are running means: memory K^2 whatever the number of tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Moments"]

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


class Moments:
    """H and, where float inputs are given, D of one layer input.

    Args:
        columns: Input channels K.
        asymmetric: Whether float inputs come too.

    Attributes:
        hessian: H, float32[K, K].
        drift: D, float32[K, K], or None.
        tokens: Tokens seen.
    """

    def __init__(self, columns: int, asymmetric: bool = False) -> None:
        self.hessian: Floats = np.zeros((columns, columns), dtype=np.float32)
        self.drift: Floats | None = np.zeros_like(self.hessian) if asymmetric else None
        self.tokens = 0

    def add(
        self, inputs: Floats, floats: Floats | None = None, importance: Floats | None = None
    ) -> None:
        """Take in tokens.

        Args:
            inputs: float32[n, K], as the quantized predecessors give them.
            floats: float32[n, K], the same tokens in the float model.
            importance: float32[n], r_t; 1 by default.

        Raises:
            ValueError: ``floats`` is missing where D is asked for, or shapes differ.
        """
        if (floats is None) != (self.drift is None):
            raise ValueError("float inputs are needed exactly for asymmetric calibration")
        count = len(inputs)
        if not count:
            return
        self.tokens += count
        keep, share = 1 - count / self.tokens, 2 / self.tokens
        with np.errstate(over="ignore", invalid="ignore"):  # see settle
            x = inputs if importance is None else inputs * importance[:, None]
            self.hessian *= np.float32(keep)
            _add(self.hessian, x.T @ x, share)
            if floats is not None and self.drift is not None:
                moved = floats - inputs
                if importance is not None:
                    moved *= importance[:, None]
                self.drift *= np.float32(keep)
                _add(self.drift, moved.T @ x, share)

    def settle(self) -> bool:
        """Put equal moments, H = I and D = 0, in the place of what is no number.

        Returns:
            Whether all were numbers: inputs above 1e19 have squares that float32 does not hold.
        """
        parts = [self.hessian] if self.drift is None else [self.hessian, self.drift]
        if all(np.isfinite(row).all() for part in parts for row in part):
            return True
        self.hessian = np.eye(len(self.hessian), dtype=np.float32)
        self.drift = None if self.drift is None else np.zeros_like(self.hessian)
        return False


def _add(total: Floats, product: npt.NDArray[Any], share: float) -> None:
    product *= np.float32(share)
    total += product
