"""What an account of each bad host must come to, and which mixture of bad hosts a campaign has."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle, islice
from typing import Final

from ops.testservers.hostile import DEAD
from ops.testservers.hostile_floods import FLOODS
from ops.testservers.hostile_lies import LIES
from ops.testservers.hostile_talk import DEAF

KINDS: Final = {
    "dead": list(DEAD),
    "deaf": ["deaf_tls", *DEAF],
    "flooding": list(FLOODS),
    "lying": list(LIES),
}
SHARES: Final = {"dead": 2, "deaf": 2, "flooding": 1, "lying": 1}
"""Parts of all bad hosts that each kind has."""


def mixture(count: int) -> list[str]:
    """The behaviours of so many bad hosts: the kinds by their shares, within a kind each behaviour in turn."""
    whole = sum(SHARES.values())
    sizes = {kind: max(1, count * share // whole) for kind, share in SHARES.items()}
    sizes["dead"] += max(0, count - sum(sizes.values()))
    return [name for kind, size in sizes.items() for name in islice(cycle(KINDS[kind]), size)]


def kind_of(behaviour: str) -> str:
    """The kind that a behaviour belongs to."""
    return next(kind for kind, names in KINDS.items() if behaviour in names)


@dataclass(frozen=True, slots=True)
class Expected:
    """What may be seen of an account at such a host."""

    codes: frozenset[str]
    """The `state_code`s that tell the truth; at least one of them must be seen in time."""

    silent: bool = False
    """Whether no trouble at all is right too: the server does no harm that its owner should hear of."""

    parks: bool = False
    """Whether it may be given up."""

    watched: bool = False
    """Whether it may count as up to date between its troubles: it does give its mail."""


def _expected(*codes: str, silent: bool = False, parks: bool = False, watched: bool = False) -> Expected:
    return Expected(frozenset(codes), silent or not codes, parks, watched or silent or not codes)


EXPECTED: Final = {
    "dead": _expected("connect_failed"),
    "dropped": _expected("connect_failed"),
    "deaf_tls": _expected("tls_failed", "connect_failed"),
    "deaf_greeting": _expected("connect_failed"),
    "deaf_login": _expected("connection_lost", "server_unavailable"),
    "deaf_select": _expected("connection_lost"),
    "deaf_fetch": _expected("connection_lost"),
    "deaf_idle": _expected("connection_lost", silent=True),
    "endless_greeting": _expected("connect_failed"),
    "endless_ok": _expected("protocol_violation", "connection_lost"),
    "announced_literal": _expected("protocol_violation"),
    "sent_literal": _expected("protocol_violation"),
    "unasked_literal": _expected("protocol_violation"),
    "exists": _expected("protocol_violation", "connection_lost", watched=True),
    "expunge": _expected("protocol_violation", "connection_lost", watched=True),
    "flag_news": _expected("protocol_violation", "connection_lost", watched=True),
    "idle_chatter": _expected("protocol_violation", "connection_lost", watched=True),
    "alternating": _expected("protocol_violation", silent=True),
    "alternating_flags": _expected("protocol_violation", silent=True),
    "unasked_fetch": _expected("protocol_violation"),
    "junk": _expected(),
    "search": _expected("protocol_violation"),
    "vanished": _expected("protocol_violation", "connection_lost"),
    "capabilities": _expected("protocol_violation", "server_unavailable", "connection_lost"),
    "tokens": _expected("protocol_violation"),
    # A piece may take as long as on the slowest of lines, longer than a phase; who needs its place has it sooner.
    "drip": Expected(frozenset({"connection_lost", "server_unavailable"}), silent=True),
    "nothing": _expected("protocol_violation"),
    "uidvalidity": _expected("connection_lost", "protocol_violation", parks=True, watched=True),
    "uidnext_back": _expected("connection_lost", watched=True),
    "contradiction": _expected(),
    "modseq": _expected("connection_lost", watched=True),
    "sizes": _expected(),
    "new_uids": _expected("protocol_violation", silent=True),
    "other_uids": _expected("protocol_violation", silent=True),
    "same_uid": _expected("protocol_violation", silent=True),
    "dates": _expected(),
    "empty_answers": _expected("protocol_violation", silent=True),
    "qresync_refused": _expected("connection_lost", "refused", watched=True),
    "idle_refused": _expected("refused", "protocol_violation", watched=True),
    "wrong_tags": _expected("protocol_violation"),
    "emptied": _expected("connection_lost", watched=True),
}
