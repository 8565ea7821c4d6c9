"""Many accounts in one process: what one costs while idle, how fast all start, how fast news are stored.

Each measurement is a run of `fleet_child` against the same Dovecot and the same durable database:

    first     the real fleet meets the accounts for the first time: memory and processor while idle
    again     the real fleet starts with the accounts synced before: time until all watch, then deliveries
    sessions  the yardstick: bare sessions that log in, select and wait in IDLE, without actor or database
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final
from uuid import uuid4

import trio

from ops.testservers.dovecot import Dovecot
from ops.testservers.mail import messages

from . import accounts as connected
from .child import ask
from .fleet_child import RENEWALS_AFTER, RENEWALS_FOR, start_within
from .place import Place, opened
from .result import Row, Say, percentile

COUNT: Final = 1000
QUICK: Final = 12

MAIL: Final = 3
"""Messages in each inbox at the start."""

DELIVERIES: Final = 600
QUICK_DELIVERIES: Final = 10
"""Over twelve seconds, or a fifth of one: a disk that stands still for half a second, as shared ones do, must not meet
one push of twenty."""

SETTLE: Final = 3.0
"""Seconds between the start and the deliveries, for the disk to take what the start wrote."""

STARTING: Final = 40
"""Connecting at once, of ours and of the yardstick: the daemon's default for a node.  Its bound for one host is lifted
to that as well, for all these accounts are at one."""

BESIDE_START: Final = 180.0 + RENEWALS_AFTER + RENEWALS_FOR
"""Seconds that one run may take beside the start: idling, renewals, deliveries, and ending."""

IDLE_FOR: Final = 15.0
QUICK_IDLE_FOR: Final = 1.0
"""Seconds over which the idle processor time is measured."""


async def measure(
    *, quick: bool, say: Say, parts: Sequence[str] = ("idle_memory", "start", "push"), accounts: int | None = None
) -> list[Row]:
    """KiB and processor share of an idle account, seconds of a start, milliseconds of a push.

    Raises:
        ChildFailed: a child could not do its part.
    """
    count = accounts or (QUICK if quick else COUNT)
    with Dovecot() as dovecot:
        users = [f"user{number}@example.test" for number in range(count)]
        say(f"filling {count} inboxes")
        await trio.to_thread.run_sync(partial(_fill, dovecot, users))
        async with opened(dovecot) as place:
            await connected.connect(place.database, place.vault, users, place.imap, dovecot.password)
            return await _measure(place, users, parts, quick=quick, say=say)


def _fill(dovecot: Dovecot, users: Sequence[str]) -> None:
    for message in messages(MAIL, seed=1):
        dovecot.deliver(users[0], message)
    dovecot.clone(users[0], users[1:])


async def _measure(place: Place, users: list[str], parts: Sequence[str], *, quick: bool, say: Say) -> list[Row]:
    wanted: dict[str, Any] = {
        "conninfo": place.conninfo,
        "key": place.key.hex(),
        "ca": str(place.dovecot.ca_pem),
        "host": place.imap.host,
        "port": place.imap.port,
        "lmtp": place.dovecot.ports.lmtp,
        "users": users,
        "node": str(uuid4()),  # one for all runs, as a daemon that is started again
        "password": place.dovecot.password,
        "starting": STARTING,
        "idle_for": QUICK_IDLE_FOR if quick else IDLE_FOR,
        "deliveries": 0,
        "renewals": False,
    }
    ask_child = partial(ask, "ops.bench.fleet_child", within=BESIDE_START + start_within(len(users)))
    say(f"{len(users)} accounts: first synchronisation, then idle")
    first = await ask_child({**wanted, "kind": "fleet", "renewals": _renewals(parts, quick)})
    say(f"{len(users)} bare sessions")
    bare = await ask_child({**wanted, "kind": "sessions"})
    rows: list[Row] = []
    if "idle_memory" in parts:
        rows += _idle_rows(len(users), first, bare)
    if {"start", "push"} & set(parts):
        say(f"{len(users)} accounts: started again, then deliveries")
        wanted["deliveries"] = QUICK_DELIVERIES if quick else DELIVERIES
        again = await ask_child({**wanted, "kind": "fleet", "idle_for": 0 if quick else SETTLE})
        if "start" in parts:
            rows.append(
                Row(
                    "start", f"start of {len(users)} until all watch", again["start"], "s", bare["start"],
                    f"bare login loop, {STARTING} at a time", ("<=", 1.5), "ratio",
                )
            )  # fmt: skip
            rows.append(Row("start", f"first start of {len(users)}, {MAIL} messages each", first["start"], "s"))
        if "push" in parts:
            pushes = [1000 * seconds for seconds in again["pushes"]]
            row = partial(Row, "push", unit="ms")
            rows.append(row(f"push to committed row p50, {len(users)} accounts", percentile(pushes, 0.5)))
            rows.append(
                row(f"push to committed row p95, {len(users)} accounts", percentile(pushes, 0.95), goal=("<=", 30.0))
            )
            rows.append(row(f"push to committed row, longest of {len(pushes)}", max(pushes)))
    return rows


def _renewals(parts: Sequence[str], quick: bool) -> str:
    """Which costs of renewals are measured: the first of them come after minutes."""
    return "" if "idle_memory" not in parts else "comparison" if quick else "all"


def _idle_rows(count: int, ours: dict[str, Any], bare: dict[str, Any]) -> list[Row]:
    row, beside = partial(Row, "idle_memory"), "bare session in IDLE"
    rows = [
        row(f"idle TLS account of {count}", ours["kib"], "KiB", bare["kib"], beside, ("<=", 64.0)),
        row(f"process with {count} accounts", ours["rss"] / 1024, "MiB", bare["rss"] / 1024, beside),
        row("idle processor share without renewals", 100 * ours["cpu"], "%", 100 * bare["cpu"], beside),
        row("processor time of a synchronisation on request", 1000 * ours["comparison"], "ms"),
    ]
    if "renewing" in ours:
        share = f"idle processor share of {count}, {ours['renewals']} renewals in {RENEWALS_FOR:.0f} s"
        rows.append(row(share, 100 * ours["renewing"], "%", goal=("<=", 2.0)))
    return rows
