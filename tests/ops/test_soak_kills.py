"""The campaign of kills: its plan is replayable, what must hold meanwhile is seen, and a short one ends in equality."""

from collections import Counter
from dataclasses import replace

import pytest

from ops.soak.kill_points import DAEMON, Moment, Victim, points
from ops.soak.peek import Folder, Snapshot, compare

USER = "large@example.test"


def test_a_hundred_points_are_a_hundred_daemons_and_a_fifth_as_many_databases():
    planned = points(7, 100)
    assert planned == points(7, 100) != points(8, 100)
    victims = Counter(point.victim for point in planned)
    assert sum(victims[victim] for victim in DAEMON) == 100
    assert victims[Victim.DATABASE] == 20
    assert set(victims) == set(Victim)
    assert {point.moment for point in planned[:8]} == {Moment.START}, "the first ones meet an empty directory"
    assert 50 < sum(point.moment is Moment.WORK for point in planned) < 100


FOLDER = Folder(uidvalidity=3, uidnext=101, backfill_below=51, total=100, done=50, modseq=9, placements=52, beyond=2)


def test_progress_is_no_loss():
    later = replace(FOLDER, uidnext=103, backfill_below=31, done=72, placements=73, beyond=1)
    before, after = Snapshot({USER: FOLDER}, 1, ()), Snapshot({USER: later}, 3, ())
    assert compare(None, before, {USER}) == []
    assert compare(before, after, {USER}) == []
    assert compare(before, before, {USER}) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"uidnext": 100, "placements": 51}, "uidnext went from 101 to 100"),
        ({"backfill_below": 61, "placements": 42}, "backfill_below went from 51 to 61"),
        ({"done": 49}, "done went from 50 to 49"),
        ({"uidvalidity": 4}, "uidvalidity went from 3 to 4"),
        ({"placements": 51}, "the cursor covers 50 messages, 51 are stored"),
        ({"placements": 51}, "1 stored messages are lost"),
    ],
)
def test_what_was_committed_and_is_gone_is_told(change: dict[str, int], told: str):
    before, after = Snapshot({USER: FOLDER}, 1, ()), Snapshot({USER: replace(FOLDER, **change)}, 1, ())
    assert any(told in sentence for sentence in compare(before, after, {USER}))


def test_lost_folders_and_events_are_told():
    before = Snapshot({USER: FOLDER}, 2, ())
    assert compare(before, Snapshot({}, 1, ("something is twice",)), {USER}) == [
        "something is twice", "1 events are lost", f"{USER}: the folder is lost",
    ]  # fmt: skip
