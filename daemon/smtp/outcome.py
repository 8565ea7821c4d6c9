"""What became of a message that was handed to a server: for each recipient exactly one of four things.

*Accepted* and *refused* are the server's word, for good.  *Deferred* is its word too, or its silence before the message
was complete: it has not taken it, and later is another matter.  *Unknown* is silence after the message was complete:
it may have been taken, so nobody may send it again on a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from daemon.errors import Fault

from .replies import Reply


class Verdict(StrEnum):
    """A whole send in one word."""

    ACCEPTED = "accepted"
    """Taken for at least one recipient."""
    REFUSED = "refused"
    """Refused for all, for good."""
    DEFERRED = "deferred"
    """Taken for nobody; some or all may be tried again."""
    UNKNOWN = "unknown"
    """Complete at the server, which never answered."""


@dataclass(frozen=True, slots=True)
class SendResult:
    """Each recipient, as the caller wrote it, is in exactly one of the four."""

    accepted: tuple[str, ...] = ()
    refused: Mapping[str, Reply] = field(default_factory=dict)
    deferred: Mapping[str, Reply] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    reply: Reply | None = None
    """The last word of the server on the message; None where it fell silent."""
    fault: Fault | None = None
    """Where a reply was about the account or the server, what it said: act on it before the next send."""

    @property
    def verdict(self) -> Verdict:
        """The whole in one word; unknown before anything else."""
        if self.unknown:
            return Verdict.UNKNOWN
        if self.accepted:
            return Verdict.ACCEPTED
        return Verdict.DEFERRED if self.deferred else Verdict.REFUSED
