"""The composition root: reads the settings, builds every part once, and runs the root of the supervision tree.

    root (one_for_one, 3 in 60 s; beyond it the process exits non-zero and systemd restarts it)
    ├─ database: the embedded server, unless a DSN is set
    ├─ storage: migrations, then the gate's probe
    ├─ lookout: waits in the place of the accounts that are quiet
    ├─ proofs: stores what only says that they still are
    ├─ membership: this node's heartbeat; gives its accounts back at the end
    ├─ accounts: the dynamic supervisor of all account trees
    ├─ rounds: reconciles the database with what runs
    ├─ watchdog: feeds systemd's, from the loop that does the work
    ├─ loop: measures how late the loop is
    ├─ operations: metrics and health
    └─ api: the control API
Stopped right to left.  The only file that may import everything.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final, NoReturn
from uuid import UUID

import structlog
import trio

from control_api.app import create_app
from control_api.operations import create_operations_app
from control_api.server import serve_api
from daemon.account.caller_rates import CallerRates
from daemon.account.pacing import Pacing
from daemon.account.proofs import Proofs
from daemon.account.service import AccountService
from daemon.account.sync import SyncConfig
from daemon.account.tree import Runtime
from daemon.errors import leaves
from daemon.fleet.fleet import Fleet
from daemon.fleet.gauges import gauges
from daemon.fleet.node import NoNodeIdentity, node_identity
from daemon.health import Health
from daemon.identity import Plans
from daemon.imap.folder_changes import FolderSyncConfig
from daemon.names import ForeignPackage, check_names, version
from daemon.network import Dialer, Lookout, NetworkPolicy, Resolver, client_context
from daemon.preflight import check
from daemon.settings import Settings, SettingsError, load
from daemon.state import State, key_file, prepare
from daemon.storage.binaries import EmbeddedFailed
from daemon.storage.database import Database
from daemon.storage.embedded import embedded_conninfo, run_embedded
from daemon.storage.faults import is_storage_trouble
from daemon.storage.migrate import SchemaError
from daemon.storage.requests import Requests
from daemon.storage.upkeep import Upkeep
from daemon.telemetry import logs, loop, metrics
from daemon.telemetry.lean import set_aside
from daemon.telemetry.systemd import Notifier
from daemon.vault import KeyFileError, Vault
from supervisor import (
    Backoff,
    ChildSpec,
    Context,
    Crash,
    Report,
    Restart,
    RestartBudgetSpent,
    Ruling,
    Strategy,
    Supervisor,
    Verdict,
)

log = structlog.get_logger(__name__)

WRONG_SETTINGS: Final = 2
FAILED: Final = 1

HARD_LIMIT: Final = 100.0
"""Seconds from the request to stop to the end of the process whatever happens: the ladders of all children, of which
the embedded server's is the longest with 50.  Trio cannot kill a task that does not end."""


class Fatal(Exception):
    """Something that no restart mends: one sentence for a person."""


class Daemon:
    """Everything one process has."""

    def __init__(self, settings: Settings, state: State, node: UUID) -> None:
        self.settings = settings
        self.fatal: str | None = None
        self.stopping = False
        self._state = state
        dsn = settings.storage.dsn.get_secret_value()
        self._embedded = not dsn
        self._conninfo = dsn or embedded_conninfo(state.database)
        self.database = Database(self._conninfo, size=settings.storage.connections)
        self._storage = Upkeep(self.database, self._conninfo, stopping=lambda: self.stopping)
        migrated = self._storage.migrated
        network = settings.network
        dialer = Dialer(
            NetworkPolicy(allow=network.allow, ports=network.ports),
            Resolver(network.nameservers),
            tls=client_context(network.ca_file),
        )
        self.lookout = Lookout()
        self.proofs = Proofs(self.database)
        self._keys = key_file(state)
        vault = Vault(self._keys)
        sync = settings.sync
        runtime = Runtime(
            database=self.database,
            proofs=self.proofs,
            dialer=dialer,
            lookout=self.lookout,
            vault=vault,
            pacing=Pacing(
                starting=settings.fleet.starting,
                starting_per_host=settings.fleet.starting_per_host,
                first_syncs=settings.fleet.first_syncs,
            ),
            sync=SyncConfig(FolderSyncConfig(sync.window, sync.max_body), sync.idle_renewal, sync.poll),
            retry_first=sync.retry_first,
            retry_longest=sync.retry_longest,
            faults=lambda kind: metrics.faults.labels(kind).inc(),
        )
        self.fleet = Fleet(
            runtime,
            node=node,
            capacity=settings.fleet.max_accounts,
            ttl=settings.fleet.claim_ttl,
            version=version(),
            migrated=migrated,
            keep_audit=timedelta(days=settings.audit.keep_days),
        )
        plans = Plans({slug: plan.accounts for slug, plan in settings.plans.items()}, settings.auth.default_plan)
        self.accounts = AccountService(
            Requests(self.database, migrated=migrated.is_set),
            dialer,
            vault,
            plans,
            rates=CallerRates.of(**settings.rates.model_dump()),
            nudge=self.fleet.nudge,
        )
        self.health = Health(
            self.database, self.fleet, migrated=migrated.is_set, stopping=lambda: self.stopping
        )
        self.notifier = Notifier()
        self.root = Supervisor(
            "root",
            self._children(),
            strategy=Strategy.ONE_FOR_ONE,
            intensity=3,
            period=60.0,
            observers=(self._observe,),
        )
        metrics.gauges.add(partial(gauges, self.fleet, self.database, runtime.pacing, self.lookout))
        metrics.gauges.add(loop.gauges)

    def _children(self) -> list[ChildSpec]:
        quick = Backoff(base=0.2, cap=10.0, stable_uptime=60.0)
        api = create_app(self.settings, self.accounts, self._state.session_secret)
        operations = create_operations_app(self.health)
        children = [
            ChildSpec("storage", self._storage.run, backoff=quick, judge=self._judge),
            ChildSpec("lookout", self.lookout.run),
            ChildSpec("proofs", self.proofs.run, backoff=quick, judge=self._judge),
            ChildSpec("membership", self.fleet.run_membership, backoff=quick, judge=self._judge),
            ChildSpec(
                "accounts",
                self.fleet.run_accounts,
                backoff=quick,
                judge=self._judge,
                stop=self.fleet.stop_accounts,
                shutdown=20.0,
            ),
            ChildSpec("rounds", self.fleet.run_rounds, backoff=quick, judge=self._judge),
            ChildSpec("watchdog", partial(self.notifier.run, self.health.healthy, self._status)),
            ChildSpec("loop", loop.watch_lag),
            ChildSpec("operations", partial(serve_api, operations, self.settings.operations.bind), judge=self._judge),
            ChildSpec("api", partial(serve_api, api, self.settings.api.bind), judge=self._judge),
            ChildSpec("announcement", self._announce, restart=Restart.TEMPORARY),
        ]
        if self._embedded:
            server = partial(run_embedded, self._state.database)
            children.insert(0, ChildSpec("database", server, backoff=quick, judge=self._judge, shutdown=50.0))
        return children

    def _judge(self, exc: Exception) -> Ruling:
        """What a person must mend ends the process; trouble of the database is paced; the rest are bugs."""
        for leaf in leaves(exc):
            if isinstance(leaf, (SchemaError, EmbeddedFailed)):
                self._end(str(leaf))
        if is_storage_trouble(exc):
            return Ruling(Verdict.EXCUSED)
        return Ruling(Verdict.CRASH)

    def _end(self, sentence: str) -> None:
        self.fatal = self.fatal or sentence
        self.stop()

    def _observe(self, report: Report) -> None:
        if isinstance(report.exit, Crash) and is_storage_trouble(report.exit.exc):
            reason = "; ".join(getattr(leaf, "detail", None) or str(leaf) for leaf in leaves(report.exit.exc))
            log.warning("root.database_lost", child=report.child_id, reason=reason[:500], again_in=report.next_delay)
        elif isinstance(report.exit, Crash):
            log.error(
                "root.child_failed",
                child=report.child_id,
                context=report.context.value,
                again_in=report.next_delay,
                exc_info=report.exit.exc,
            )
        elif report.context not in (Context.STOPPED, Context.CHILD_TERMINATED):
            log.error("root.supervision", child=report.child_id, context=report.context.value)

    # -- running -------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Begin to end, in order; a hard limit watches over it."""
        if not self.stopping:
            self.stopping = True
            self.notifier.tell(STOPPING=1)
            limit = threading.Timer(HARD_LIMIT, _abandon)
            limit.daemon = True
            limit.start()
            self.root.request_stop()

    async def run(self) -> int:
        """Run until a signal or something fatal; the process's exit code."""
        async with self.database, trio.open_nursery() as nursery:
            await nursery.start(self._signals)
            try:
                await self.root.run()
            except RestartBudgetSpent as spent:
                self.fatal = self.fatal or f"{spent.child_id} failed too often"
            nursery.cancel_scope.cancel()
        self.lookout.close()
        if self.fatal is not None:
            print(f"accountsd: {self.fatal}", file=sys.stderr)  # noqa: T201 - the last word is for a person
            return FAILED
        log.info("daemon.stopped")
        return 0

    async def _announce(self, *, task_status: trio.TaskStatus[None]) -> None:
        """The last child to start: say where everything is, now that there is something to talk to."""
        task_status.started()
        where = "embedded" if self._embedded else "as configured"
        lines = (
            f"accountsd {version()}",
            f"  API         http://{self._bound('api')}/mail/docs",
            f"  operations  http://{self._bound('operations')}/metrics",
            f"  state       {self._state.directory}",
            f"  database    {where}",
        )
        print("\n".join(lines), flush=True)  # noqa: T201 - asked for by whoever starts it by hand
        self.notifier.tell(READY=1)
        await trio.lowlevel.checkpoint()

    def _status(self) -> str:
        return f"API on {self.settings.api.bind}. {self.health.words()}"

    def _bound(self, listener: str) -> str:
        """Where a listener is bound, as a URL has it."""
        info = self.root.child(listener)
        host, port = info.value if info is not None and isinstance(info.value, tuple) else ("?", 0)
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"

    async def _signals(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            task_status.started()
            async for number in signals:
                if number == signal.SIGHUP:
                    self._reload()
                elif self.stopping:
                    log.warning("daemon.stopped_at_once", signal=signal.Signals(number).name)
                    os._exit(128 + number)
                else:
                    log.info("daemon.stopping", signal=signal.Signals(number).name)
                    self.stop()

    def _reload(self) -> None:
        """Read the key ring again: what is sealed from now on is under its first key."""
        try:
            self._keys.reload()
        except KeyFileError as exc:
            log.warning("daemon.reload_failed", reason=str(exc))
        else:
            log.info("daemon.reloaded", ring=self._keys.statistics().ids)


def _abandon() -> NoReturn:
    print("accountsd: something did not end in time; the process ends without it", file=sys.stderr)  # noqa: T201
    os._exit(3)


def main() -> None:
    """Run the daemon; exit code 0 after a signal, 1 after a failure, 2 for wrong settings."""
    parser = argparse.ArgumentParser(prog="accountsd", description="Keeps email accounts synchronised.")
    parser.add_argument("--config", type=Path, metavar="FILE.toml", help="settings; the environment overrides them")
    parser.add_argument("--version", action="version", version=f"accountsd {version()}")
    arguments = parser.parse_args()
    try:
        check_names()
        settings = load(arguments.config)
        logs.set_up(settings.logs.level, settings.logs.format)
        check(settings)
        state = prepare(settings)
        with node_identity(state.directory) as node:
            set_aside()
            code = trio.run(_run, settings, state, node)
    except (SettingsError, ForeignPackage, NoNodeIdentity) as exc:
        print(f"accountsd: {exc}", file=sys.stderr)  # noqa: T201 - one sentence for whoever started it
        sys.exit(WRONG_SETTINGS)
    sys.exit(code)


async def _run(settings: Settings, state: State, node: UUID) -> int:
    return await Daemon(settings, state, node).run()


if __name__ == "__main__":
    main()
