"""Phases of quantum signal processing, solved by Newton's method, and their check.

Symmetric phases for a real polynomial f of definite parity: with

    U(x) = exp(i phi_0 Z) W(x) ... W(x) exp(i phi_d Z),  W(x) = exp(i arccos(x) X),

and ``phi_k = phi_{d-k}`` the equations ``Im <0|U(x_j)|0> = f(x_j)`` at the positive zeros of a
Chebyshev polynomial have as many unknowns as f has coefficients of its parity. Newton's method
from phases 0 converges for every f with |f| < 1 (Dong, Lin, Ni, Wang 2023, arXiv:2307.12468,
algorithm 1; the fixed point of arXiv:2209.10162 is its first step repeated). Subtracting pi/4 from
both ends turns the imaginary part into the real one.
"""

from __future__ import annotations

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import ArrayLike, NDArray

from qcomp.errors import UsageError

__all__ = [
    "check_polynomial",
    "greatest",
    "parity_of",
    "power_angles",
    "response",
    "symmetric_phases",
]

_STEPS = 60
_EXACT = 1e-13
_GOOD = 1e-9
_NEGLIGIBLE = 1e-14
_ROUNDING = 1e-7


def parity_of(coefs: ArrayLike) -> int | None:
    """Return 0 for an even polynomial, 1 for an odd one, None for a mixed one.

    Args:
        coefs: [d + 1], Chebyshev coefficients from degree 0 up.
    """
    c = np.abs(np.asarray(coefs, dtype=np.float64))
    small = _NEGLIGIBLE * max(float(c.max(initial=0.0)), 1e-300)
    if (c[1::2] <= small).all():
        return 0
    return 1 if (c[::2] <= small).all() else None


def check_polynomial(coefs: ArrayLike) -> NDArray[np.float64]:
    """Return Chebyshev coefficients that quantum signal processing can reach, as float64.

    Raises:
        UsageError: If they are not finite and real, or |f| gets above 1 on [-1, 1].
    """
    c = np.atleast_1d(np.asarray(coefs))
    if c.ndim != 1 or not c.size or np.iscomplexobj(c) or not np.isfinite(c).all():
        raise UsageError(
            "a polynomial is a row of finite real Chebyshev coefficients",
            hint="give a complex function as an even and an odd part, each real up to a phase",
        )
    largest, where = greatest(c)
    if largest > 1 + _ROUNDING:
        raise UsageError(
            f"the polynomial is {largest:.9g} in magnitude at x = {where:.4g}, above 1",
            why="a block of a unitary has no entry above 1",
            hint=f"divide it by {largest * 1.0001:.6g}, which becomes the subnormalisation",
        )
    return c.astype(np.float64)


def greatest(coefs: ArrayLike) -> tuple[float, float]:
    """Return the largest |f| on [-1, 1] to a relative 1e-7, and where it is.

    64 values a degree by a Fourier transform, and a parabola through the largest.

    Args:
        coefs: [d + 1], Chebyshev coefficients.
    """
    c = np.asarray(coefs, dtype=np.float64)
    size = 1 << (128 * len(c)).bit_length()
    values = np.abs(np.fft.fft(c, size).real[: size // 2 + 1])
    k = int(values.argmax())
    low, here, high = (
        values[abs(k - 1)],
        values[k],
        values[min(k + 1, 2 * (len(values) - 1) - k - 1)],
    )
    bend = 2 * here - low - high
    peak = here + (high - low) ** 2 / (8 * bend) if bend > 0 else here
    return float(peak), float(np.cos(2 * np.pi * k / size))


def response(phases: ArrayLike, x: ArrayLike) -> NDArray[np.complex128]:
    """Return ``<0|U(x)|0>`` for each x, complex128 of the shape of x."""
    phi = np.asarray(phases, dtype=np.float64)
    at = np.asarray(x, dtype=np.float64)
    s = 1j * np.sqrt(np.clip(1 - at**2, 0, None))
    a = np.full(at.shape, np.exp(1j * phi[0]))
    b = np.zeros(at.shape, dtype=np.complex128)
    for angle in phi[1:]:
        e = np.exp(1j * angle)
        a, b = (a * at + b * s) * e, (a * s + b * at) / e
    return a


def symmetric_phases(coefs: ArrayLike) -> NDArray[np.float64]:
    """Return phases whose polynomial has the real part f, float64[d + 1].

    Cost: (d / 2)^2 products of 2 by 2 matrices and one solution of d / 2 equations a step, 5 to 10
    steps, more where |f| touches 1.

    Args:
        coefs: [d + 1], Chebyshev coefficients of f from degree 0 up.

    Raises:
        UsageError: If f has no definite parity, gets above 1, or the steps do not converge.
    """
    c = check_polynomial(coefs)
    d = len(c) - 1
    parity = parity_of(c)
    if parity is None or (parity != d % 2 and np.abs(c).any()):
        raise UsageError(
            f"the polynomial of degree {d} has no definite parity",
            why="its phases give a polynomial of the parity of their number",
            hint="give its even and its odd part, which two sets of phases reach",
        )
    count = d // 2 + 1
    nodes = np.cos((2 * np.arange(count) + 1) * np.pi / (4 * count))
    goal = chebyshev.chebval(nodes, c)
    half = np.zeros(count)
    best, residual = half, np.inf
    for _ in range(_STEPS):
        value, slopes = _values(half, d, nodes)
        now = float(np.abs(value - goal).max())
        if now < residual:
            best, residual = half, now
        if residual < _EXACT or not np.isfinite(now):
            break
        half = half + np.linalg.solve(slopes, goal - value)
    half = best
    if residual > _GOOD:
        raise UsageError(
            f"the phases of a polynomial of degree {d} were not found: residual {residual:.2g}",
            why="|f| comes so close to 1 that the equations are singular",
            hint="divide the polynomial by 1.001",
        )
    phases = _spread(half, d)
    phases[0] -= np.pi / 4
    phases[-1] -= np.pi / 4
    return phases


def _spread(half: NDArray[np.float64], d: int) -> NDArray[np.float64]:
    """Return all phases; the first unknown stands in the middle."""
    return np.concatenate([half[::-1], half[1:] if d % 2 == 0 else half])


def _values(
    half: NDArray[np.float64], d: int, x: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (Im <0|U(x)|0>, its derivatives by the unknowns, float64[x, unknowns])."""
    phi = _spread(half, d)
    s = np.sqrt(1 - x**2)
    signal = np.array([[x, 1j * s], [1j * s, x]]).transpose(2, 0, 1)
    turn = np.exp(1j * np.outer(phi, [1, -1]))
    left = np.empty((d + 1, len(x), 2), dtype=np.complex128)
    right = np.empty_like(left)
    left[0] = turn[0] * [1, 0]
    right[d] = [1, 0]
    for k in range(1, d + 1):
        left[k] = np.einsum("xi,xij->xj", left[k - 1], signal) * turn[k]
        j = d - k
        right[j] = np.einsum("xij,xj->xi", signal, turn[j + 1] * right[j + 1])
    value = (left[d][:, 0] * right[d][:, 0]).imag
    each = (1j * (left[..., 0] * right[..., 0] - left[..., 1] * right[..., 1])).imag.T
    middle = len(half) - 1
    slopes = each[:, middle::-1].copy()
    if d % 2 == 0:
        slopes[:, 1:] += each[:, middle + 1 :]
    else:
        slopes += each[:, middle + 1 :]
    return value, slopes


def power_angles(coefs: ArrayLike) -> NDArray[np.float64]:
    """Return theta, phi, lambda of the d + 1 rotations for ``sum_k c_k z^k``, float64[d + 1, 3].

    The complement Q with |P|^2 + |Q|^2 = 1 on the circle has no zero inside of it and is the
    exponential of half of the analytic part of log(1 - |P|^2), by fast Fourier transforms; then
    the rotations are read off from the highest power down (Motlagh and Wiebe 2023,
    arXiv:2308.01501, algorithm 1; the complement: Berntson and Suenderhauf 2024,
    arXiv:2406.04246, algorithm 1).

    Args:
        coefs: [d + 1], complex, from power 0 up; |P| must stay below 1 on the circle.

    Raises:
        UsageError: If |P| reaches 1 - 1e-5 on the circle.
    """
    p = np.atleast_1d(np.asarray(coefs, dtype=np.complex128))
    if p.ndim != 1 or not p.size or not np.isfinite(p).all():
        raise UsageError("a polynomial is a row of finite coefficients")
    size = 1 << max(10, (16 * len(p)).bit_length())
    largest = float(np.abs(np.fft.fft(p, size)).max())
    if largest > 1 - 1e-5:
        raise UsageError(
            f"the polynomial is {largest:.7g} in magnitude on the unit circle, not below 1",
            hint=f"divide it by {largest * 1.001:.6g}, which becomes the subnormalisation",
        )
    d = len(p) - 1
    while True:
        logs = np.log(1 - np.abs(np.fft.fft(p, size)) ** 2)
        series = np.fft.ifft(logs) / 2
        series[1 : size // 2] *= 2
        series[size // 2 :] = 0
        q = np.fft.ifft(np.exp(np.fft.fft(series)))
        rest = float(np.abs(q[d + 1 :]).max(initial=0.0))
        if rest < 1e-14 or size >= 1 << 20:
            break
        size *= 4
    if rest > _GOOD:
        raise UsageError(
            f"the complement of the polynomial was found to {rest:.2g} only",
            hint="divide the polynomial by 1.01",
        )
    # Turned around, its largest coefficient is at the top, where rotations are read.
    pair = np.array([p, q[: d + 1][::-1].conj()])
    out = np.zeros((d + 1, 3))
    for j in range(d, -1, -1):
        a, b = pair[:, j]
        theta = float(np.arctan2(abs(b), abs(a)))
        phi = float(np.angle(a) - np.angle(b)) if abs(a) and abs(b) else 0.0
        out[j, :2] = theta, phi
        if j == 0:
            out[0, 2] = np.angle(b)
            if abs(b) == 0:
                out[0, 1:] = np.angle(a), 0.0
            break
        c, s = np.cos(theta), np.sin(theta)
        turned = np.array([[np.exp(-1j * phi) * c, s], [np.exp(-1j * phi) * s, -c]]) @ pair
        pair = np.array([turned[0, 1 : j + 1], turned[1, :j]])
    return out
