"""The limit that holds: how many recipients an account may send to in a rolling 24 hours.  Pure."""

from __future__ import annotations

from .providers import daily_cap


def daily_limit(own: int | None, *, email: str, smtp_host: str, imap_host: str) -> int:
    """The least of the account's own setting, where it has one, and of what its provider allows."""
    cap = daily_cap(email, smtp_host=smtp_host, imap_host=imap_host)
    return cap if own is None else min(own, cap)
