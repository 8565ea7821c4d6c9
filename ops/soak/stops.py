"""`stops`: a thousand accounts, one of them in its first synchronisation; what ends in order, and what does not.

    embedded database       SIGTERM: exit 0 within 5 s, nothing to repair at the next start, the first synchronisation
                            goes on; a second signal ends at once; killed and shut down while mail comes for all
    a server of its own     not there at the start: waited for, and said; shut down and killed while mail comes for all

Each time all accounts must equal the server in the end, by themselves.
"""

from __future__ import annotations

import shutil
import signal
import time
from functools import partial
from pathlib import Path
from typing import Final

import trio

from daemon.storage.embedded import embedded_conninfo, run_embedded
from daemon.storage.faults import is_storage_trouble
from ops.testservers.dovecot import Dovecot
from ops.testservers.process import Owner, short_directory

from . import database_faults
from .campaign import Options, Report, Say
from .daemon_process import DaemonProcess
from .life import burying, fill
from .settle import LARGE_USER
from .stops_stage import (
    AT_ONCE,
    Stage,
    connect,
    deliver,
    equals,
    expect_no_repairs,
    load,
    signal_twice,
    stop,
    until_in_first_sync,
    until_watching,
)
from .stops_watch import Systemd, readiness

LARGE: Final = 20_000
QUICK_LARGE: Final = 2500
"""Messages of the mailbox that is in its first synchronisation."""

SAID_WITHIN: Final = 30.0
"""Seconds until the daemon says what it waits for: it starts, and asks for two seconds first."""

ENDS_AT_ONCE: Final = (128 + signal.SIGTERM, 0)
"""Exit codes after a second signal: as a shell would give it; or it had ended before the signal came."""


async def campaign(options: Options, say: Say) -> Report:
    """Run it."""
    in_thread = trio.to_thread.run_sync
    report = Report()
    users = [f"idle{number}@example.test" for number in range(options.accounts)]
    with Dovecot() as dovecot:
        large = QUICK_LARGE if options.quick else LARGE
        await fill(dovecot, {LARGE_USER: large}, options.seed, say)
        say(f"a message for each of {len(users)} users")
        await in_thread(deliver, dovecot, users, options.seed)
        for name, part in (("embedded", _embedded), ("own_server", _own_server)):
            home = short_directory("stops-", Owner.ourselves())
            systemd = Systemd(home / "notify")
            conninfo = embedded_conninfo(home / "pg")
            reached = {"storage.dsn": conninfo} if part is _own_server else {}
            try:
                async with DaemonProcess(
                    port=dovecot.imaps_port, ca=dovecot.ca_pem, settings=reached, notify=systemd.path
                ) as daemon:
                    at = conninfo if reached else daemon.conninfo
                    stage = Stage(options, say, dovecot, daemon, at, users, report, name, home, systemd)
                    await part(stage)
            finally:
                systemd.close()
                with trio.CancelScope(shield=True):
                    await in_thread(partial(shutil.rmtree, home, ignore_errors=True))
            report.figures[name] = stage.figures
    return report


# -- with the embedded database ------------------------------------------------------------------------------------


async def _embedded(stage: Stage) -> None:
    await trio.to_thread.run_sync(stage.daemon.start)
    await connect(stage, stage.users, "soak")
    stage.figures["first_watched_after"] = round(await until_watching(stage, len(stage.users)), 1)
    [large] = await connect(stage, [LARGE_USER], "soak-large")
    before, _ = await until_in_first_sync(stage, large)
    await stop(stage, "stop_in_first_sync")

    began = time.monotonic()
    await trio.to_thread.run_sync(stage.daemon.start)
    after, below = await until_in_first_sync(stage, large)
    stage.figures["stored_at_stop_and_after"] = [before, after]
    if after < before:
        stage.problem(f"the first synchronisation began anew: {before} messages before, {after} after ({below} left)")
    stage.figures["again_watched_after"] = round(await until_watching(stage, len(stage.mailboxes), began), 1)
    expect_no_repairs(stage, "after a stop in order")

    took, code = await trio.to_thread.run_sync(signal_twice, stage)
    stage.figures["second_signal"] = round(took, 3)
    if code not in ENDS_AT_ONCE or took > AT_ONCE:
        stage.problem(f"a second signal ended the daemon with {code} after {took:.2f} s")
    async with burying(stage.daemon, stage.dovecot):
        await trio.to_thread.run_sync(stage.daemon.start)
        await until_watching(stage, len(stage.mailboxes))
        faults = (("killed", signal.SIGKILL), ("shut_down", signal.SIGINT))
        for name, number in faults[: 1 if stage.options.quick else 2]:
            stage.say(f"mail for all, and the database {name}")
            async with load(stage):
                if not await trio.to_thread.run_sync(database_faults.kill_server, stage.daemon.data, number):
                    stage.problem("there was no database to kill")
            await equals(stage, f"{name}_under_load")
    await stop(stage, "stop_idle")


# -- with a server of its own --------------------------------------------------------------------------------------


class _Server:
    """A PostgreSQL that is not the daemon's: runs until cancelled, starts again when it was killed or told to."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._life = trio.CancelScope()

    async def run(self) -> None:
        while True:
            with trio.CancelScope() as self._life:
                try:
                    await run_embedded(self._home)
                except Exception as exc:
                    if not is_storage_trouble(exc):
                        raise

    def restart(self) -> None:
        """Shut it down (PostgreSQL's fast shutdown) and start it again."""
        self._life.cancel()


async def _own_server(stage: Stage) -> None:
    await trio.to_thread.run_sync(stage.daemon.start)
    await _waits_and_says_so(stage)
    server = _Server(stage.home / "pg")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        began = time.monotonic()
        if not await _ready(stage, 200):
            stage.problem("the daemon is not ready though the database is there")
        stage.figures["ready_after"] = round(time.monotonic() - began, 1)
        await connect(stage, stage.users, "soak")
        await until_watching(stage, len(stage.users))
        for name in ("shut_down", "killed")[: 1 if stage.options.quick else 2]:
            stage.say(f"mail for all, and the server {name}")
            async with load(stage):
                if name == "shut_down":
                    server.restart()
                elif not await trio.to_thread.run_sync(database_faults.kill_server, stage.home / "pg/data"):
                    stage.problem("there was no server to kill")
            await equals(stage, f"{name}_under_load")
        await stop(stage, "stop_idle")
        nursery.cancel_scope.cancel()


async def _ready(stage: Stage, status: int) -> bool:
    """Whether the daemon came to answer so."""
    with trio.move_on_after(SAID_WITHIN):
        while (await trio.to_thread.run_sync(readiness, stage.daemon.said()))[0] != status:  # noqa: ASYNC110  # it tells nobody
            await trio.sleep(0.2)
        return True
    return False


async def _waits_and_says_so(stage: Stage) -> None:
    """Without a database the daemon runs, is not ready, and says why: by HTTP, in its log and to systemd."""
    if not await _ready(stage, 503):
        stage.problem(f"/health/ready did not say 503 within {SAID_WITHIN:g} s: {stage.daemon.said()[-500:]}")
    _, said = await trio.to_thread.run_sync(readiness, stage.daemon.said())
    if "away" not in str(said):
        stage.problem(f"/health/ready does not name the database: {said}")
    with trio.move_on_after(SAID_WITHIN):
        while not _said_so(stage):  # noqa: ASYNC110  # another process, which tells nobody
            await trio.sleep(0.2)
        return
    stage.problem(f"log and systemd do not say what is waited for: {stage.systemd.told} {stage.daemon.said()[-500:]}")


def _said_so(stage: Stage) -> bool:
    told = any(line.startswith("STATUS=") and "Waiting for the database" in line for line in stage.systemd.read())
    return told and '"storage.waiting"' in stage.daemon.said()
