"""A list of accounts for each user, kept as it is shown and brought up to date by what changed: exact, and cheap.

Theory of operation.  A list remembers the snapshot that it was read by.  Each request asks the database, in one
statement, whether anything was changed that this snapshot did not see (migration 0002), and what the time is there.
Mostly nothing was: then the bytes made earlier are the answer.  Otherwise the changed accounts alone are read, shown
and put in their places.  When the user's access changed, or the server is another one, all is read anew.

A status may also change by itself, when a proof runs out or trouble has lasted: each account says until when its status
holds, and is read again once the database's clock is past that.

Nothing is answered that a statement begun after the request did not vouch for.  Requests of one user that come while a
statement is under way wait for the next one, and share it: a stampede costs one statement at a time.  They share its
failure too, and none waits longer than PATIENCE, whoever it waits for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Protocol, TypeVar
from uuid import UUID

import trio

from daemon.storage.connection import Conn
from daemon.storage.faults import DatabaseAway

from . import list_store
from .list_store import Page
from .views import AccountView

T = TypeVar("T")

PATIENCE: Final = 5.0
"""Seconds that a request waits for its list before it is told that the database is away: as every other request."""

BUDGET: Final = 16 << 20
"""Bytes that lists may take in all: those of about 15,000 accounts, a small part of what the daemon takes for them."""

ROW_COST: Final = 500
"""Bytes of an account in a list beside its shown form, which is there twice: alone and in the whole (measured)."""

LIST_COST: Final = 2000
"""Bytes of a list beside its accounts (measured)."""

AHEAD: Final = timedelta(seconds=1)
"""How much earlier than needed a status is judged again: time passes between two statements."""


@dataclass(frozen=True, slots=True)
class Form:
    """How a list is shown."""

    account: Callable[[AccountView], bytes]
    whole: Callable[[Iterable[bytes]], bytes]
    """From its accounts' shown forms, in order."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One account in a list."""

    order: tuple[datetime, UUID]
    data: bytes
    until: datetime | None
    """When its status is to be judged again."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A list as it was when last brought up to date."""

    seen: str
    server: datetime
    accounts: Mapping[UUID, Shown]
    """Oldest first."""
    due: datetime | None
    """The first of the accounts' `until`."""
    data: bytes

    @property
    def cost(self) -> int:
        """Its bytes in memory, roughly."""
        return LIST_COST + 2 * len(self.data) + ROW_COST * len(self.accounts)

    def due_by(self, moment: datetime) -> list[UUID]:
        """The accounts whose status holds no longer at a moment."""
        if self.due is None or moment <= self.due:
            return []
        return [key for key, shown in self.accounts.items() if shown.until is not None and moment > shown.until]


def updated(kept: Kept | None, page: Page, form: Form) -> Kept:
    """The list after a page: of changes to `kept`, or of everything when there is none.  Pure."""
    accounts = {} if kept is None else dict(kept.accounts)
    in_order, changed = kept is not None, kept is None
    for view in page.views:
        before = accounts.get(view.id)
        if view.desired == "removed":
            changed = accounts.pop(view.id, None) is not None or changed
            continue
        shown = Shown((view.created_at, view.id), form.account(view), view.status_until)
        in_order = in_order and before is not None and before.order == shown.order
        changed = changed or before is None or before.data != shown.data
        accounts[view.id] = shown
    if not in_order:
        accounts = dict(sorted(accounts.items(), key=lambda item: item[1].order))
    due = min((shown.until for shown in accounts.values() if shown.until is not None), default=None)
    same = kept is not None and in_order and not changed
    data = kept.data if kept is not None and same else form.whole(shown.data for shown in accounts.values())
    return Kept(page.seen, page.server, accounts, due, data)


class Read(Protocol):
    """How statements are run: each alone, outside a transaction, and not for longer than a request waits."""

    async def __call__(self, work: Callable[[Conn], Awaitable[T]], /) -> T:
        """Run it.

        Raises:
            DatabaseAway: the database did not answer in time.
        """
        ...


@dataclass(slots=True)
class _Entry:
    cost: int
    """Bytes, as they count in the budget."""
    lock: trio.Lock = field(default_factory=trio.Lock)
    asked: int = 0
    """Requests so far."""
    served: int = 0
    """How many of them came before the last statement that succeeded."""
    failed: int = 0
    """How many of them came before the last one for which the database was away."""
    kept: Kept | None = None


@dataclass(frozen=True, slots=True)
class ListingStatistics:
    """What is kept and what it took."""

    lists: int
    cost: int
    """Bytes, roughly."""
    read: int
    """Lists read as a whole."""
    amended: int
    """Lists brought up to date by what changed."""
    unchanged: int
    """Times that nothing had changed."""


class Listing:
    """The lists of all users, the least recently asked for given up when BUDGET is spent."""

    def __init__(self, read: Read, form: Form, *, budget: int = BUDGET, patience: float = PATIENCE) -> None:
        self._read = read
        self._form = form
        self._patience = patience
        self._budget = budget
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._cost = 0
        self._whole = self._amended = self._unchanged = 0

    def statistics(self) -> ListingStatistics:
        """What is kept now, and what was done since the start."""
        return ListingStatistics(len(self._entries), self._cost, self._whole, self._amended, self._unchanged)

    async def show(self, user_id: str) -> bytes:
        """The user's list, as it is in the database at a moment after this was called.

        Raises:
            DatabaseAway: the database did not answer in time.
        """
        entry = self._entry(user_id)
        entry.asked += 1
        mine = entry.asked
        with trio.move_on_after(self._patience):
            async with entry.lock:
                return await self._shown(user_id, entry, mine)
        raise DatabaseAway("the database did not answer in the time of a request")

    async def _shown(self, user_id: str, entry: _Entry, mine: int) -> bytes:
        """The list that holds for a user's request of this number; the entry is locked."""
        if entry.kept is not None and entry.served >= mine:
            return entry.kept.data
        if entry.failed >= mine:
            raise DatabaseAway("the database did not answer whoever asked at the same time")
        asked = entry.asked  # all these came before the statement that follows
        try:
            entry.kept = await self._refreshed(user_id, entry.kept)
        except DatabaseAway:
            entry.failed = asked
            raise
        entry.served = asked
        self._weigh(user_id, entry, entry.kept.cost)
        return entry.kept.data

    def _entry(self, user_id: str) -> _Entry:
        entry = self._entries.get(user_id)
        if entry is None:
            entry = self._entries[user_id] = _Entry(cost=0)
            self._weigh(user_id, entry, LIST_COST)  # at once: a database that is away gives no list to be weighed
        else:
            self._entries.move_to_end(user_id)
        return entry

    def _weigh(self, user_id: str, entry: _Entry, cost: int) -> None:
        if self._entries.get(user_id) is not entry:
            return  # given up meanwhile; whoever waits for it still holds it
        self._cost += cost - entry.cost
        entry.cost = cost
        while self._cost > self._budget and self._entries:
            _, least = self._entries.popitem(last=False)
            self._cost -= least.cost

    async def _refreshed(self, user_id: str, kept: Kept | None) -> Kept:
        if kept is None:
            return await self._read_all(user_id)
        found = await self._read(partial(list_store.probe, user_id=user_id, seen=kept.seen))
        if found.access_changed or found.server != kept.server:
            return await self._read_all(user_id)
        due = kept.due_by(found.now + AHEAD) if kept.due_by(found.now) else []
        if not found.changed and not due:
            self._unchanged += 1
            return kept
        return await self._amend(user_id, kept, due)

    async def _amend(self, user_id: str, kept: Kept, due: Sequence[UUID]) -> Kept:
        changes = partial(list_store.read_changes, user_id=user_id, seen=kept.seen, due=due)
        page = await self._read(changes)
        if page.access_changed or page.server != kept.server:
            return await self._read_all(user_id)
        amended = updated(kept, page, self._form)
        judged = {view.id for view in page.views}
        if any(account not in judged for account in amended.due_by(page.now)):
            return await self._read_all(user_id)  # time went on further than AHEAD: judge all by one clock
        self._amended += 1
        return amended

    async def _read_all(self, user_id: str) -> Kept:
        page = await self._read(partial(list_store.read_all, user_id=user_id))
        self._whole += 1
        return updated(None, page, self._form)
