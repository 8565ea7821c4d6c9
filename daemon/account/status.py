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
