"""How often one host may be asked for a login, learnt from its own answers: pure, time comes in as an argument.

A provider that limits connections or logins does so for all of our accounts together, and says so to each of them by
itself.  If each only backed off by itself, a thousand would go on hammering; so what one is told, all heed:

    no limit known ──► throttled ──► pause, then at a part of the rate it was throttled at
                          ▲                       │ each answer: faster, doubling up to where it was throttled,
                          └───────────────────────┘ at most one a second more every second beyond (TCP's, RFC 5681)

What must not happen is that a few accounts' trouble slows the others at the same provider down: many limits are an
account's own (Gmail's fifteen sessions), and whoever is over it asks again and again.  So

- it takes accounts of `WITNESSES` owners among the last attempts to convict a host, or `OF_ONE_OWNER` accounts of one;
- an account is no witness any more when it was turned away `OWN_TROUBLE` times though the pace cannot be the cause: it
  was asked for no faster than `FLOOR`, or others got in since it was last turned away;
- the fewer were turned away, the less is the rate cut, never below what is being served, and pauses are for hosts that
  turn most away; none is longer than `PAUSE_LONGEST`, and the rate never falls below `FLOOR`;
- attempts that began before a conviction do not count again;
- whoever was turned away last time goes behind the others (`turned_away`, heeded by `pacing`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

WITNESSES: Final = 2
OF_ONE_OWNER: Final = 4
"""Owners whose accounts must have been throttled among the last `MEMORY` attempts; or, where one owner has all of them,
accounts.  More of these, for one owner's limit is met by all of its accounts at once."""

OWN_TROUBLE: Final = 2
"""Times that the pace cannot have been the cause of an account's trouble until it is thought its own.  The first may be
chance: a host that was down turns everybody away before it throttles those who come back."""

REMEMBERED: Final = 1800.0
MOST_REMEMBERED: Final = 10_000
"""Seconds for which it is known who was turned away: three times the longest pause between two attempts of an account
by default.  And accounts, above which the one that was so longest ago is forgotten: a node runs no more at one host."""

MEMORY: Final = 16
"""Attempts remembered: two of sixteen are more than one owner's few accounts are among all of a provider's, and few
enough that a host is refused only a handful of attempts before it is heeded."""

DECREASE: Final = 0.7
"""Share of the rate that is kept when a host throttles (RFC 9438 section 4.6: CUBIC's factor; half would leave a
quarter of what the host allows unused), and of the logins that it served in the last second: it bore those."""

FULL_CUT: Final = 0.25
LEAST_CUT: Final = 2.0
"""Share of the last attempts that were throttled with which the rate is cut as far as that; of fewer, the cut is as
much less (RFC 8257: in proportion to the extent of the congestion), but by so many logins a second at the least, which
are what it grows by in two."""

GROWTH: Final = 0.125
"""Logins a second at most that an answer adds to the rate beyond where it was throttled: else one answer would double a
rate of one a second, and a host that bears five would be asked for a fifth more each second.  It counts below eight."""

FLOOR: Final = 0.2
"""Logins a second that are tried whatever a host says: the first in the queue waits for 5 s at most, pauses aside."""

CEILING: Final = 200.0
"""Logins a second beyond which a limit is none: a node's two cores make no more."""

PAUSE_FIRST: Final = 1.0
PAUSE_LONGEST: Final = 30.0
"""Seconds in which nothing is asked of a host that throttled most; doubled each time it does so again without having
let anybody in meanwhile.  The host's own hint counts, up to the longest: it may have meant one account."""

FORGET: Final = 600.0
"""Seconds without a conviction after which a limit is forgotten; while nobody gets in, without an attempt."""


@dataclass(slots=True)
class _Refused:
    """An account that was turned away and has not got in since."""

    at: float
    answers: int
    """The host's until then."""
    slow: bool
    """Whether the host was asked no faster than `FLOOR` just before: then no slower pace would have helped."""
    own: int
    """Times that the pace was not the cause."""


class HostPace:
    """What is known of one host."""

    __slots__ = (
        "_answers", "_begun", "_convicted_at", "_next_at", "_pause", "_refused", "_served", "_shut_at", "_threshold",
        "_throttled", "_verdicts", "rate",
    )  # fmt: skip

    def __init__(self) -> None:
        self.rate: float | None = None
        """Logins a second that may begin; None while no limit is known."""
        self._threshold = 0.0  # up to it the rate doubles, beyond it grows by one a second
        self._next_at = 0.0
        self._pause = PAUSE_FIRST
        self._convicted_at = float("-inf")
        self._shut_at = float("-inf")  # the last refusal of a host that has let nobody in since its conviction
        self._begun: deque[float] = deque(maxlen=int(CEILING / FLOOR))  # of the last 1 / FLOOR seconds
        self._served: deque[float] = deque(maxlen=int(CEILING))  # of the last second
        self._answers = 0
        self._refused: dict[Hashable, _Refused] = {}  # by account, the one that was so longest ago first
        self._throttled = 0  # among the verdicts
        self._verdicts: deque[tuple[Hashable, Hashable] | None] = deque()  # owner and account of who was throttled

    def wait(self, now: float) -> float:
        """Seconds until the next attempt may begin; 0 when it may now."""
        return max(0.0, self._next_at - now) if self.limited(now) else 0.0

    def limited(self, now: float) -> bool:
        """Whether a limit is known, and not so old that it is forgotten now."""
        if now - max(self._convicted_at, self._shut_at) > FORGET:
            self.rate = None
        return self.rate is not None

    def begin(self, now: float) -> None:
        """An attempt begins."""
        _forget(self._begun, now - 1.0 / FLOOR)
        self._begun.append(now)
        if self.rate is not None:
            self._next_at = max(now, self._next_at) + 1.0 / self.rate

    def turned_away(self, account: Hashable) -> bool:
        """Whether this account was turned away last time."""
        return account in self._refused

    def answered(self, now: float, account: Hashable = None) -> None:
        """An attempt of this account came through: the host served it, whatever it thought of the password."""
        self._remember(None)
        self._answers += 1
        self._refused.pop(account, None)
        _forget(self._served, now - 1.0)
        self._served.append(now)
        self._pause = PAUSE_FIRST
        if self.rate is None:
            return
        self.rate += 1.0 if self.rate < self._threshold else min(1.0 / self.rate, GROWTH)
        if self.rate > CEILING:
            self.rate = None

    def throttled(
        self, now: float, account: Hashable, begun: float, hint: float | None = None, *, owner: Hashable = None
    ) -> bool:
        """An attempt of this account, begun then, was turned away; whether that convicts the host.

        Args:
            now: Trio's time.
            account: whose attempt it was.
            begun: when, Trio's time.
            hint: seconds that the host asked for.
            owner: whose account it is; None: nobody else's.
        """
        refused = self._refuse(now, account, begun)
        if begun < self._convicted_at:
            return False  # it was under way when we learnt it
        if refused.own >= OWN_TROUBLE:
            return False
        self._remember((account if owner is None else owner, account))
        witnesses = {verdict for verdict in self._verdicts if verdict is not None}
        if refused.slow or (len({owner for owner, _ in witnesses}) < WITNESSES and len(witnesses) < OF_ONE_OWNER):
            return False
        share = self._throttled / len(self._verdicts)
        _forget(self._served, now - 1.0)
        recent = float(sum(1 for at in self._begun if at > now - 1.0))
        rate = recent if self.rate is None else min(self.rate, max(recent, FLOOR))
        cut = max(LEAST_CUT, rate * (1.0 - DECREASE) * min(1.0, share / FULL_CUT))
        self.rate = self._threshold = max(FLOOR, DECREASE * max(rate, len(self._served)), rate - cut)
        self._convicted_at = now
        if 2 * share > 1.0:
            self._next_at = now + min(PAUSE_LONGEST, max(self._pause, hint or 0.0))
            self._pause = min(PAUSE_LONGEST, 2 * self._pause)
        self._verdicts.clear()
        self._throttled = 0
        return True

    def forgettable(self, now: float) -> bool:
        """Whether a fresh one would do as well."""
        if self.limited(now):
            return False
        return not self._refused or now - self._refused[next(reversed(self._refused))].at > REMEMBERED

    def _refuse(self, now: float, account: Hashable, begun: float) -> _Refused:
        """Note that an account was turned away, and whether our pace can have been the cause."""
        if not self._served or self._served[-1] < self._convicted_at:
            self._shut_at = now
        slow = sum(1 for at in self._begun if begun - 1.0 / FLOOR < at <= begun) <= 1
        former = self._refused.pop(account, None)
        own = slow or (former is not None and former.answers < self._answers)
        refused = _Refused(now, self._answers, slow, own + (former.own if former is not None else 0))
        self._refused[account] = refused
        oldest = next(iter(self._refused))
        if len(self._refused) > MOST_REMEMBERED or now - self._refused[oldest].at > REMEMBERED:
            del self._refused[oldest]
        return refused

    def _remember(self, verdict: tuple[Hashable, Hashable] | None) -> None:
        self._verdicts.append(verdict)
        self._throttled += verdict is not None
        if len(self._verdicts) > MEMORY:
            self._throttled -= self._verdicts.popleft() is not None


def _forget(times: deque[float], until: float) -> None:
    while times and times[0] <= until:
        times.popleft()
