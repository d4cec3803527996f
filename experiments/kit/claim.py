"""What a paper says of its curves, held to measured numbers."""

from __future__ import annotations

import dataclasses
import fnmatch
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.kit.contender import Contender
from fedjax_lc.core.errors import InputError, unknown

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"


@dataclasses.dataclass(frozen=True)
class Measured:
    """A number of a curve, the less the better: its mean over seeds and the standard error of that.

    The mean is infinite where there is none: the curve diverged, or was stopped at `least` before it came to an end.
    """

    mean: float
    error: float = 0.0
    least: float = math.inf

    @classmethod
    def of(cls, facts: Mapping[str, float | None] | None, sign: int = 1) -> Measured:
        """From {"mean": ..., "error": ...}, None where a curve diverged; sign -1 if more is better."""
        if facts is None or facts["mean"] is None:
            return cls(math.inf)
        return cls(sign * facts["mean"], facts["error"] or 0.0)

    @property
    def at_least(self) -> float:
        return min(self.mean, self.least)


Statistics = Mapping[str, Mapping[str, Measured]]  #: name -> label of the curve -> number, the less the better


@dataclasses.dataclass(frozen=True)
class Claim:
    """`text`: every curve of `better` is better than every one of `worse`, and all of `also` holds too.

    Curves are named by their labels or by patterns as in file names ("LoCoDL*"); those that match both count for
    `better`. `statistic` says by which number, the figure's first if empty. It is better if it is below `times` the
    other one by at least `margin`; margin < 0 is "no more than -margin worse". Differences within `errors` standard
    errors leave the claim open, and `doubt` is what is then said. bests: only the best of each side is compared. least,
    most: between these numbers lies that of every curve of `better`.
    """

    text: str
    better: Sequence[str] = ()
    worse: Sequence[str] = ()
    statistic: str = ""
    margin: float = 0.0
    times: float = 1.0
    errors: float = 2.0
    doubt: str = UNDECIDED
    bests: bool = False
    least: float = -math.inf
    most: float = math.inf
    also: Sequence[Claim] = ()

    def verdict(self, statistics: Statistics) -> str:
        """holds, does not hold, or undecided.

        Raises:
            InputError: no such statistic, or a pattern that names no curve.
        """
        verdicts = [claim.verdict(statistics) for claim in self.also]
        if self.better:
            name = self.statistic or next(iter(statistics))
            if name not in statistics:
                raise unknown("statistic", name, statistics)
            measured = statistics[name]
            left, right = ([measured[label] for label in side] for side in self.sides(measured))
            if self.bests:
                left, right = [_best(left)], [_best(right)]
            verdicts += [self._one(a, b) for a, b in itertools.product(left, right)]
            verdicts += [self._between(a) for a in left]
        return next((v for word in (FAILS, UNDECIDED) for v in verdicts if v.startswith(word)), HOLDS)

    def sides(self, labels: Iterable[str]) -> tuple[list[str], list[str]]:
        """The labels of `better` and of `worse`."""
        labels = list(labels)
        left, right = (self._matching(patterns, labels) for patterns in (self.better, self.worse))
        right = [label for label in right if label not in left]
        if not right and (self.worse or (math.isinf(self.least) and math.isinf(self.most))):
            raise InputError(f"claim {self.text!r} compares curves with themselves")
        return left, right

    def _matching(self, patterns: Sequence[str], labels: Sequence[str]) -> list[str]:
        matched = list[str]()
        for pattern in patterns:
            those = [label for label in labels if fnmatch.fnmatchcase(label, pattern)]
            if not those:
                raise InputError(f"claim {self.text!r} names no curve by {pattern!r}: have {', '.join(labels)}")
            matched += [label for label in those if label not in matched]
        return matched

    def _between(self, a: Measured) -> str:
        if not self.least <= a.mean <= self.most:
            return FAILS
        return UNDECIDED if math.isinf(a.mean) and self.least > -math.inf else HOLDS

    def _one(self, a: Measured, b: Measured) -> str:
        if math.isinf(a.mean) or math.isinf(b.mean):
            if a.mean + self.margin < self.times * b.at_least:
                return HOLDS
            if self.times * b.mean < a.at_least + self.margin:
                return FAILS
            return f"{UNDECIDED} (capped)" if min(a.at_least, b.at_least) < math.inf else UNDECIDED
        lead = self.times * b.mean - a.mean - self.margin
        if abs(lead) <= self.errors * math.hypot(a.error, self.times * b.error):
            return self.doubt
        return HOLDS if lead > 0 else FAILS


def _best(side: Sequence[Measured]) -> Measured:
    return Measured(min(one.mean for one in side), least=min(one.at_least for one in side))


def in_order(text: str, *labels: str, **options: Any) -> Claim:
    """Each curve is better than the next."""
    return Claim(text, also=[Claim(text, (a,), (b,), **options) for a, b in itertools.pairwise(labels)])


def check(contenders: Sequence[Contender], claims: Sequence[Claim]) -> None:
    """Raise InputError where two curves have one label, or a claim names no curve."""
    labels = [contender.label for contender in contenders]
    if len(set(labels)) < len(labels):
        raise InputError(f"curves of a figure need different labels, got {', '.join(labels)}")
    for claim in claims:
        check(contenders, claim.also)
        if claim.better:
            claim.sides(labels)
