"""What has to be done to bring a folder up to date: a table of cases, and rules that hold for all of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.imap.plan import BRAKE_LEAST, Cursor, Method, Plan, Step, best_method, needs_brake, plan_sync, rung_below
from daemon.imap.selected import SelectedFolder

VALIDITY = 7
DONE = Cursor(VALIDITY, 101, 500, 1)
HALF = Cursor(VALIDITY, 101, 500, 51)

Q, C, U = Method.QRESYNC, Method.CONDSTORE, Method.UID_DIFF


def answer(
    exists: int = 100,
    uidnext: int | None = 101,
    modseq: int | None = 500,
    validity: int = VALIDITY,
    *,
    overflowed: bool = False,
) -> SelectedFolder:
    return SelectedFolder("INBOX", exists, validity, uidnext, modseq, False, None, (), overflowed=overflowed)


@pytest.mark.parametrize(
    ("cursor", "selected", "method", "stored", "steps"),
    [
        # never seen, or every UID void
        (None, answer(), Q, 0, [Step.START_FIRST, Step.BACKFILL]),
        (DONE, answer(validity=8), Q, 100, [Step.RESYNC, Step.BACKFILL]),
        (HALF, answer(validity=8, modseq=None), Q, 50, [Step.RESYNC, Step.BACKFILL]),
        # QRESYNC: SELECT told
        (DONE, answer(), Q, 100, [Step.APPLY_SELECTED]),
        (DONE, answer(103, 104, 510), Q, 100, [Step.APPLY_SELECTED, Step.FETCH_NEW]),
        (HALF, answer(), Q, 50, [Step.APPLY_SELECTED, Step.BACKFILL]),
        (DONE, answer(103, 104, 510, overflowed=True), Q, 100, [Step.FETCH_CHANGED, Step.FETCH_NEW]),
        # CONDSTORE: only what differs is asked for
        (DONE, answer(), C, 100, []),
        (DONE, answer(modseq=510), C, 100, [Step.FETCH_CHANGED]),
        (DONE, answer(99, 101, 510), C, 100, [Step.FETCH_CHANGED, Step.COMPARE_UIDS]),
        (DONE, answer(103, 104, 510), C, 100, [Step.FETCH_CHANGED, Step.FETCH_NEW]),
        (DONE, answer(102, 104, 510), C, 100, [Step.FETCH_CHANGED, Step.COMPARE_UIDS, Step.FETCH_NEW]),
        (HALF, answer(), C, 50, [Step.COMPARE_UIDS, Step.BACKFILL]),
        # neither
        (DONE, answer(modseq=None), U, 100, [Step.COMPARE_FLAGS]),
        (DONE, answer(103, 104, None), U, 100, [Step.COMPARE_FLAGS, Step.FETCH_NEW]),
        (DONE, answer(modseq=None), Q, 100, [Step.COMPARE_FLAGS]),
        (Cursor(VALIDITY, 101, None, 1), answer(), C, 100, [Step.COMPARE_FLAGS]),
        # a server that does not say UIDNEXT
        (DONE, answer(uidnext=None), Q, 100, [Step.APPLY_SELECTED]),
        (DONE, answer(101, None), Q, 100, [Step.APPLY_SELECTED, Step.FETCH_NEW]),
        (DONE, answer(uidnext=None), C, 100, [Step.COMPARE_UIDS]),
    ],
)
def test_steps(
    cursor: Cursor | None, selected: SelectedFolder, method: Method, stored: int, steps: list[Step]
) -> None:
    plan = plan_sync(cursor, selected, method, stored, asked_qresync=method is Q)
    assert list(plan.steps) == steps
    assert plan.distrust is None
    assert plan.method is (U if selected.highestmodseq is None else method)


@pytest.mark.parametrize("method", [Q, C, U])
@pytest.mark.parametrize("cursor", [DONE, HALF], ids=["complete", "half way"])
@pytest.mark.parametrize(
    "selected",
    [answer(), answer(validity=8), answer(uidnext=5), answer(modseq=3), answer(0, 1, None), answer(200, 201, 900)],
)
def test_of_a_former_mailbox_nothing_is_believed(cursor: Cursor, selected: SelectedFolder, method: Method) -> None:
    plan = plan_sync(cursor, selected, method, 100, asked_qresync=False, moved=True)
    assert plan.steps == (Step.RESYNC, Step.BACKFILL)
    assert plan.distrust is None, "another server's numbers are no contradiction"
    assert plan_sync(None, selected, method, 0, asked_qresync=False, moved=True).steps[0] is Step.START_FIRST


@pytest.mark.parametrize("method", [Q, C, U])
@pytest.mark.parametrize(
    ("selected", "reason"),
    [(answer(uidnext=100), "UIDNEXT went back"), (answer(modseq=499), "HIGHESTMODSEQ went back")],
)
def test_a_contradiction_is_compared_and_distrusted(selected: SelectedFolder, reason: str, method: Method) -> None:
    plan = plan_sync(DONE, selected, method, 100, asked_qresync=True)
    assert plan.distrust == reason
    assert plan.method is U
    assert plan.steps[0] is Step.COMPARE_FLAGS


def test_the_ladder() -> None:
    both = {b"QRESYNC", b"CONDSTORE"}
    assert best_method({b"QRESYNC"}, both, None) is Q
    assert best_method(set(), both, None) is C
    assert best_method(set(), {b"CONDSTORE"}, None) is C
    assert best_method(set(), {b"IDLE"}, None) is U
    assert best_method({b"QRESYNC"}, both, C) is C
    assert best_method({b"QRESYNC"}, both, U) is U
    assert best_method(set(), {b"IDLE"}, C) is U, "a demotion never promotes"
    assert [rung_below(each) for each in (Q, C, U)] == [C, U, U]


@pytest.mark.parametrize(
    ("vanishing", "stored", "brakes"),
    [
        (BRAKE_LEAST, 2 * BRAKE_LEAST, True),
        (BRAKE_LEAST - 1, BRAKE_LEAST - 1, False),
        (BRAKE_LEAST, 2 * BRAKE_LEAST + 1, False),
        (1000, 1000, True),
        (0, 0, False),
    ],
)
def test_the_brake(vanishing: int, stored: int, brakes: bool) -> None:
    assert needs_brake(vanishing, stored) is brakes


UIDS = st.integers(1, 5000)
MODSEQS = st.none() | st.integers(1, 5000)


@st.composite
def cursors(draw: st.DrawFn) -> Cursor:
    uidnext = draw(UIDS)
    return Cursor(draw(st.integers(1, 3)), uidnext, draw(MODSEQS), draw(st.integers(1, uidnext)))


SELECTED = st.builds(
    answer, st.integers(0, 5000), st.none() | UIDS, MODSEQS, st.integers(1, 3), overflowed=st.booleans()
)


def follow(cursor: Cursor | None, selected: SelectedFolder, plan: Plan) -> Cursor:
    """The cursor after the plan's steps, as `folder_sync` moves it when nothing goes wrong."""
    for step in plan.steps:
        if step in (Step.START_FIRST, Step.RESYNC):
            begin = selected.uidnext or selected.exists + 1
            cursor = Cursor(selected.uidvalidity, begin, selected.highestmodseq, begin)
        assert cursor is not None
        if step is Step.FETCH_NEW:
            uidnext = max(cursor.uidnext, selected.uidnext or 1)
            cursor = Cursor(cursor.uidvalidity, uidnext, cursor.highestmodseq, cursor.backfill_below)
        elif step is Step.BACKFILL:
            cursor = Cursor(cursor.uidvalidity, cursor.uidnext, cursor.highestmodseq, 1)
    assert cursor is not None
    return Cursor(cursor.uidvalidity, cursor.uidnext, selected.highestmodseq, cursor.backfill_below)


@given(st.none() | cursors(), SELECTED, st.sampled_from(Method), st.integers(0, 5000), st.booleans())
def test_rules_that_hold_for_every_plan(
    cursor: Cursor | None, selected: SelectedFolder, method: Method, stored: int, asked: bool
) -> None:
    plan = plan_sync(cursor, selected, method, stored, asked_qresync=asked)
    after = follow(cursor, selected, plan)
    assert after.complete, "a plan followed to its end leaves nothing to fetch"
    assert after.uidvalidity == selected.uidvalidity
    assert len(set(plan.steps)) == len(plan.steps)
    same = cursor is not None and cursor.uidvalidity == selected.uidvalidity
    if same:
        assert cursor is not None
        assert after.uidnext >= max(cursor.uidnext, selected.uidnext or 1), "UIDNEXT never goes back"
        assert (Step.BACKFILL in plan.steps) == (not cursor.complete)
        if selected.uidnext is not None:
            assert (Step.FETCH_NEW in plan.steps) == (selected.uidnext > cursor.uidnext)
    else:
        assert plan.steps[0] in (Step.START_FIRST, Step.RESYNC)
        assert plan.distrust is None
    if plan.distrust is not None or selected.highestmodseq is None:
        assert plan.method is Method.UID_DIFF
    if plan.distrust is not None:
        assert plan.steps[0] is Step.COMPARE_FLAGS
    if Step.APPLY_SELECTED in plan.steps:
        assert asked
        assert not selected.overflowed
    again = plan_sync(after, selected, plan.method, selected.exists, asked_qresync=False)
    if plan.distrust is None:
        assert set(again.steps) <= {Step.COMPARE_FLAGS, Step.COMPARE_UIDS}, "done: only looking is left"
