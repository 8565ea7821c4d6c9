"""The program of `fleet`: many accounts in this process, real ones under the real fleet, or bare sessions.

    python -P -m ops.bench.fleet_child < request.json

Answers with `start` (seconds from nothing to all idle), `kib` (growth of the resident set for each, trimmed), `rss`
(KiB), `cpu` (share of one core while idle), `renewing` (the same while so many `renewals` of IDLE come, each of which
compares), `comparison` (processor seconds of a whole run for one account, as its owner may ask for one) and `pushes`
(seconds from the server's line to the committed row).
"""

from __future__ import annotations

import ctypes
import gc
import os
import smtplib
import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import trio

from daemon.account.pacing import Pacing
from daemon.account.proofs import Proofs
from daemon.account.sync import SyncConfig
from daemon.account.tree import Runtime
from daemon.fleet.fleet import Fleet
from daemon.imap.folder_changes import FolderSyncConfig
from daemon.imap.open import open_session
from daemon.network import Dialer, Endpoint, Lookout, Security
from daemon.storage.database import Database
from daemon.telemetry import logs, loop, metrics
from daemon.telemetry.lean import set_aside
from daemon.vault.secret import Secret
from ops.testservers.mail import message

from .accounts import ask_all, unserved
from .child import answer, request, rss_kib, until
from .place import CONNECTIONS, dialer_to, trusting, vault_of

Wanted = dict[str, Any]

START_WITHIN: Final = 120.0
EACH_WITHIN: Final = 0.12
"""Seconds until all are idle: the larger of the first and the second for each account, 20 minutes for ten thousand."""

RENEWAL: Final = 540.0
"""Seconds of IDLE, the daemon's default.  First renewals are spread over most of it, so that few of them, if any, fall
into the first measurement: what they cost is measured apart, when they come."""

RENEWALS_AFTER: Final = 120.0
RENEWALS_FOR: Final = 120.0
"""Seconds since the start after which the first renewals come, one after the other as ever after; and of the look at
them, in which Dovecot says to every session once that it is still here: a whole multiple of its two minutes."""

FIRST_SYNCS: Final = 4
"""Accounts that fetch in bulk at once, the daemon's default; these inboxes are complete with their beginning."""

PUSH_WITHIN: Final = 30.0
"""Seconds for the last push to be stored: Dovecot tells of news after half a second."""

PAUSE: Final = 0.02
"""Seconds between deliveries: 50 a second, so that pushes are measured and not a queue of them."""

_FOLDER: Final = FolderSyncConfig(window=500, max_body=50 << 20)


def start_within(count: int) -> float:
    """Seconds until so many accounts must be idle."""
    return max(START_WITHIN, EACH_WITHIN * count)


def main() -> None:
    """Do what standard input asks for."""
    wanted = request()
    logs.set_up("error", "text")
    set_aside()  # as the daemon does; the yardstick has the good of it too
    kinds = {"fleet": _fleet, "sessions": _sessions}
    answer(trio.run(kinds[wanted["kind"]], wanted))


def _trimmed_rss() -> float:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return rss_kib()


async def _settled(wanted: Wanted, before: float, began: float) -> dict[str, Any]:
    """The figures once everything is idle."""
    started = time.perf_counter() - began
    await trio.sleep(min(2.0, wanted["idle_for"]))  # for what the start leaves behind to end
    after = _trimmed_rss()
    cpu, wall = time.process_time(), time.perf_counter()
    await trio.sleep(wanted["idle_for"])
    share = (time.process_time() - cpu) / (time.perf_counter() - wall) if wanted["idle_for"] else 0.0
    return {
        "start": started,
        "kib": (after - before) / len(wanted["users"]),
        "rss": after,
        "cpu": share,
        "pushes": [],
    }


# -- the real thing ------------------------------------------------------------------------------------------------


class _Stopwatch:
    """Times pushes as the daemon does, from the moment its server's line was read to the commit of the news.

    The daemon's own histogram has buckets, so its `observe` is watched.
    """

    def __init__(self) -> None:
        self.pushes: list[float] = []

    def install(self) -> None:
        metrics.push_seconds.observe = self._observe  # type: ignore[method-assign]  # nothing else tells each

    def _observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        del exemplar
        self.pushes.append(amount)


def _runtime(wanted: Wanted, database: Database, dialer: Dialer) -> Runtime:
    starting = wanted["starting"]
    return Runtime(
        database=database,
        proofs=Proofs(database),
        dialer=dialer,
        lookout=Lookout(),
        vault=vault_of(bytes.fromhex(wanted["key"])),
        pacing=Pacing(starting=starting, starting_per_host=starting, first_syncs=FIRST_SYNCS),
        sync=SyncConfig(_FOLDER, RENEWAL, RENEWAL),
        retry_first=2.0,
        retry_longest=600.0,
        faults=lambda kind: metrics.faults.labels(kind).inc(),
    )


async def _fleet(wanted: Wanted) -> dict[str, Any]:
    dialer = dialer_to({wanted["port"]}, trusting(Path(wanted["ca"])))
    stopwatch = _Stopwatch()
    stopwatch.install()
    migrated = trio.Event()
    migrated.set()
    async with (
        Database(wanted["conninfo"], size=CONNECTIONS) as database,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(database.watch)
        await nursery.start(loop.watch_lag)
        count = len(wanted["users"])
        runtime = _runtime(wanted, database, dialer)
        fleet = Fleet(runtime, node=UUID(wanted["node"]), capacity=count, ttl=30.0, version="bench", migrated=migrated)
        await database.wait_ready()
        before, began = _trimmed_rss(), time.perf_counter()
        async with trio.open_nursery() as running:
            await running.start(runtime.lookout.run)
            await running.start(runtime.proofs.run)
            await running.start(fleet.run_accounts)
            await running.start(fleet.run_membership)
            await running.start(fleet.run_rounds)
            with trio.move_on_after(start_within(count)) as scope:
                # Counting takes a microsecond for each, and is not to be what is measured.
                every = max(0.02, count / 10_000)
                await until(lambda: _heard(fleet) == count, every)
            if scope.cancelled_caught:
                raise RuntimeError(f"not all accounts watch: {fleet.statistics()}")
            result = await _settled(wanted, before, began)
            if wanted["renewals"]:
                if wanted["renewals"] == "all":
                    result["renewals"], result["renewing"] = await _renewing(began)
                result["comparison"] = await _compare(database, fleet)
            if wanted["deliveries"]:
                await _deliver(wanted, stopwatch)
            result["pushes"] = stopwatch.pushes
            running.cancel_scope.cancel()
        nursery.cancel_scope.cancel()
    return result


def _heard(fleet: Fleet) -> int:
    """Accounts whose server has shown them to be up to date; one that begins still has the state it had before."""
    return sum(1 for tree in fleet._trees.values() if tree.heard_at is not None)  # noqa: SLF001  # no gauge tells


async def _renewing(began: float) -> tuple[int, float]:
    """How many renewals came one by one, and the processor's share meanwhile."""
    await trio.sleep(max(0.0, RENEWALS_AFTER - (time.perf_counter() - began)))
    before, cpu, wall = _renewals(), time.process_time(), time.perf_counter()
    await trio.sleep(RENEWALS_FOR)
    share = (time.process_time() - cpu) / (time.perf_counter() - wall)
    count = _renewals() - before
    if not count:
        raise RuntimeError("no IDLE was renewed")
    return count, share


def _renewals() -> int:
    return int(metrics.registry.get_sample_value("accountsd_renewals_total") or 0)


async def _compare(database: Database, fleet: Fleet) -> float:
    """Processor seconds for one account to compare its folder with the server, all of them asked at once."""
    await ask_all(database)
    cpu = time.process_time()
    fleet.nudge()
    with trio.fail_after(start_within(fleet.statistics().running)):
        while await unserved(database):  # noqa: ASYNC110  # the database tells nobody
            await trio.sleep(1.0)
    return (time.process_time() - cpu) / fleet.statistics().running


async def _deliver(wanted: Wanted, stopwatch: _Stopwatch) -> None:
    stopwatch.pushes.clear()
    users, deliveries = wanted["users"], wanted["deliveries"]
    step = max(1, len(users) // deliveries)
    chosen = [users[number * step % len(users)] for number in range(deliveries)]
    await trio.to_thread.run_sync(os.sync)
    await trio.to_thread.run_sync(partial(_deliver_all, wanted["lmtp"], chosen))
    with trio.move_on_after(PUSH_WITHIN):
        await until(lambda: len(stopwatch.pushes) >= len(set(chosen)))
    if len(stopwatch.pushes) < len(set(chosen)):
        raise RuntimeError(f"{len(set(chosen))} accounts got mail, {len(stopwatch.pushes)} pushes were stored")


def _deliver_all(port: int, users: list[str]) -> None:
    with smtplib.LMTP("127.0.0.1", port, local_hostname="localhost", timeout=60) as lmtp:
        for number, user in enumerate(users):
            lmtp.sendmail("sender@example.test", [user], message(f"news {number}", body="It works.\r\n" * 50))
            time.sleep(PAUSE)


# -- the yardstick -------------------------------------------------------------------------------------------------


async def _sessions(wanted: Wanted) -> dict[str, Any]:
    """Log in, select, wait in IDLE; as many at once as the fleet may."""
    dialer = dialer_to({wanted["port"]}, trusting(Path(wanted["ca"])))
    endpoint = Endpoint(wanted["host"], wanted["port"], Security.TLS)
    turns = trio.CapacityLimiter(wanted["starting"])
    idle, all_idle = 0, trio.Event()

    async def one(user: str) -> None:
        nonlocal idle
        async with AsyncExitStack() as stack:
            async with turns:
                opening = open_session(dialer, endpoint, user, Secret(wanted["password"]))
                session = await stack.enter_async_context(opening)
                await session.enable(b"QRESYNC", b"CONDSTORE")
                await session.select("INBOX")
            idle += 1
            if idle == len(wanted["users"]):
                all_idle.set()
            await session.idle(RENEWAL)

    before, began = _trimmed_rss(), time.perf_counter()
    async with trio.open_nursery() as nursery:
        for user in wanted["users"]:
            nursery.start_soon(one, user)
        with trio.fail_after(start_within(len(wanted["users"]))):
            await all_idle.wait()
        result = await _settled(wanted, before, began)
        nursery.cancel_scope.cancel()
    return result


if __name__ == "__main__":
    main()
