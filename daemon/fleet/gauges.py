"""What a node is like at a scrape, read from the statistics of its long-lived objects."""

from __future__ import annotations

from collections.abc import Iterator

from daemon.account.pacing import Pacing
from daemon.account.states import State
from daemon.network import Lookout
from daemon.storage.database import Database
from daemon.telemetry.metrics import Gauge

from .fleet import Fleet


def gauges(fleet_of_node: Fleet, storage: Database, limiters: Pacing, lookout: Lookout) -> Iterator[Gauge]:
    """The gauges of this node."""
    fleet, database, pacing = fleet_of_node.statistics(), storage.statistics(), limiters.statistics()
    for state in State:
        count = fleet.states.get(state.value, 0)
        yield Gauge("accountsd_accounts", "Accounts that this node runs, by state.", count, {"state": state.value})
    yield Gauge("accountsd_accounts_running", "Accounts that this node runs.", fleet.running)
    if fleet.oldest_proof is not None:
        yield Gauge(
            "accountsd_oldest_proof_timestamp_seconds",
            "When the watched account heard least recently last heard its server.",
            fleet.oldest_proof,
        )
    yield Gauge("accountsd_sessions_quiet", "IMAP sessions in IDLE that no task has to look at.", lookout.waiting)
    yield Gauge("accountsd_claims_won", "Claims won since the start.", fleet.claimed)
    yield Gauge("accountsd_claims_lost", "Accounts lost to other nodes since the start.", fleet.lost)
    yield Gauge("accountsd_accounts_connecting", "Accounts that are connecting.", pacing.connecting)
    yield Gauge("accountsd_accounts_waiting", "Accounts that wait for their turn to connect.", pacing.waiting)
    yield Gauge("accountsd_hosts_slowed", "Hosts that throttled us, and are asked less often.", pacing.slowed)
    yield Gauge("accountsd_first_syncs", "Accounts in their first synchronisation.", pacing.first_syncs)
    yield Gauge("accountsd_database_up", "Whether PostgreSQL answers.", float(database.ready))
    yield Gauge("accountsd_database_transactions", "Transactions committed.", database.transactions)
    yield Gauge("accountsd_database_conflicts", "Transactions run again after a conflict.", database.conflicts)
