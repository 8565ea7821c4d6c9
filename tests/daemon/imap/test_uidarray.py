"""Great numbers of UIDs: the same answers as sets give, in slices, and with little memory."""

from __future__ import annotations

import tracemalloc
from array import array
from itertools import pairwise

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from daemon.errors import Fault, FaultKind
from daemon.imap import uidarray
from daemon.imap.search import STRAYS, Found
from daemon.imap.uidarray import SLICE, Gathering, between, difference, ranges_of, runs, without

UIDS = st.sets(st.one_of(st.integers(1, 60), st.integers(1, (1 << 32) - 1)), max_size=60)
SMALL = st.sampled_from([1, 2, 3, 7])


def of(uids: set[int]) -> array[int]:
    return array("I", sorted(uids))


@given(UIDS, UIDS, SMALL)
def test_differences_are_those_of_sets(ours: set[int], theirs: set[int], size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uidarray, "SLICE", size)
        pieces = list(difference(of(ours), of(theirs)))
    assert [uid for piece in pieces for uid in piece] == sorted(ours - theirs)
    assert all(len(piece) <= size for piece in pieces)


@given(UIDS, st.integers(0, 70), st.integers(0, 70))
def test_between_is_a_filter(uids: set[int], low: int, high: int) -> None:
    assert list(between(of(uids), low, high)) == [uid for uid in sorted(uids) if low <= uid < high]


@given(UIDS)
def test_runs_are_all_and_the_fewest(uids: set[int]) -> None:
    found = list(runs(of(uids)))
    assert [uid for span in found for uid in span] == sorted(uids)
    assert all(earlier[-1] + 1 < later[0] for earlier, later in pairwise(found))


@given(st.lists(st.tuples(st.integers(1, 80), st.integers(0, 12)), max_size=20), SMALL)
def test_what_is_told_in_any_order_comes_out_once_and_ascending(told: list[tuple[int, int]], size: int) -> None:
    gathering = Gathering()
    for low, more in told:
        gathering.put(low, low + more)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uidarray, "SLICE", size)
        patch.setattr(uidarray, "SORTED", size)
        pieces = list(gathering.expanded())
    expected = {uid for low, more in told for uid in range(low, low + more + 1)}
    assert [uid for piece in pieces for uid in piece] == sorted(expected)
    assert all(len(piece) <= size for piece in pieces)


async def turns_during(work: object) -> int:
    turns, ended = 0, False

    async def other() -> None:
        nonlocal turns
        while not ended:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await work  # type: ignore[misc]  # a coroutine
        ended = True
    return turns


async def test_two_million_are_compared_in_little_memory_and_others_have_their_turns() -> None:
    count = 2_000_000
    ours, theirs = array("I", range(1, count + 1)), array("I", range(3, count + 3))
    del theirs[1000:1010]
    assert await turns_during(without(ours, theirs)) >= count // SLICE - 1
    tracemalloc.start()
    try:
        gone = await without(ours, theirs)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert list(gone) == [1, 2, *range(1003, 1013)]
    assert peak < 8 << 20, "two sets are 200 MB"
    assert await ranges_of(gone) == [range(1, 3), range(1003, 1013)]


async def test_a_short_line_of_a_million_uids_is_expanded_in_turns() -> None:
    found = Found(exists=1_000_000)
    found._put(1, 1_000_000)
    assert await turns_during(found.ascending()) >= 1_000_000 // SLICE - 1
    assert len(await found.ascending()) == 1_000_000


async def test_what_comes_in_no_order_is_sorted_in_turns() -> None:
    count = 100_000
    uids = [(number * 30_011) % count * 2 + 1 for number in range(count)]
    found = Found(exists=count)
    for uid in uids:
        found.put(uid)
    assert await turns_during(found.ascending()) >= count // uidarray.SORTED + count // SLICE - 2
    assert list(await found.ascending()) == sorted(uids)


async def test_what_is_told_again_and_again_is_one_and_takes_turns() -> None:
    count = 50 * SLICE
    found = Found(exists=count)
    for _ in range(count // 2):
        found.put(7)
        found.put(5)
    assert await turns_during(found.ascending()) >= count // SLICE - 1
    assert list(await found.ascending()) == [5, 7]


@pytest.mark.parametrize("step", [1, 2, 40, 1000])
async def test_few_among_many_are_compared_in_slices(step: int) -> None:
    theirs = array("I", range(1, 1_000_001))
    ours = array("I", range(1, 1_000_001, step))
    del theirs[500_000]  # 500,001
    pieces = list(difference(ours, theirs))
    assert len(pieces) == -(-len(ours) // SLICE)
    assert [uid for piece in pieces for uid in piece] == [500_001]


def test_a_listing_is_bounded_by_what_the_folder_holds() -> None:
    found = Found(exists=10)
    found._put(1, STRAYS)
    for uid in range(10):
        found.put(uid + 1)
    with pytest.raises(Fault) as caught:
        found.put(1)
    assert caught.value.kind is FaultKind.PROTOCOL


def test_a_listing_may_have_the_mail_that_came_meanwhile() -> None:
    holds = 10
    found = Found(holds, lambda: holds)
    found._put(1, STRAYS + 10)
    holds = 60
    found._put(10_001, 10_050)
    holds = 0  # all of it went: what was there when the listing began is told nevertheless
    with pytest.raises(Fault, match=f"more than {60 + STRAYS} messages"):
        found.put(1)
