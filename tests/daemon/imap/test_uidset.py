"""Sets of UIDs: what we write is read back the same, what is no set is refused, nothing is expanded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.imap.uidset import MAX_SET, MAX_UID, UidSet, format_uids, parse_ranges, uid_batches

uid_sets = st.frozensets(st.integers(1, 300) | st.integers(1, MAX_UID))


def expand(text: bytes) -> list[int]:
    return [uid for span in parse_ranges(text) for uid in span]


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        (b"7", [range(7, 8)]),
        (b"1:3,7", [range(1, 4), range(7, 8)]),
        (b"9:5", [range(5, 10)]),
        (b"1:4294967295", [range(1, 1 << 32)]),
    ],
)
def test_a_set_is_read_as_ranges(text: bytes, ranges: list[range]) -> None:
    assert parse_ranges(text) == ranges


@pytest.mark.parametrize(
    "text", [b"", b"0", b"-1", b"1:", b":1", b"1,,2", b"*", b"4294967296", b"1:2:3", b"9" * 5000, b" 1", "١".encode()]
)
def test_what_is_no_set_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="UID"):
        parse_ranges(text)


@given(uid_sets.filter(bool))
def test_a_set_that_was_written_reads_the_same(uids: frozenset[int]) -> None:
    assert expand(format_uids(sorted(uids))) == sorted(uids)


def test_runs_become_ranges() -> None:
    assert format_uids([1, 2, 3, 7, 9, 10]) == b"1:3,7,9:10"
    assert format_uids([]) == b""


@pytest.mark.parametrize("uids", [[0], [2, 1], [1, 1], [MAX_UID + 1]])
def test_only_ascending_uids_are_written(uids: list[int]) -> None:
    with pytest.raises(ValueError, match="ascending"):
        format_uids(uids)


@given(uid_sets, st.integers(1, 40))
def test_batches_hold_all_uids_once_and_no_more_than_asked(uids: frozenset[int], most: int) -> None:
    batches = [expand(batch) for batch in uid_batches(sorted(uids), most)]
    assert [uid for batch in batches for uid in batch] == sorted(uids)
    assert all(1 <= len(batch) <= most for batch in batches)


def test_a_batch_fits_a_command_line() -> None:
    scattered = range(4_000_000_000, 4_000_020_000, 2)
    batches = list(uid_batches(scattered, 10_000))
    assert max(map(len, batches)) <= MAX_SET
    assert [uid for batch in batches for uid in expand(batch)] == list(scattered)


@given(uid_sets.filter(bool), st.integers(1, 310))
def test_membership_is_that_of_the_set(uids: frozenset[int], uid: int) -> None:
    asked = UidSet(format_uids(sorted(uids)))
    assert (uid in asked) == (uid in uids)
    assert len(asked) == len(uids)


def test_a_star_is_open_ended() -> None:
    asked = UidSet(b"600:*,5")
    assert asked.open_ended
    assert MAX_UID in asked
    assert 5 in asked
    assert 599 not in asked


def test_overlapping_ranges_are_one() -> None:
    asked = UidSet(b"1:10,5:20,15")
    assert len(asked) == 20
    assert 20 in asked
    assert 21 not in asked


@pytest.mark.parametrize("text", [b"0", b"1,0", b"4294967296", b"1,4294967296", b"1,,2", b",1", b"1,", b"12345678901"])
def test_scattered_uids_are_checked_like_ranges(text: bytes):
    with pytest.raises(ValueError, match="not a UID"):
        parse_ranges(text)
    with pytest.raises(ValueError, match="not a UID"):
        parse_ranges(text + b",1:2")  # read piece by piece
    assert parse_ranges(b"7,3,4294967295") == [range(7, 8), range(3, 4), range(4294967295, 4294967296)]
