"""The phases of a load: each has its own rate of arrivals, and a rate of 0 is a pause."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import click

from loadtest.arrivals import within_s


@dataclass(frozen=True)
class Phase:
    """Arrivals from `begin_s` on, `rate` a second on average, for `for_s` seconds."""

    begin_s: float
    rate: float
    for_s: float

    @property
    def end_s(self) -> float:
        return self.begin_s + self.for_s


def phases_of(texts: Sequence[str]) -> list[Phase]:
    """Return the phases that RATE:SECONDS describe, one after the other. Raises click.ClickException."""
    pairs = [_rate_and_seconds(text) for text in texts]
    if not any(rate for rate, _ in pairs):
        raise click.ClickException("every --phase is a pause; give one with a rate above 0")
    begins_s = accumulate((for_s for _, for_s in pairs), initial=0.0)
    return [Phase(begin_s, rate, for_s) for begin_s, (rate, for_s) in zip(begins_s, pairs, strict=False)]


def _rate_and_seconds(text: str) -> tuple[float, float]:
    try:
        rate, for_s = map(float, text.split(":"))
    except ValueError:
        rate = for_s = math.nan
    if not (0 <= rate < math.inf and 0 < for_s < math.inf):
        raise click.ClickException(f"--phase {text} is not RATE:SECONDS, such as 1.5:60 or, for a pause, 0:60")
    return rate, for_s


def arrivals_s(phases: Sequence[Phase], seed: int) -> list[float]:
    """Return the arrival times of all phases. Every caller arrives independently."""
    return [
        phase.begin_s + at
        for number, phase in enumerate(phases)
        for at in within_s("poisson", phase.rate, phase.for_s, seed + number)
    ]
