"""The table of an account's life, and the status the API derives from what is stored."""

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from daemon.account.states import TRANSITIONS, Event, IllegalTransition, State, next_state
from daemon.account.status import PATIENCE, Facts, sync_status


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)))
def test_every_pair_is_in_the_table_or_illegal(state: State, event: Event) -> None:
    if (state, event) in TRANSITIONS:
        assert next_state(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(IllegalTransition, match=f"{event.value} in state {state.value}"):
            next_state(state, event)


def reachable(start: State) -> set[State]:
    found = {start}
    while further := {after for (before, _), after in TRANSITIONS.items() if before in found} - found:
        found |= further
    return found


def test_every_state_is_reached_and_left() -> None:
    assert reachable(State.NEW) == set(State)
    for state in State:
        assert {State.PARKED, State.STOPPED, State.WATCHING} <= reachable(state), state


def test_only_one_way_leads_to_watching_and_each_end() -> None:
    def ways(to: State) -> set[Event]:
        return {event for (_, event), after in TRANSITIONS.items() if after is to}

    assert ways(State.WATCHING) == {Event.CAUGHT_UP}
    assert ways(State.PARKED) == {Event.GIVEN_UP}
    assert ways(State.STOPPED) == {Event.HALT}
    assert ways(State.RETRYING) == {Event.FAULT, Event.BUG}
    assert {after for (before, _), after in TRANSITIONS.items() if before is State.STOPPED} == {
        State.STOPPED,
        State.CONNECTING,
    }


def test_a_life_as_it_usually_goes() -> None:
    state = State.NEW
    told = [Event.ATTEMPT, Event.LOGGED_IN, Event.CAUGHT_UP, Event.CAUGHT_UP, Event.FAULT, Event.ATTEMPT]
    told.append(Event.GIVEN_UP)
    seen = [state := next_state(state, event) for event in told]
    assert [each.value for each in seen] == [
        *("connecting", "syncing", "watching", "watching", "retrying", "connecting", "parked"),
    ]


NOW = datetime(2026, 1, 15, 10, 0, 0, tzinfo=UTC)
TICK = timedelta(microseconds=1)


def facts(state: State, **changes: object) -> Facts:
    known: dict[str, object] = {
        "desired": "running", "state": state, "first_synced": True, "trouble_since": None, "proof_until": None,
    }  # fmt: skip
    return Facts(**(known | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (facts(State.NEW, first_synced=False), "pending"),
        (facts(State.CONNECTING, first_synced=False), "pending"),
        (facts(State.CONNECTING), "syncing"),
        (facts(State.SYNCING, first_synced=False), "syncing"),
        (facts(State.WATCHING, proof_until=NOW), "synced"),
        (facts(State.WATCHING, proof_until=NOW - TICK), "syncing"),
        (facts(State.WATCHING, proof_until=NOW - PATIENCE), "syncing"),
        (facts(State.WATCHING, proof_until=NOW - PATIENCE - TICK), "error"),
        (facts(State.WATCHING), "error"),
        (facts(State.RETRYING, trouble_since=NOW), "syncing"),
        (facts(State.RETRYING, trouble_since=NOW - PATIENCE), "syncing"),
        (facts(State.RETRYING, trouble_since=NOW - PATIENCE - TICK), "error"),
        (facts(State.CONNECTING, trouble_since=NOW - PATIENCE - TICK), "error"),
        (facts(State.RETRYING, first_synced=False, trouble_since=NOW), "pending"),
        (facts(State.RETRYING, first_synced=False, trouble_since=NOW - PATIENCE - TICK), "error"),
        (facts(State.PARKED, trouble_since=NOW), "error"),
        (facts(State.PARKED, first_synced=False), "error"),
        (facts(State.PARKED, desired="paused"), "pending"),
        (facts(State.STOPPED, desired="paused"), "pending"),
        (facts(State.WATCHING, desired="paused", proof_until=NOW), "pending"),
        (facts(State.STOPPED, desired="removed"), "pending"),
    ],
)
def test_status(given: Facts, status: str) -> None:
    assert sync_status(given, NOW) == status


def test_five_minutes_as_designed() -> None:
    assert timedelta(minutes=5) == PATIENCE


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("desired", ["running", "paused", "removed"])
def test_whatever_is_stored_has_a_status(state: State, desired: str) -> None:
    for first, trouble, proof in product([True, False], [None, NOW], [None, NOW]):
        given = facts(state, desired=desired, first_synced=first, trouble_since=trouble, proof_until=proof)
        assert sync_status(given, NOW) in {"pending", "syncing", "synced", "error"}
