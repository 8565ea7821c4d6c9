"""The life of an account, as one table: what state it is in, and what moves it.

Two rules.  Everything that changes an account's state is in this file; and this file does not know who runs the
account, nor what the owner asked (that is `desired`, reconciled by the fleet).  The README's picture is drawn from this
table.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class State(StrEnum):
    """What runs; stored as `accounts.state`."""

    NEW = "new"
    """Saved; no node has started it yet."""

    CONNECTING = "connecting"
    """Waiting for its turn, then dialling and logging in."""

    SYNCING = "syncing"
    """Logged in, bringing the store up to date."""

    WATCHING = "watching"
    """Up to date; changes come by IDLE or are looked for."""

    RETRYING = "retrying"
    """A fault of the world; the next attempt is due at `retry_at`."""

    PARKED = "parked"
    """Down until new credentials or a person."""

    STOPPED = "stopped"
    """Paused or disconnected by its owner."""


class Event(StrEnum):
    """What moves it."""

    ATTEMPT = "attempt"
    """The sync child begins to connect."""

    LOGGED_IN = "logged_in"
    """The server accepted the credentials."""

    CAUGHT_UP = "caught_up"
    """The folder equals the server's."""

    FAULT = "fault"
    """The world's fault: another attempt follows, paced."""

    BUG = "bug"
    """Ours: another attempt follows and spends restart intensity."""

    GIVEN_UP = "given_up"
    """No use in trying: refused credentials, a wrong certificate, or restart intensity spent."""

    HALT = "halt"
    """The owner paused or disconnected it."""


TRANSITIONS: Final[Mapping[tuple[State, Event], State]] = MappingProxyType(
    {
        (State.NEW, Event.ATTEMPT): State.CONNECTING,
        (State.CONNECTING, Event.ATTEMPT): State.CONNECTING,
        (State.CONNECTING, Event.LOGGED_IN): State.SYNCING,
        (State.SYNCING, Event.CAUGHT_UP): State.WATCHING,
        (State.WATCHING, Event.CAUGHT_UP): State.WATCHING,
        (State.RETRYING, Event.ATTEMPT): State.CONNECTING,
        (State.PARKED, Event.ATTEMPT): State.CONNECTING,
        (State.STOPPED, Event.ATTEMPT): State.CONNECTING,
        # Progress that was not told, while the database was away.
        **{(s, Event.LOGGED_IN): State.SYNCING for s in State if s not in (State.STOPPED, State.CONNECTING)},
        **dict.fromkeys([(s, Event.CAUGHT_UP) for s in (State.NEW, State.CONNECTING, State.RETRYING)], State.WATCHING),
        # A node that takes an account over finds it in whatever state the last one left it.
        (State.SYNCING, Event.ATTEMPT): State.CONNECTING,
        (State.WATCHING, Event.ATTEMPT): State.CONNECTING,
        **{(state, Event.FAULT): State.RETRYING for state in State if state is not State.STOPPED},
        **{(state, Event.BUG): State.RETRYING for state in State if state is not State.STOPPED},
        **{(state, Event.GIVEN_UP): State.PARKED for state in State if state is not State.STOPPED},
        **{(state, Event.HALT): State.STOPPED for state in State},
    }
)


class IllegalTransition(Exception):
    """Our bug: something happened to an account that cannot happen in its state."""


def next_state(state: State, event: Event) -> State:
    """The state after an event.

    Raises:
        IllegalTransition: there is no such transition.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"{event.value} in state {state.value}") from None
