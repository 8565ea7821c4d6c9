"""The end of a campaign: quiet, and all accounts must come to equal the server by themselves."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final
from uuid import UUID

import trio

from daemon.account.states import State
from daemon.storage.connection import Conn
from daemon.storage.database import Database
from ops.testservers.dovecot import Dovecot

from .campaign import Report, Say
from .verify import OnServer, differences, look

LARGE_USER: Final = "large@example.test"
"""Whose mailbox is so large that its first synchronisation can be interrupted."""

PARKED: Final = "the account is parked"
"""What does not change by itself: nobody waits for it."""

PAUSE: Final = 1.0
SAY_EVERY: Final = 10.0
"""Seconds between comparisons, and between words about them."""


@dataclass(frozen=True, slots=True)
class Mailbox:
    """An account, and whose mailbox it must equal."""

    account_id: UUID
    user: str


async def settle(
    database: Database, dovecot: Dovecot, mailboxes: Sequence[Mailbox], report: Report, *, within: float, say: Say
) -> float:
    """Wait until all accounts watch and equal the server; the seconds it took.  What differs then is a problem."""
    began = time.monotonic()
    say("reading the mailboxes")
    servers: dict[str, OnServer] = {}
    for user in sorted({mailbox.user for mailbox in mailboxes}):
        servers[user] = await trio.to_thread.run_sync(look, dovecot, user)
    left = {mailbox.account_id: (mailbox, ["never compared"]) for mailbox in mailboxes}
    said = began
    with trio.move_on_after(within):
        while left and not all(PARKED in found[0] for _, found in left.values()):
            for mailbox, _ in list(left.values()):
                found = await _unsettled(database, mailbox, servers[mailbox.user])
                if found:
                    left[mailbox.account_id] = (mailbox, found)
                else:
                    del left[mailbox.account_id]
            if left:
                said = _told(say, said, f"{len(left)} accounts differ yet, such as: {next(iter(left.values()))[1][0]}")
                await trio.sleep(PAUSE)
    for _, found in left.values():
        for sentence in found:
            report.problem(sentence)
    return time.monotonic() - began


def _told(say: Say, said: float, words: str) -> float:
    """Say it when it is time again; when something was said last."""
    now = time.monotonic()
    if now - said < SAY_EVERY:
        return said
    say(words)
    return now


async def _unsettled(database: Database, mailbox: Mailbox, server: OnServer) -> list[str]:
    state = await database.run(partial(state_of, account_id=mailbox.account_id))
    if state == State.PARKED.value:
        return [f"{mailbox.user}: {PARKED}"]
    if state != State.WATCHING.value:
        return [f"{mailbox.user}: the account is {state}"]
    return await differences(database, mailbox.account_id, mailbox.user, server)


async def state_of(conn: Conn, account_id: UUID) -> str:
    """An account's state as stored."""
    cursor = await conn.execute("SELECT state FROM accounts WHERE id = %s", (account_id,))
    row = await cursor.fetchone()
    return str(row[0]) if row else "gone"
