"""`python -P -m ops.soak`: a campaign of faults against the real daemon, and at its end store equals server.

    daemon (a process, embedded database) ──► proxy (cuts, goes deaf) ──► Dovecot (is restarted)
      ▲ kill -9 of it, kill -9 of its database                              ▲ deliveries, flags, expunges

Everything random comes from the seed, and every action is printed before it is done, so a run can be replayed as far
as time allows.  At the end faults stop, and all accounts must come to equal a plain IMAP dump by themselves.

Exit code 0 when nothing differs, 1 otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import psycopg
import trio

from daemon.account.states import State
from daemon.network import Endpoint, Security
from daemon.storage.connection import Conn
from daemon.storage.database import Database
from daemon.telemetry import logs

from .bench import accounts
from .bench.result import machine
from .demo_servers import adopt_orphans
from .soak_actions import Campaign, act
from .soak_daemon import RENEWAL, DaemonProcess, bury, growth
from .soak_plan import plan
from .soak_proxy import Proxy
from .soak_verify import OnServer, differences, look
from .testservers.dovecot import Dovecot
from .testservers.mail import seeds
from .testservers.process import ServerFailed

SETTLE_WITHIN: Final = 3 * RENEWAL + 60.0
"""Seconds from the last fault until all accounts equal the server: a deaf connection is found by the second renewal
at the latest, the pause before the next attempt is bounded by 3 s."""

START_WITHIN: Final = 60.0
"""Seconds until the daemon has made its database."""

SAMPLE_EVERY: Final = 2.0
BURY_EVERY: Final = 0.2
"""Seconds."""

SEEDED: Final = 40
LARGE: Final = 3000
"""Messages in each mailbox at the start, and in the first, whose first synchronisation shall be interrupted."""

SPARE_DESCRIPTORS: Final = 64
"""Descriptors beyond one for each account: database, listeners, logs.  More of them leak."""


# -- the campaign --------------------------------------------------------------------------------------------------


async def _run(campaign: Campaign) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch, campaign)
        for action in plan(campaign.seed, campaign.seconds, len(campaign.users)):
            await trio.sleep(max(0.0, campaign.began + action.at - time.monotonic()))
            campaign.say(str(action))
            await act(campaign, action, nursery)
        nursery.cancel_scope.cancel()
    campaign.proxy.hear()


async def _watch(campaign: Campaign) -> None:
    """Sample the process; notice when it ends though nobody killed it."""
    while True:
        _sample(campaign)
        await trio.sleep(SAMPLE_EVERY)


def _sample(campaign: Campaign) -> None:
    sample = campaign.daemon.sample(campaign.began)
    if sample is not None:
        campaign.samples.append(sample)


async def _bury(campaign: Campaign) -> None:
    """Be the parent of what killed daemons leave behind: a dead database that nobody buries looks like a living one."""
    while True:
        with contextlib.suppress(ServerFailed):  # Dovecot is just being restarted
            bury({campaign.daemon.pid, campaign.dovecot.pid})
        await trio.sleep(BURY_EVERY)


async def _settle(campaign: Campaign, database: Database) -> float:
    """Wait until all accounts equal the server; the seconds it took.  What differs in the end is a problem."""
    in_thread = trio.to_thread.run_sync
    if not campaign.daemon.running:
        campaign.problems.append("the daemon ended by itself")
        await in_thread(campaign.daemon.start)
    began = time.monotonic()
    servers = [await in_thread(look, campaign.dovecot, user) for user in campaign.users]
    left: dict[int, list[str]] = {number: ["never compared"] for number in range(len(servers))}
    with trio.move_on_after(SETTLE_WITHIN):
        while left:
            left = await _compare(campaign, database, servers, left)
            if left:
                await trio.sleep(1.0)
    for found in left.values():
        campaign.problems += found
    return time.monotonic() - began


async def _compare(
    campaign: Campaign, database: Database, servers: list[OnServer], left: dict[int, list[str]]
) -> dict[int, list[str]]:
    still: dict[int, list[str]] = {}
    for number in left:
        account_id, user = campaign.ids[number], campaign.users[number]
        found = await differences(database, account_id, user, servers[number])
        state = await database.run(partial(_state, account_id=account_id))
        if state != State.WATCHING.value:
            found.append(f"{user}: the account is {state}")
        if found:
            still[number] = found
    return still


async def _state(conn: Conn, account_id: UUID) -> str:
    cursor = await conn.execute("SELECT state FROM accounts WHERE id = %s", (account_id,))
    row = await cursor.fetchone()
    return str(row[0]) if row else "gone"


async def _ready(database: Database) -> None:
    """Until the daemon has made the schema."""

    async def work(conn: Conn) -> None:
        await conn.execute("SELECT FROM claims LIMIT 1")

    with trio.fail_after(START_WITHIN):
        await database.wait_ready()
        while True:
            try:
                await database.run(work)
            except psycopg.errors.UndefinedTable:
                await trio.sleep(0.1)
            else:
                return


def _leaks(campaign: Campaign) -> None:
    """What a quiet daemon may hold."""
    _sample(campaign)
    count, last = len(campaign.users), campaign.samples[-1] if campaign.samples else None
    if last is None:
        campaign.problems.append("the daemon could not be looked at")
    elif last.descriptors > count + SPARE_DESCRIPTORS:
        campaign.problems.append(f"{last.descriptors} descriptors are open for {count} accounts")
    if campaign.proxy.open != count:
        campaign.problems.append(f"{campaign.proxy.open} IMAP connections are open for {count} accounts")


async def soak(seed: int, seconds: float, count: int, large: int) -> dict[str, Any]:
    """Run a campaign; its report."""
    in_thread = trio.to_thread.run_sync
    users = [f"soak{number}@example.test" for number in range(count)]
    with Dovecot() as dovecot:
        for number, user in enumerate(users):
            await in_thread(dovecot.seed, user, seeds(SEEDED if number else large, seed=seed + number))
        async with trio.open_nursery() as nursery:
            proxy = Proxy(dovecot.imaps_port)
            port = await nursery.start(proxy.run)
            daemon = DaemonProcess(port=port, ca=dovecot.ca_pem)
            try:
                campaign = Campaign(seed, seconds, dovecot, daemon, proxy, users)
                report = await _campaign(campaign, Endpoint(dovecot.host, port, Security.TLS))
            finally:
                with trio.CancelScope(shield=True):
                    await in_thread(daemon.close)
            nursery.cancel_scope.cancel()
    return report


async def _campaign(campaign: Campaign, imap: Endpoint) -> dict[str, Any]:
    daemon, in_thread = campaign.daemon, trio.to_thread.run_sync
    await in_thread(daemon.start)
    async with Database(daemon.conninfo, size=2, application_name="soak") as database, trio.open_nursery() as nursery:
        await nursery.start(database.watch)
        nursery.start_soon(_bury, campaign)
        await _ready(database)
        password = campaign.dovecot.password
        campaign.ids = await accounts.connect(database, daemon.vault, campaign.users, imap, password, owner="soak")
        campaign.began = time.monotonic()
        await _run(campaign)
        campaign.say("quiet: waiting until the store equals the server")
        settled = await _settle(campaign, database)
        _leaks(campaign)
        nursery.cancel_scope.cancel()
    code = await in_thread(daemon.stop)
    if code != 0:
        campaign.problems.append(f"the daemon ended with {code} after SIGTERM")
    if remains := await in_thread(daemon.remains):
        campaign.problems.append(f"processes remain: {remains}")
    campaign.problems += [f"bug: {line}" for line in await in_thread(daemon.bugs)]
    return {
        "machine": machine(),
        "seed": campaign.seed,
        "seconds": campaign.seconds,
        "accounts": len(campaign.users),
        "done": dict(campaign.done),
        "delivered": campaign.delivered,
        "daemon_starts": daemon.starts,
        "imap_connections": campaign.proxy.accepted,
        "settled_in": round(settled, 1),
        "lives": growth(campaign.samples),
        "last_sample": campaign.samples[-1].as_json() if campaign.samples else None,
        "problems": campaign.problems,
    }


def main() -> int:
    """Run a campaign and report."""
    parser = argparse.ArgumentParser(prog="ops.soak", description="Faults, and store equals server at the end.")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--accounts", type=int, default=50)
    parser.add_argument("--seed", type=int, default=None, help="replays a campaign; printed where none is given")
    parser.add_argument("--quick", action="store_true", help="a few seconds, a few accounts: shows that it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there too")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().getrandbits(32)
    minutes, count, large = (0.15, 4, 300) if arguments.quick else (arguments.minutes, arguments.accounts, LARGE)
    adopt_orphans()
    logs.set_up("error", "text")
    print(f"seed {seed}, {minutes:g} minutes, {count} accounts", flush=True)
    report = trio.run(soak, seed, 60 * minutes, count, large)
    print(json.dumps(report, indent=1))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    problems = report["problems"]
    print(f"{len(problems)} problems" if problems else "store equals server", flush=True)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
