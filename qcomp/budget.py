"""The error budget's ledger: who may spend how much error, who spent how much."""

from __future__ import annotations

from dataclasses import dataclass, field

from qcomp.errors import PassError

__all__ = ["NOISE", "NUMERIC_LIMIT", "OPERATOR_NORM", "Entry", "Ledger"]

NUMERIC_LIMIT = 1e-9
"""Float64 rounding that all numeric passes together may add to one circuit, operator norm."""

OPERATOR_NORM = "operator norm"
"""The measure of what circuits are changed by: the largest change of a state, phase included."""

NOISE = "noise over signal of the worst output"
"""The measure of what graphs are changed by."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the ledger.

    Attributes:
        spender: The pass.
        kind: ``numeric`` (operator norm) or ``approximation`` (in the pass's own measure).
        promised: What it said it would spend at most.
        spent: What it did spend, as far as it knows.
        measure: What the number measures, in words.
        predicted: What a model said that it would spend; None without a model.
        measured: What running the result says; None where that was not done.
    """

    spender: str
    kind: str
    promised: float
    spent: float
    measure: str
    predicted: float | None = None
    measured: float | None = None


@dataclass(slots=True)
class Ledger:
    """What was promised and spent during one compile."""

    entries: list[Entry] = field(default_factory=list)
    numeric_limit: float = NUMERIC_LIMIT

    def spend_numeric(self, spender: str, error: float) -> None:
        """Enter float64 rounding, an upper bound in operator norm.

        Raises:
            PassError: If the passes together exceed the limit.
        """
        self.entries.append(Entry(spender, "numeric", self.numeric_limit, error, OPERATOR_NORM))
        if self.numeric_spent > self.numeric_limit:
            raise PassError(
                f"rounding adds up to {self.numeric_spent:.2e}, more than {self.numeric_limit:.0e}",
                where=f"pass '{spender}'",
                hint="run fewer numeric passes, or raise the limit of the ledger",
            )

    def spend(
        self,
        spender: str,
        promised: float,
        spent: float,
        measure: str,
        *,
        predicted: float | None = None,
        measured: float | None = None,
    ) -> None:
        """Enter an approximation.

        Raises:
            PassError: If it spent more than it promised, or no number.
        """
        entry = Entry(spender, "approximation", promised, spent, measure, predicted, measured)
        self.entries.append(entry)
        if not spent <= promised:
            raise PassError(
                f"'{spender}' spent {spent:.3g} {measure}, it had promised {promised:.3g}",
                hint="give it a larger share or leave it out",
            )

    @property
    def numeric_spent(self) -> float:
        """Sum of all numeric entries."""
        return sum(entry.spent for entry in self.entries if entry.kind == "numeric")

    @property
    def promised_norm(self) -> float:
        """What approximating passes and rounding may have changed circuits by, operator norm."""
        rounding = self.numeric_limit if self.numeric_spent else 0.0
        return rounding + sum(
            entry.promised
            for entry in self.entries
            if entry.kind == "approximation" and entry.measure == OPERATOR_NORM
        )

    @property
    def spent_norm(self) -> float:
        """What they did change circuits by at most, operator norm: the sum of what was measured."""
        return sum(entry.spent for entry in self.entries if entry.measure == OPERATOR_NORM)
