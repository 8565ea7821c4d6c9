"""Bounds on what all accounts of a node do at once: connecting, first syncs, large bodies.

A provider that hosts a thousand of our accounts must not meet a thousand logins in one second: so a place at the host
is taken first, and what a host's refusals teach of the pace it bears (`host_pace`) holds for all of them.  A node must
not shake more hands than its cores can: so a turn of the node's is taken with it in hand.  And a host that does not
answer must hold nothing that another host needs: so a turn counts for SLOW seconds only, after which the attempt goes
on without one.

A session that was never synced has much to fetch, and we log in faster than we fetch:

    newcomer ──► few wait for a beginning? ──► log in ──► beginning: the newest window ──► first_syncs: group by group
    others ──────────────────────────────────► log in ──► compare

So newcomers log in only as fast as others have begun (and accounts in trouble only as fast as the background takes
them); the newest mail of each comes before the older mail of any, and a small inbox is complete with that.  Who has
begun waits for its next turn as long as it takes, and keeps its session alive.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, TypeVar

import trio

from daemon.errors import Disposition, Fault, FaultKind
from daemon.telemetry import metrics

from .host_pace import HostPace
from .turns import Turns

T = TypeVar("T")

LARGE_BODIES: Final = 2
LARGE: Final = 20.0
MOST_LARGE_BODIES: Final = 12
"""Large bodies at once, over all accounts: each may have the `sync.max_body` bytes that are allowed.  A turn counts for
LARGE seconds, for servers that drip must not hold it for minutes; with those the bodies in memory are the most, and the
slowest of them makes room when others wait (`OVERDUE`)."""

SLOW: Final = 2.0
"""Seconds after which an attempt waits for its server rather than for our processor: a login over TLS costs 3 ms of it
and a few round trips."""


BULK: Final = 5.0
MOST_BULK: Final = 8
"""Seconds that an account's turn to fetch in bulk counts: its server sends some thousand messages meanwhile, or it is
so slow that it costs us little; and how many times the number of turns may be at it, for each holds two batches."""

BEGINNINGS: Final = 2
MOST_BEGINNINGS: Final = 4
"""For each turn to fetch in bulk, turns to fetch an inbox's newest window; and how many may be at it, as above.  They
are short, and half of each is a wait for the server or the disk."""

OVERDUE: Final = 120.0
"""Seconds at it after which the slowest makes room when all those places are taken and others wait: what it has stored
stays, and it is tried again later.  A window of a megabyte takes so long at 70 kbit/s; servers that drip are the rest,
and sixteen of them would let nobody else begin."""

MOST_WAITING: Final = 16
"""Accounts that wait for such a turn, or one of the background, in a session of their own, above which no other logs in
for one: that is the work of a second or two, and more than is done in the time of a login."""

BACKGROUND: Final = 3
"""Accounts at once whose last attempt failed, or who have news without an end, from the login until they have caught up
or `SLOW` seconds are over: their transactions take the database's connections (eight, by default) from those that work
well.  Connecting needs no such turn, or hosts that do not answer would keep those that do from theirs.
After an outage three at a time thus bring back 90 accounts a minute at the least, where each server is slow."""

BEHIND: Final = 4
"""Transactions at once of accounts that catch up: half of the connections there are by default."""

LOOK_AGAIN: Final = 0.5
"""Seconds after which whoever waits for a host's pace looks at it again: what others meet may have quickened it."""

GIVE_WAY: Final = 60.0
"""Seconds for which the first of those who were turned away lets others go before."""

SWEEP: Final = 1000
"""Hosts with something learnt and nobody connecting, above which those are forgotten that taught nothing lasting."""

_TURNED_AWAY: Final = frozenset(
    {FaultKind.THROTTLED, FaultKind.UNAVAILABLE, FaultKind.CONNECT_FAILED, FaultKind.LOST}
)
"""What a host that has too much of us answers to a connection or a login: words, or nothing.  A host that is down looks
the same, and is spared likewise; anything else means that it had time for us."""


@dataclass(slots=True)
class _Host:
    """One host that somebody connects to, or that has taught something."""

    places: trio.Semaphore
    pace: HostPace = field(default_factory=HostPace)
    queue: trio.Lock = field(default_factory=trio.Lock)
    """First come, first served; only the first looks at the pace."""
    last: trio.Lock = field(default_factory=trio.Lock)
    """The queue of those who were turned away last time: the first of them waits for a place and for its attempt."""
    users: int = 0


@dataclass(frozen=True, slots=True)
class PacingStatistics:
    """How many wait and work."""

    connecting: int
    waiting: int
    hosts: int
    slowed: int
    """Hosts that turned several accounts away lately, and are asked less often."""
    first_syncs: int


class Pacing:
    """The limiters of one node.

    Args:
        starting: accounts that begin to connect within `SLOW` seconds and have not ended.
        starting_per_host: accounts that connect to one host at once.
        first_syncs: accounts that fetch in bulk at once; the others wait for their turn, see the module.
    """

    def __init__(self, *, starting: int, starting_per_host: int, first_syncs: int) -> None:
        self._starting = Turns(starting, SLOW)
        self._per_host = starting_per_host
        self._hosts: dict[Hashable, _Host] = {}
        self._sweep_at = SWEEP
        self.first_syncs = Turns(first_syncs, BULK, MOST_BULK * first_syncs, OVERDUE)
        self.beginnings = Turns(BEGINNINGS * first_syncs, BULK, MOST_BEGINNINGS * first_syncs, OVERDUE)
        self.behind = trio.Semaphore(BEHIND)
        self.background = Turns(BACKGROUND, SLOW)
        self.large_bodies = Turns(LARGE_BODIES, LARGE, MOST_LARGE_BODIES, OVERDUE)

    @asynccontextmanager
    async def paced(
        self,
        host: Hashable,
        opening: AbstractAsyncContextManager[T],
        account: Hashable = None,
        *,
        owner: Hashable = None,
        then: Turns | None = None,
    ) -> AsyncIterator[T]:
        """Enter `opening` when it is this account's turn; the turn ends when it is entered or has failed.

        Args:
            host: the host and whatever else keeps its services apart, such as the port.
            opening: connects and logs in.
            account: whose attempt it is, None where nobody else is to learn from it.
            owner: whose account that is; None: nobody else's.
            then: the turns of which it needs one when it has logged in; it does not while `MOST_WAITING` wait there.
        """
        async with AsyncExitStack() as stack:
            yield await self._enter(stack, host, opening, account, owner=owner, then=then)

    async def _enter(
        self,
        stack: AsyncExitStack,
        host: Hashable,
        opening: AbstractAsyncContextManager[T],
        account: Hashable,
        *,
        owner: Hashable,
        then: Turns | None,
    ) -> T:
        while True:
            if then is not None:  # before a place is taken, which somebody needs who goes on at once
                await then.few_waiting(MOST_WAITING)
            async with self._place(host, account) as (at, lane), AsyncExitStack() as turn:
                begun = await self._begin(at, turn, account)
                if then is not None and then.waiting >= MOST_WAITING:
                    continue  # others came first, while this one waited for its turn
                at.pace.begin(begun)
                await lane.aclose()
                try:
                    opened = await stack.enter_async_context(opening)
                except Fault as fault:
                    _learn(at.pace, fault, account, begun, owner)
                    raise
                metrics.connection_attempts.labels("accepted").inc()
                at.pace.answered(trio.current_time(), account)
                return opened

    async def _begin(self, at: _Host, turn: AsyncExitStack, account: Hashable) -> float:
        """Take a turn, when the host's pace allows an attempt; when that was, Trio's time."""
        if not at.queue.locked() and not at.pace.limited(trio.current_time()):
            # No queue where there is no limit: it hands over to one in a round of the loop, and a start is of hundreds.
            await turn.enter_async_context(self._starting())
            if not at.pace.wait(trio.current_time()):
                return trio.current_time()
            await turn.aclose()  # a limit became known meanwhile
        if at.pace.turned_away(account):
            give_way_until = trio.current_time() + GIVE_WAY
            while (wait := at.pace.wait(trio.current_time())) > 0 or (  # noqa: ASYNC110  # likewise
                at.queue.locked() and trio.current_time() < give_way_until
            ):
                await trio.sleep(min(wait or LOOK_AGAIN, LOOK_AGAIN))
            await turn.enter_async_context(self._starting())
            return trio.current_time()
        async with at.queue:
            while (wait := at.pace.wait(trio.current_time())) > 0:  # noqa: ASYNC110  # the clock decides
                await trio.sleep(min(wait, LOOK_AGAIN))
            await turn.enter_async_context(self._starting())
            return trio.current_time()

    @asynccontextmanager
    async def _place(self, name: Hashable, account: Hashable) -> AsyncIterator[tuple[_Host, AsyncExitStack]]:
        """A place at a host; with what is to be closed when the attempt begins."""
        host = self._hosts.get(name)
        if host is None:
            if len(self._hosts) >= self._sweep_at:
                self._sweep()
            host = self._hosts[name] = _Host(trio.Semaphore(self._per_host))
        host.users += 1
        try:
            async with AsyncExitStack() as lane:
                if host.pace.turned_away(account):  # one at a time, so that places are left to the others
                    await lane.enter_async_context(host.last)
                async with host.places:
                    yield host, lane
        finally:
            host.users -= 1
            if not host.users and host.pace.forgettable(trio.current_time()):
                del self._hosts[name]

    def _sweep(self) -> None:
        now = trio.current_time()
        for name in [n for n, host in self._hosts.items() if not host.users and host.pace.forgettable(now)]:
            del self._hosts[name]
        self._sweep_at = max(SWEEP, 2 * len(self._hosts))  # so that it costs each new host little

    def statistics(self) -> PacingStatistics:
        """How many wait and work now."""
        users = sum(host.users for host in self._hosts.values())
        now = trio.current_time()
        return PacingStatistics(
            connecting=self._starting.taken,
            waiting=users - self._starting.taken,
            hosts=sum(1 for host in self._hosts.values() if host.users),
            slowed=sum(1 for host in self._hosts.values() if host.pace.limited(now)),
            first_syncs=self.beginnings.taken + self.first_syncs.taken,
        )


def _learn(pace: HostPace, fault: Fault, account: Hashable, begun: float, owner: Hashable) -> None:
    """What a failed attempt tells of its host."""
    cut_off = fault.kind is FaultKind.TLS_FAILED and fault.disposition is Disposition.RETRY  # closed in the handshake
    if fault.kind not in _TURNED_AWAY and not cut_off:
        metrics.connection_attempts.labels("refused").inc()
        pace.answered(trio.current_time(), account)
        return
    throttled = fault.kind in (FaultKind.THROTTLED, FaultKind.UNAVAILABLE)
    metrics.connection_attempts.labels("throttled" if throttled else "failed").inc()
    if account is not None:
        pace.throttled(trio.current_time(), account, begun, fault.retry_after, owner=owner)
