"""How an account's supervisor judges what its sync child ended in: by the disposition that the fault carries.

A bare NO to a login may be a server's own trouble, so it is confirmed by repetition before the account is parked; a NO
with a code that says so parks at once.  A lost claim is nobody's fault: the account is another node's now.
"""

from __future__ import annotations

from typing import Final

from daemon.errors import Disposition, Fault, FaultKind, leaves
from daemon.imap.faults import Refused
from daemon.storage.fence import ClaimLost
from supervisor import Ruling, Verdict

CONFIRMATIONS: Final = 3
"""Refused logins in a row that make a refusal without a code final; servers misuse it for seconds, not for minutes."""

INTERNAL_ERROR: Final = "internal_error"
"""The state code of an account parked by a bug of ours."""


def fault_in(exc: BaseException) -> Fault | None:
    """The fault inside an exception (group), if faults are all there is: one bug among them makes it a bug."""
    found = leaves(exc)
    # A command that the server refused is a fault by what the refusal said (RFC 5530's codes).
    told = [leaf.fault() if isinstance(leaf, Refused) else leaf for leaf in found]
    faults = [fault for fault in told if isinstance(fault, Fault)]
    if len(faults) != len(found) or not faults:
        return None
    # The one that decides: parking before retrying, and the longest back-off a server named.
    return max(faults, key=lambda f: (f.disposition is Disposition.PARK, f.retry_after or 0.0))


def lost_claim(exc: BaseException) -> bool:
    """Whether the account was found to be another node's."""
    return any(isinstance(leaf, ClaimLost) for leaf in leaves(exc))


class Judge:
    """Rules on one account's sync child; remembers refused logins in a row."""

    __slots__ = ("_refusals",)

    def __init__(self) -> None:
        self._refusals = 0

    def forgive(self) -> None:
        """The credentials work, or are new ones."""
        self._refusals = 0

    def __call__(self, exc: Exception) -> Ruling:
        """The ruling on an exit."""
        if lost_claim(exc):
            return Ruling(Verdict.FINAL)
        fault = fault_in(exc)
        if fault is None or fault.disposition is Disposition.ESCALATE:
            return Ruling(Verdict.CRASH)
        if fault.kind is FaultKind.AUTH_FAILED:
            self._refusals += 1
        if fault.disposition is Disposition.PARK or self._refusals >= CONFIRMATIONS:
            return Ruling(Verdict.FINAL)
        return Ruling(Verdict.EXCUSED, not_before=fault.retry_after or 0.0)
