"""GPFQ: weights rounded greedily along the path that the output takes.

Neuron w, its inputs x~ (float model) and x (quantized predecessors), u_0 = 0:

    q_t = Q( <X_t, u_{t-1} + w_t X~_t> / |X_t|^2 ),    u_t = u_{t-1} + w_t X~_t - q_t X_t,

X_t the column of all tokens' values of input t (Zhang, Zhou and Saab 2022, arXiv:2201.11113,
equations 8 and 9). The running error u is never formed: only its products with the columns are
needed, and these are sums over the second moments G = X^T X and C = X^T X~,

    <X_t, u_{t-1}> = sum_{s<t} (w_s C_ts - q_s G_ts),

so memory is K^2 and the data can stream. The sparse variants (section 5, 'sparse GPFQ') put a
threshold in front of Q: hard, 0 where |z| <= lambda; soft, sign(z) max(|z| - lambda, 0).
Cost: N K^2 multiplications.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from qcomp.kernels import kernel
from qcomp.passes.quantize.grids import Grids

__all__ = ["Threshold", "follow_path"]

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Threshold = Literal["none", "hard", "soft"]


@kernel(fastmath=True)
def _follow(
    w: Any,
    gram: Any,
    cross: Any,
    scale: Any,
    zero: Any,
    top: Any,
    soft: Any,
    hard: Any,
    levels: Any,
) -> None:
    n, k = w.shape
    real = np.empty(k, dtype=np.float32)
    for r in range(n):
        row = w[r]
        for t in range(k):
            z = row[t]
            if gram[t, t] > 0:
                total = row[t] * cross[t, t]
                for s in range(t):
                    total += row[s] * cross[t, s] - real[s] * gram[t, s]
                z = total / gram[t, t]
            if abs(z) <= hard:
                z = np.float32(0)
            if soft > 0:
                z = max(z - soft, np.float32(0)) + min(z + soft, np.float32(0))
            q = min(max(np.rint(z / scale[r, t]) + zero[r, t], np.float32(0)), top)
            levels[r, t] = np.uint8(q)
            real[t] = (q - zero[r, t]) * scale[r, t]


def follow_path(
    weight: Floats,
    hessian: Floats,
    grids: Grids,
    drift: Floats | None = None,
    threshold: Threshold = "none",
    strength: float = 0.0,
) -> Bytes:
    """Round a matrix along the path.

    Args:
        weight: float32[N, K].
        hessian: G float32[K, K], in any scale.
        grids: What to round to.
        drift: sum (x~ - x) x^T in the same scale, so that C^T = G + drift; none: x~ = x.
        threshold: The sparse variant.
        strength: lambda, in the unit of the weights, for ``hard`` and ``soft``.

    Returns:
        Levels uint8[N, K].
    """
    gram = np.ascontiguousarray(hessian, dtype=np.float32)
    cross = gram if drift is None else np.ascontiguousarray((gram + drift).T, dtype=np.float32)
    scale, zero = grids.columns(weight.shape[1])
    levels = np.empty(weight.shape, dtype=np.uint8)
    soft = np.float32(strength if threshold == "soft" else 0.0)
    hard = np.float32(strength if threshold == "hard" else -1.0)
    w = np.ascontiguousarray(weight, dtype=np.float32)
    _follow(w, gram, cross, scale, zero, np.float32(grids.grid.top), soft, hard, levels)
    return levels
