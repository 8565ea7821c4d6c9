"""Looks at all objects are rare while accounts start, and young garbage is found all the same."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from daemon.telemetry.lean import set_aside


@pytest.fixture
def full() -> Iterator[list[int]]:
    """The full collections that begin; Python's own habits come back afterwards."""
    thresholds, begun = gc.get_threshold(), list[int]()

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and info["generation"] == 2:
            begun.append(info["generation"])

    gc.collect()
    gc.callbacks.append(note)
    yield begun
    gc.callbacks.remove(note)
    gc.set_threshold(*thresholds)
    gc.unfreeze()


class Knot:
    """Holds itself."""

    def __init__(self) -> None:
        self.itself = self


def test_a_thousand_accounts_start_without_a_look_at_all_there_is(full: list[int]) -> None:
    set_aside()
    kept = [[number] for number in range(300_000)]
    assert len(kept) == 300_000
    assert not full


def test_young_garbage_is_found(full: list[int]) -> None:
    set_aside()
    gone = weakref.ref(Knot())
    kept = [[number] for number in range(20_000)]
    assert kept
    assert gone() is None
