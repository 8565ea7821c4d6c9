"""What the API calls `sync_status`: derived from desired state, actual state and the proof of life; pure.

`pending`: never synced yet, or paused.  `syncing`: catching up.  `synced`: up to date, with a fresh proof.  `error`:
parked, or without success for longer than PATIENCE.  A node that died leaves `watching` behind, so a state is believed
only while its proof is fresh.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from .states import State
from .views import SyncStatus

PATIENCE: Final = timedelta(minutes=5)
"""How long a lost connection is shown as catching up before it is shown as an error: servers restart in minutes."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is stored of an account that its status follows from."""

    desired: Literal["running", "paused", "removed"]
    state: State
    first_synced: bool
    trouble_since: datetime | None
    proof_until: datetime | None


def sync_status(facts: Facts, now: datetime) -> SyncStatus:
    """The status at a moment of the database's clock."""
    if facts.desired != "running":
        return "pending"
    if facts.state is State.PARKED:
        return "error"
    if facts.trouble_since is not None and now - facts.trouble_since > PATIENCE:
        return "error"
    if facts.state is State.WATCHING:
        if facts.proof_until is None or now - facts.proof_until > PATIENCE:
            return "error"
        return "synced" if now <= facts.proof_until else "syncing"
    if facts.state is State.SYNCING:
        return "syncing"
    return "syncing" if facts.first_synced else "pending"


def holds_until(facts: Facts, now: datetime) -> datetime | None:
    """Until when the status of `now` holds while nothing is stored; None: for ever.

    A proof that is over answers with its end, which is past: the next word of the server may renew it at any time.
    Whoever keeps a status looks again once this moment is over; a proof that grows meanwhile makes it hold longer, and
    everything else that the status depends on is told to readers of lists by a trigger (migration 0002).
    """
    if facts.desired != "running" or facts.state is State.PARKED:
        return None
    if facts.trouble_since is not None and now - facts.trouble_since > PATIENCE:
        return None
    error_at = None if facts.trouble_since is None else facts.trouble_since + PATIENCE
    if facts.state is not State.WATCHING:
        return error_at
    if facts.proof_until is None:
        return None
    return facts.proof_until if error_at is None else min(error_at, facts.proof_until)
