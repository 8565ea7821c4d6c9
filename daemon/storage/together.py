"""Small work of many accounts in one transaction: group commit.

    caller ──┐                        ┌─ fence all ─ one statement a kind of work ─ COMMIT ─┐
    caller ──┼─► queue ─► one leads ──┤                                                     ├─► each its own result
    caller ──┘                        └─ left out (locked, claim lost, failed): alone ──────┘

A transaction costs the same whether it writes one row or a hundred, and at a start a thousand accounts say the same few
things.  So what is waiting while a transaction is under way goes into the next one.  A caller still waits until its own
work is committed, and hears of its own claim only.  There is no task behind this: the first who waits leads the others,
and when it is cancelled the next one does.

Nobody waits for somebody else's row.  A group takes locks with SKIP LOCKED, and whoever is left out by that (or has
lost its claim) runs alone, in a fenced transaction of its own, with its own patience and its own failure.  When a group
fails as a whole, all of it run alone: so the one that is at fault finds out, and the others are stored.  But that a
database is away is nobody's fault: the group waits for it and is tried again, for otherwise every outage would end in
as many transactions as there are callers.

Who is cancelled while its group is being written waits for the end of that, as for a COMMIT: what it does next must not
be overtaken by what it did before.  It waits for GRACE seconds; a work must bear that a cancelled part lands later.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias, TypeVar, cast

import psycopg
import structlog
import trio

from .connection import GRACE
from .faults import DatabaseAway, is_slow
from .fence import fence_all

if TYPE_CHECKING:
    from .connection import Conn
    from .fence import Claim

log = structlog.get_logger(__name__)
T = TypeVar("T")
R = TypeVar("R")

GAP: Final = 0.05
"""Seconds between the beginnings of two transactions of a line that is busy: at 200 accounts a second ten share one,
and twenty a second cost next to nothing.  The first after a pause goes at once."""

MOST: Final = 250
"""Items of one transaction: so many proofs take 16 ms (measured), which is what the others in it wait."""


MOST_LOST: Final = 3
"""Times in a row that a group is lost with the database before its items go alone: one of them may be what ends it."""

LOST_PAUSE: Final = 0.1
"""Seconds after the first of those, doubled by each, beside what the wait for the database takes."""


class Locked(StrEnum):
    """What a work does about rows that others hold; ends its `SELECT ... FOR NO KEY UPDATE` or whatever it locks."""

    WAIT = ""
    SKIP = " SKIP LOCKED"


class Left(Enum):
    """What a work says of an item that it left out, for its row is locked: that one is run alone."""

    OUT = "out"


LeftOut: TypeAlias = Literal[Left.OUT]

Write: TypeAlias = "Callable[[Conn, Sequence[T], Locked], Awaitable[Sequence[R | LeftOut]]]"
"""Does all items in a transaction and gives the results in their order; what is skipped as locked is `Left.OUT`.  It
must be repeatable, see `database`."""

Read: TypeAlias = "Callable[[Conn, Sequence[T]], Awaitable[Sequence[R]]]"
"""Likewise, but changes nothing and locks nothing."""


class Runner(Protocol):
    """`Database`, as far as it is needed here."""

    async def run(
        self, work: Callable[[Conn], Awaitable[T]], *, claim: Claim | None = None, patience: float = math.inf
    ) -> T:
        """As `Database.run`."""

    async def wait_ready(self) -> None:
        """As `Database.wait_ready`."""


class _Item:
    """One caller's part."""

    __slots__ = ("claim", "gone", "outcome", "settled", "value", "wake", "work")

    def __init__(self, work: Callable[..., Awaitable[Sequence[Any]]], value: object, claim: Claim | None) -> None:
        self.work = work
        self.value = value
        self.claim = claim
        self.settled = False
        self.outcome: object = Left.OUT
        self.gone = False
        self.wake: trio.Event | None = None

    def settle(self, outcome: object) -> None:
        self.outcome = outcome
        self.settled = True
        self.wake_up()

    def wake_up(self) -> None:
        if self.wake is not None:
            self.wake.set()


class Line:
    """Callers whose work goes together; of one kind, fenced or not."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._queue: deque[_Item] = deque()
        self._leading = False
        self._next = -math.inf
        self._lost = 0
        self._batch: Sequence[_Item] = ()
        self._attempt: trio.Event | None = None
        self.transactions = 0
        """Begun for groups."""
        self.alone = 0
        """Items that were left out and run alone."""

    async def run(
        self, work: Callable[..., Awaitable[Sequence[R | LeftOut]]], value: object, claim: Claim | None
    ) -> R:
        """Do `value`'s part of `work`; returns when it is committed.  Without a claim it is a `Read`.

        Raises:
            DatabaseAway, ClaimLost, psycopg.Error: as `Database.run` does.
        """
        item = _Item(work, value, claim)
        self._queue.append(item)
        try:
            while not item.settled:
                if self._leading:
                    item.wake = trio.Event()
                    await item.wake.wait()
                else:
                    await self._lead()
        except BaseException:
            await self._leave(item)
            raise
        if item.outcome is not Left.OUT:
            return cast("R", item.outcome)
        self.alone += 1

        async def alone(conn: Conn) -> R:
            (result,) = await _ask(work, conn, (value,), Locked.WAIT if claim is not None else None)
            assert result is not Left.OUT, "a work that waits leaves nothing out"
            return cast("R", result)

        return await self._runner.run(alone, claim=claim)

    async def _leave(self, item: _Item) -> None:
        """Go before one's part is done; if it is being written just now, wait for that first."""
        item.gone = True
        if item in self._queue:
            self._queue.remove(item)
        if self._attempt is not None and item in self._batch and not item.settled:
            with trio.move_on_after(GRACE, shield=True):
                await self._attempt.wait()
        self._pass_on()

    def _pass_on(self) -> None:
        """Somebody who waits leads now, if nobody does."""
        if not self._leading and self._queue:
            self._queue[0].wake_up()

    async def _lead(self) -> None:
        """Do what is waiting, for all."""
        self._leading = True
        batch: list[_Item] = []
        try:
            if self._lost:
                await self._runner.wait_ready()
            await trio.sleep_until(self._next)  # at least a checkpoint: whoever is about to ask comes along
            self._next = trio.current_time() + GAP
            while self._queue and len(batch) < MOST:
                batch.append(self._queue.popleft())
            self._batch = batch
            await self._together(batch)
        finally:
            # Of a leader that is cancelled, or has lost the database, the transaction is undone: it goes to the next.
            self._queue.extendleft(reversed([item for item in batch if not item.settled and not item.gone]))
            self._leading, self._batch = False, ()
            self._end_attempt()
            self._pass_on()

    async def _together(self, batch: Sequence[_Item]) -> None:
        try:
            # Without patience: a database that is away is waited for in the queue, which may be left meanwhile.
            outcomes = await self._runner.run(lambda conn: self._do(conn, batch), patience=0.0)
            self._lost = 0
        except DatabaseAway as exc:
            self._lost += 1
            slow = isinstance(exc.__cause__, psycopg.Error) and is_slow(exc.__cause__)  # the work's fault, maybe
            if self._lost < MOST_LOST and not slow:
                self._next = trio.current_time() + LOST_PAUSE * 2 ** (self._lost - 1)
                return  # unsettled: `_lead` puts it back
            self._lost = 0
            outcomes = {}
        except psycopg.Error as exc:
            log.warning("database.group_failed", items=len(batch), sqlstate=exc.sqlstate, error=type(exc).__name__)
            outcomes = {}
        except Exception as exc:  # noqa: BLE001  # a bug of one item's work: raised again where it is run alone
            log.warning("database.group_failed", items=len(batch), error=type(exc).__name__)
            outcomes = {}
        for item in batch:
            item.settle(outcomes.get(id(item), Left.OUT))

    async def _do(self, conn: Conn, batch: Sequence[_Item]) -> dict[int, object]:
        """One attempt at a group's transaction; the outcomes by the identity of their items."""
        self._end_attempt()
        self._attempt = trio.Event()
        self.transactions += 1
        live = [item for item in batch if not item.gone]
        fenced = [item.claim for item in live if item.claim is not None]
        held = await fence_all(conn, fenced) if fenced else frozenset()
        kinds: dict[Any, list[_Item]] = {}
        for item in live:
            if item.claim is None or item.claim in held:
                kinds.setdefault(item.work, []).append(item)
        outcomes: dict[int, object] = {}
        for work, asked in kinds.items():
            if not (items := [item for item in asked if not item.gone]):
                continue
            locked = Locked.SKIP if items[0].claim is not None else None
            results = await _ask(work, conn, [item.value for item in items], locked)
            outcomes.update(zip(map(id, items), results, strict=True))
        return outcomes

    def _end_attempt(self) -> None:
        if self._attempt is not None:
            self._attempt.set()
            self._attempt = None


async def _ask(
    work: Callable[..., Awaitable[Sequence[Any]]], conn: Conn, values: Sequence[object], locked: Locked | None
) -> Sequence[Any]:
    return await (work(conn, values) if locked is None else work(conn, values, locked))


class Together:
    """The lines of one database."""

    def __init__(self, runner: Runner) -> None:
        self.writes = Line(runner)
        self.reads = Line(runner)
        """Apart, for a read waits for no disk."""

    async def write(self, work: Write[T, R], value: T, claim: Claim) -> R:
        """Do one account's part of a work that writes, fenced.

        Raises:
            ClaimLost: the account is another node's.
            DatabaseAway, psycopg.Error: as `Database.run`.
        """
        return await self.writes.run(work, value, claim)

    async def read(self, work: Read[T, R], value: T) -> R:
        """Do one caller's part of a work that only reads.

        Raises:
            DatabaseAway, psycopg.Error: as `Database.run`.
        """
        return await self.reads.run(work, value, None)
