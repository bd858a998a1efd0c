"""Allocators: integer program, Pareto front and water-filling, held against brute force."""

from itertools import product

import numpy as np
import pytest

from qcomp.errors import PassError
from qcomp.passes.allocate.solve import (
    cheapest,
    convex_relaxation,
    frontier,
    integer_program,
    reverse_water_filling,
)


def problem(seed, tensors=6, bits=(2, 3, 4, 8)):
    """Costs n b and errors s 4^-b, a little off, of some tensors."""
    rng = np.random.default_rng(seed)
    items = []
    for n, s in zip(
        rng.integers(100, 5000, tensors), 10.0 ** rng.uniform(-3, 1, tensors), strict=True
    ):
        noise = rng.uniform(0.7, 1.4, len(bits))
        items.append(
            [(float(n * b), float(s * 4.0**-b * e)) for b, e in zip(bits, noise, strict=True)]
        )
    return items


def every(items):
    for ways in product(*(range(len(part)) for part in items)):
        picked = [part[w] for part, w in zip(items, ways, strict=True)]
        yield sum(c for c, _ in picked), sum(e for _, e in picked), ways


@pytest.mark.parametrize("seed", range(5))
def test_the_integer_program_finds_what_brute_force_finds(seed):
    items = problem(seed)
    low, high = (sum(f(c for c, _ in part) for part in items) for f in (min, max))
    for share in (0.0, 0.2, 0.5, 0.9):
        budget = low + share * (high - low)
        ways = integer_program(items, max_cost=budget)
        cost = sum(part[w][0] for part, w in zip(items, ways, strict=True))
        error = sum(part[w][1] for part, w in zip(items, ways, strict=True))
        best = min(e for c, e, _ in every(items) if c <= budget)
        assert cost <= budget
        assert error == pytest.approx(best, rel=1e-6)
        back = integer_program(items, max_error=error * (1 + 1e-9))
        assert sum(part[w][0] for part, w in zip(items, back, strict=True)) <= cost


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("index", [0, 1])
def test_the_convex_problem_made_whole_is_the_best_of_its_own_budget(seed, index):
    items = problem(seed)
    name = ("max_cost", "max_error")[index]
    low, high = (sum(f(way[index] for way in part) for part in items) for f in (min, max))
    for share in (0.0, 0.2, 0.5, 0.9):
        budget = low + share * (high - low)
        ways = convex_relaxation(items, **{name: budget})
        costs, errors = (
            sum(part[w][k] for part, w in zip(items, ways, strict=True)) for k in (0, 1)
        )
        assert costs <= budget or index == 1
        best = min(e for c, e, _ in every(items) if c <= costs)
        assert errors == pytest.approx(best, rel=1e-6)
        step = max(part[-1][0] - part[0][0] for part in items)
        exact = integer_program(items, **{name: budget})
        least = sum(part[w][0] for part, w in zip(items, exact, strict=True))
        assert abs(costs - least) <= step


def test_the_convex_problem_says_which_budget_could_be_met():
    with pytest.raises(PassError, match="cannot be met") as caught:
        convex_relaxation(problem(0), max_cost=10)
    assert "allow" in caught.value.hint


@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_that_of_all_combinations(seed):
    items = problem(seed)
    front = frontier(items)
    best = {}
    for cost, error, _ in every(items):
        best[cost] = min(error, best.get(cost, np.inf))
    wanted = []
    for cost in sorted(best):
        if not wanted or best[cost] < wanted[-1][1]:
            wanted.append((cost, best[cost]))
    np.testing.assert_allclose(front.costs, [c for c, _ in wanted])
    np.testing.assert_allclose(front.errors, [e for _, e in wanted])
    for cost, error, ways in zip(front.costs, front.errors, front.ways, strict=True):
        picked = [part[w] for part, w in zip(items, ways, strict=True)]
        assert (cost, error) == pytest.approx(
            (sum(c for c, _ in picked), sum(e for _, e in picked))
        )
    assert front.errors[cheapest(front, front.errors[3])] == front.errors[3]


def test_a_thinned_front_stays_near_the_exact_one():
    items = problem(3, tensors=40)
    front = frontier(items, 2000)
    assert len(front) <= 2002
    for share in (0.1, 0.5, 0.8):
        budget = front.costs[0] + share * (front.costs[-1] - front.costs[0])
        ways = integer_program(items, max_cost=budget)
        best = sum(part[w][1] for part, w in zip(items, ways, strict=True))
        found = front.errors[np.searchsorted(front.costs, budget, "right") - 1]
        assert best <= found * (1 + 1e-6)
        assert found <= 1.02 * best


def test_budgets_that_cannot_be_met_say_the_nearest():
    items = problem(0)
    least = sum(min(c for c, _ in part) for part in items)
    with pytest.raises(PassError, match="cannot be met") as caught:
        integer_program(items, max_cost=least - 1)
    assert f"{least:.6g}" in caught.value.hint
    with pytest.raises(PassError, match="cannot be met"):
        integer_program(items, max_error=1e-30)
    with pytest.raises(PassError, match="cannot be met"):
        cheapest(frontier(items), 1e-30)
    with pytest.raises(PassError, match="cannot be met"):
        reverse_water_filling([1.0, 1.0], [10, 10], max_bits=10, low=2)
    with pytest.raises(PassError, match="cannot be met"):
        reverse_water_filling([1.0, 1.0], [10, 10], max_error=1e-9, high=4)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("low", "high"), [(0.0, 60.0), (2.0, 8.0)])
def test_water_filling_is_the_minimum_of_the_convex_problem(seed, low, high):
    from scipy.optimize import minimize

    rng = np.random.default_rng(seed)
    s, n = 10.0 ** rng.uniform(-2, 3, 7), rng.uniform(1, 50, 7)
    budget = float(0.5 * (s * 4.0**-low).sum()) if low else 1e-3
    if low:
        budget = float(np.sqrt((s * 4.0**-low).sum() * (s * 4.0**-high).sum()))
    bits = reverse_water_filling(s, n, max_error=budget, low=low, high=high)
    assert (s * 4.0**-bits).sum() == pytest.approx(budget, rel=1e-9)
    assert ((bits >= low) & (bits <= high)).all()
    found = minimize(
        lambda b: (n * b).sum() / n.sum(),
        np.clip(bits + 0.3, low, high),
        jac=lambda b: n / n.sum(),
        bounds=[(low, high)] * 7,
        constraints={
            "type": "ineq",
            "fun": lambda b: 1 - (s * 4.0**-b).sum() / budget,
            "jac": lambda b: np.log(4) * s * 4.0**-b / budget,
        },
        method="SLSQP",
        options={"ftol": 1e-13, "maxiter": 500},
    )
    assert (n * bits).sum() <= (n * found.x).sum() * (1 + 1e-6)
    again = reverse_water_filling(s, n, max_bits=float((n * bits).sum()), low=low, high=high)
    np.testing.assert_allclose(again, bits, atol=1e-9)


def test_a_tensor_whose_bits_do_not_matter_gets_the_fewest():
    bits = reverse_water_filling([0.0, 1.0, 4.0], [5, 5, 5], max_bits=40, low=1, high=8)
    assert bits[0] == 1
    assert bits[2] - bits[1] == pytest.approx(1.0)
    assert 5 * bits.sum() == pytest.approx(40)
    np.testing.assert_array_equal(reverse_water_filling([0.0], [3], max_bits=9, low=2), [2.0])


def test_water_filling_saves_half_a_bit_a_weight_for_a_factor_of_two_between_the_means():
    """Against the same bits for all with the same error: N / 2 log2(AM / GM) of s / n."""
    rng = np.random.default_rng(5)
    s, n = 10.0 ** rng.uniform(-2, 3, 9), rng.uniform(1, 50, 9)
    error = 1e-4
    uniform = n.sum() * np.log(s.sum() / error) / np.log(4)
    bits = reverse_water_filling(s, n, max_error=error, high=60.0)
    arithmetic = s.sum() / n.sum()
    geometric = np.exp((n * np.log(s / n)).sum() / n.sum())
    saved = n.sum() / 2 * np.log2(arithmetic / geometric)
    assert uniform - (n * bits).sum() == pytest.approx(saved, rel=1e-9)
