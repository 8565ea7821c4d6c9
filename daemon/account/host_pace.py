"""How often one host may be asked for a login, learnt from its own answers: pure, time comes in as an argument.

A provider that limits connections or logins does so for all of our accounts together, and says so to each of them by
itself.  If each only backed off by itself, a thousand would go on hammering; so what one is told, all heed:

    no limit known ──► throttled ──► pause, then at a part of the rate it was throttled at
                          ▲                       │ each answer: faster, doubling up to where it was throttled,
                          └───────────────────────┘ one login a second more every second beyond (TCP's way, RFC 5681)

What must not happen is that one owner's trouble slows the others at the same provider down: many limits are an
account's own (Gmail's fifteen sessions).  So it takes `WITNESSES` different accounts among the last attempts to convict
a host, attempts that began before a conviction do not count again, no conviction pauses a host for longer than
`PAUSE_LONGEST`, and the rate never falls below `FLOOR`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Final

WITNESSES: Final = 2
"""Different accounts that must have been throttled among the last `MEMORY` attempts."""

MEMORY: Final = 16
"""Attempts remembered: two of sixteen are more than one owner's few accounts are among all of a provider's, and few
enough that a host is refused only a handful of attempts before it is heeded."""

DECREASE: Final = 0.7
"""Share of the rate that is kept when a host throttles (RFC 9438 section 4.6: CUBIC's factor; half would leave a
quarter of what the host allows unused)."""

FLOOR: Final = 0.2
"""Logins a second that are tried whatever a host says: the first in the queue waits for 5 s at most, pauses aside."""

CEILING: Final = 200.0
"""Logins a second beyond which a limit is none: a node's two cores make no more."""

PAUSE_FIRST: Final = 1.0
PAUSE_LONGEST: Final = 30.0
"""Seconds in which nothing is asked of a host that throttled; doubled each time it does so again without having let
anybody in meanwhile.  The host's own hint counts, up to the longest: it may have meant one account."""

FORGET: Final = 600.0
"""Seconds without a conviction after which a limit is forgotten."""


class HostPace:
    """What is known of one host."""

    __slots__ = (
        "_begun", "_convicted_at", "_next_at", "_pause", "_threshold", "_throttled", "_throttled_at", "_verdicts",
        "rate",
    )  # fmt: skip

    def __init__(self) -> None:
        self.rate: float | None = None
        """Logins a second that may begin; None while no limit is known."""
        self._threshold = 0.0  # up to it the rate doubles, beyond it grows by one a second
        self._next_at = 0.0
        self._pause = PAUSE_FIRST
        self._convicted_at = float("-inf")
        self._throttled_at = float("-inf")
        self._begun: deque[float] = deque(maxlen=int(CEILING))  # of the last second: the rate it was throttled at
        self._throttled: dict[Hashable, int] = {}  # accounts among the verdicts that were, how often
        self._verdicts: deque[Hashable | None] = deque()

    def wait(self, now: float) -> float:
        """Seconds until the next attempt may begin; 0 when it may now."""
        return max(0.0, self._next_at - now) if self.limited(now) else 0.0

    def limited(self, now: float) -> bool:
        """Whether a limit is known, and not so old that it is forgotten now."""
        if now - self._convicted_at > FORGET:
            self.rate = None
        return self.rate is not None

    def begin(self, now: float) -> None:
        """An attempt begins."""
        while self._begun and self._begun[0] <= now - 1.0:
            self._begun.popleft()
        self._begun.append(now)
        if self.rate is not None:
            self._next_at = max(now, self._next_at) + 1.0 / self.rate

    def answered(self) -> None:
        """An attempt came through: the host served it, whatever it thought of the password."""
        self._remember(None)
        self._pause = PAUSE_FIRST
        if self.rate is None:
            return
        self.rate += 1.0 if self.rate < self._threshold else 1.0 / self.rate
        if self.rate > CEILING:
            self.rate = None

    def throttled(self, now: float, account: Hashable, begun: float, hint: float | None = None) -> bool:
        """An attempt of this account, begun then, was turned away; whether that convicts the host.

        `hint`: seconds that the host asked for.
        """
        if begun < self._convicted_at:
            return False  # it was under way when we learnt it
        self._throttled_at = now
        self._remember(account)
        if len(self._throttled) < WITNESSES:
            return False
        recent = sum(1 for at in self._begun if at > now - 1.0)
        rate = float(recent) if self.rate is None else min(self.rate, max(float(recent), FLOOR))
        self.rate = self._threshold = max(FLOOR, rate * DECREASE)
        self._convicted_at = now
        self._next_at = now + min(PAUSE_LONGEST, max(self._pause, hint or 0.0))
        self._pause = min(PAUSE_LONGEST, 2 * self._pause)
        self._verdicts.clear()
        self._throttled.clear()
        return True

    def forgettable(self, now: float) -> bool:
        """Whether a fresh one would do as well."""
        return not self.limited(now) and (not self._throttled or now - self._throttled_at > FORGET)

    def _remember(self, account: Hashable | None) -> None:
        self._verdicts.append(account)
        if account is not None:
            self._throttled[account] = self._throttled.get(account, 0) + 1
        if len(self._verdicts) > MEMORY:
            oldest = self._verdicts.popleft()
            if oldest is not None:
                self._throttled[oldest] -= 1
                if not self._throttled[oldest]:
                    del self._throttled[oldest]
