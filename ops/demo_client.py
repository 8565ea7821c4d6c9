"""What the demo does as somebody outside: speak to the API, hand mail to LMTP, look into the database.

An arrival is measured from the moment LMTP's `250` was read, from which on the mail server vouches for the message, to
the first look at the database, from a connection of our own, that finds the committed row.  The looks are LOOK_EVERY
apart, which is the measurement's grain.
"""

from __future__ import annotations

import re
import smtplib
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import httpx
import psycopg
import trio

from daemon.storage.connection import TrioConnection
from daemon.storage.embedded import embedded_conninfo

from .cli_token import cookie
from .demo_servers import DemoFailed

LOOK_EVERY: Final = 0.002
"""Seconds between looks at the database."""

ARRIVES_WITHIN: Final = 30.0
"""Seconds; it takes milliseconds."""

ANSWER_WITHIN: Final = 90.0
"""Seconds for an answer of the API: connecting verifies two servers, with 75 s for the whole request."""

_ARRIVAL = "SELECT subject, sender -> 0 ->> 'email' FROM messages WHERE account_id = %s AND message_id = %s"
_STORED = (
    "SELECT count(DISTINCT m.id), coalesce(sum(length(b.data)), 0) FROM messages m"
    " LEFT JOIN bodies b ON b.message_id = m.id WHERE m.account_id = %s"
)
_PUSH = re.compile(r"^accountsd_push_seconds_(sum|count) (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the first sync of the inbox is."""

    status: str
    reason: str | None
    done: int
    total: int
    size: int
    """Bytes of bodies."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One message on its way. Times in seconds."""

    subject: str
    sender: str
    took: float
    """From LMTP's 250 to the row that another connection sees."""
    ours: float | None
    """The daemon's part of it by its own metric: from the IMAP server's line to the commit."""


class Api:
    """The control API, and the metrics beside it, as a client with one session."""

    def __init__(self, client: httpx.AsyncClient, api: str, operations: str, token: str) -> None:
        self._client = client
        self._api, self._operations = f"http://{api}", f"http://{operations}"
        self._headers = {"Cookie": cookie(token)}

    async def ready(self) -> bool:
        """Whether the daemon can serve requests."""
        try:
            return (await self._client.get(f"{self._operations}/health/ready")).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    async def connect(self, body: dict[str, object]) -> UUID:
        """POST /mail/accounts; the account's id."""
        return UUID((await self._call("POST", "/mail/accounts", json=body))["account"]["id"])

    async def disconnect(self, account: UUID) -> None:
        """DELETE /mail/accounts/:id."""
        await self._call("DELETE", f"/mail/accounts/{account}")

    async def progress(self, account: UUID) -> Progress:
        """GET /mail/accounts/:id."""
        shown = (await self._call("GET", f"/mail/accounts/{account}"))["account"]
        folders = shown["folders"]
        return Progress(
            shown["sync_status"],
            shown["state_reason"],
            sum(folder["messages_done"] for folder in folders),
            sum(folder["messages_total"] for folder in folders),
            sum(folder["bytes_done"] for folder in folders),
        )

    async def pushes(self) -> tuple[float, float]:
        """How many messages were pushed since the start, and the seconds they took together, by the metrics."""
        text = (await self._client.get(f"{self._operations}/metrics")).text
        found = {key: float(value) for key, value in _PUSH.findall(text)}
        return found.get("count", 0.0), found.get("sum", 0.0)

    async def _call(self, method: str, path: str, json: Mapping[str, object] | None = None) -> dict[str, Any]:
        try:
            answer = await self._client.request(method, self._api + path, headers=self._headers, json=json)
            said: dict[str, Any] = answer.json()
        except (httpx.HTTPError, ValueError) as exc:
            raise DemoFailed(f"{method} {path} got no answer: {exc}") from None
        if answer.status_code != httpx.codes.OK:
            raise DemoFailed(f"{method} {path} answered {answer.status_code}: {said.get('error')}")
        return said


@asynccontextmanager
async def api_client() -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client for loopback, whatever proxies the environment names."""
    async with httpx.AsyncClient(timeout=ANSWER_WITHIN, trust_env=False) as client:
        yield client


@asynccontextmanager
async def look_into(state: Path) -> AsyncIterator[TrioConnection[Any]]:
    """A connection of our own to the embedded database of a state directory."""
    try:
        connection = await TrioConnection.connect(embedded_conninfo(state / "postgresql"), autocommit=True)
    except psycopg.Error as exc:
        raise DemoFailed(f"the database does not answer: {exc}") from None
    async with connection:
        yield connection


async def stored(database: TrioConnection[Any], account: UUID) -> tuple[int, int]:
    """Messages of an account in the database, and the bytes of their bodies."""
    row = await (await database.execute(_STORED, (account,))).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


async def deliver_and_watch(
    database: TrioConnection[Any], api: Api, account: UUID, *, lmtp_port: int, to: str, message_id: str, message: bytes
) -> Arrival:
    """Deliver a message and measure its arrival; its Message-ID is given without angle brackets.

    Raises:
        DemoFailed: LMTP did not take it, or it did not arrive.
    """
    before = await api.pushes()
    accepted = 0.0

    async def deliver() -> None:
        nonlocal accepted
        accepted = await trio.to_thread.run_sync(_deliver, lmtp_port, to, message)

    with trio.move_on_after(ARRIVES_WITHIN):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(deliver)
            # Looking begins before the 250, for the row may well be there with it.
            while True:
                row = await (await database.execute(_ARRIVAL, (account, message_id))).fetchone()
                if row is not None:
                    break
                await trio.sleep(LOOK_EVERY)
            seen = time.monotonic()
        after = await api.pushes()
        ours = after[1] - before[1] if after[0] == before[0] + 1 else None
        return Arrival(str(row[0]), str(row[1]), max(seen - accepted, 0.0), ours)
    raise DemoFailed(f"the message did not arrive within {ARRIVES_WITHIN:g} s")


def _deliver(port: int, to: str, message: bytes) -> float:
    """Hand a message to LMTP; the monotonic time at which its 250 had been read."""
    try:
        with smtplib.LMTP("127.0.0.1", port, local_hostname="localhost", timeout=ARRIVES_WITHIN) as lmtp:
            lmtp.sendmail("ann@example.org", [to], message)
            return time.monotonic()
    except (smtplib.SMTPException, OSError) as exc:
        raise DemoFailed(f"LMTP did not take the message: {exc}") from None
