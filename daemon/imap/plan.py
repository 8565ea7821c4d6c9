"""What has to be done to bring a folder up to date: pure, from the cursor and what the server said on selecting it.

The cursor's invariant: the store holds every message with backfill_below <= UID < uidnext, as it was at highestmodseq
or later.  So a plan is read off the differences between cursor and SELECT answer, and following it moves the cursor:

    no cursor ──► StartFirst ──► Backfill ... ──► complete
    UIDVALIDITY differs, or the mailbox is another ──► Resync ──► Backfill ... (messages recognised under new UIDs)
    otherwise, in this order: what vanished, what changed its flags, what is new, what is still to be fetched below

The ladder says how vanished and changed messages are learnt: QRESYNC (RFC 7162) tells both with SELECT; CONDSTORE tells
changed flags by mod-sequence, and a count that does not fit asks for a comparison of UIDs; without either, UIDs and
flags are compared.  A server that contradicts itself is taken a rung down.

Of a cursor that was made of the account's former mailbox nothing is believed, though the number of UIDVALIDITY be the
same: many servers call it 1, or take the second in which a folder was made.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum

from .selected import SelectedFolder


class Method(StrEnum):
    """The rungs of the ladder, best first."""

    QRESYNC = "qresync"
    CONDSTORE = "condstore"
    UID_DIFF = "uid_diff"


_RUNGS = (Method.QRESYNC, Method.CONDSTORE, Method.UID_DIFF)


@dataclass(frozen=True, slots=True)
class Cursor:
    """Up to where the store holds what the server said."""

    uidvalidity: int
    uidnext: int
    highestmodseq: int | None
    backfill_below: int

    @property
    def complete(self) -> bool:
        """Whether nothing below is left to fetch."""
        return self.backfill_below <= 1


class Step(StrEnum):
    """What is to be done, each step once, in the order given."""

    START_FIRST = "start_first"
    """Nothing is known of this folder: make its cursor, then fetch downwards."""

    RESYNC = "resync"
    """Every UID is void: recognise what we hold under the new ones."""

    APPLY_SELECTED = "apply_selected"
    """SELECT told what vanished and changed (QRESYNC): store it."""

    FETCH_CHANGED = "fetch_changed"
    """Ask for the flags that changed since the cursor's mod-sequence."""

    COMPARE_FLAGS = "compare_flags"
    """Ask for the flags of every message, and so for every UID."""

    COMPARE_UIDS = "compare_uids"
    """Ask for the UIDs there are: what the store holds beyond them is gone."""

    FETCH_NEW = "fetch_new"
    """Fetch from the cursor's UIDNEXT upwards."""

    BACKFILL = "backfill"
    """Go on fetching downwards from where the first sync stopped."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in order, and why where the server gave a reason to distrust it."""

    steps: tuple[Step, ...]
    method: Method
    distrust: str | None = None
    """A contradiction: take this folder a rung down, and say so."""


def best_method(enabled: AbstractSet[bytes], capabilities: AbstractSet[bytes], demoted: Method | None) -> Method:
    """The best rung that the server offers and that this folder has not been taken down from."""
    if b"QRESYNC" in enabled:
        offered = Method.QRESYNC
    elif capabilities & {b"CONDSTORE", b"QRESYNC"}:  # RFC 7162 section 3.2.3: QRESYNC implies CONDSTORE
        offered = Method.CONDSTORE
    else:
        offered = Method.UID_DIFF
    return max(offered, demoted or offered, key=_RUNGS.index)


def rung_below(method: Method) -> Method:
    """The next rung down; the lowest stays where it is."""
    return _RUNGS[min(_RUNGS.index(method) + 1, len(_RUNGS) - 1)]


def plan_sync(
    cursor: Cursor | None,
    selected: SelectedFolder,
    method: Method,
    stored: int,
    *,
    asked_qresync: bool,
    moved: bool = False,
) -> Plan:
    """Decide what brings the store up to what the server just said.

    Args:
        cursor: what the store holds, None for a folder never synced.
        selected: the answer to SELECT.
        method: the rung to use; a folder without mod-sequences takes the lowest.
        stored: live messages the store holds for this folder, skipped ones included.
        asked_qresync: whether the SELECT carried the cursor, so that its answer tells the differences.
        moved: whether the cursor is of the account's former mailbox.
    """
    if selected.highestmodseq is None:
        method = Method.UID_DIFF
    if cursor is None:
        return Plan((Step.START_FIRST, Step.BACKFILL), method)
    if moved or cursor.uidvalidity != selected.uidvalidity:
        return Plan((Step.RESYNC, Step.BACKFILL), method)
    tail: list[Step] = [Step.FETCH_NEW] if _may_have_new(cursor, selected, stored) else []
    if not cursor.complete:
        tail.append(Step.BACKFILL)
    distrust = _contradiction(cursor, selected)
    if distrust is not None:
        return Plan((Step.COMPARE_FLAGS, *tail), Method.UID_DIFF, distrust)
    return Plan((*_changes(cursor, selected, method, stored, asked_qresync=asked_qresync), *tail), method)


def _changes(
    cursor: Cursor, selected: SelectedFolder, method: Method, stored: int, *, asked_qresync: bool
) -> tuple[Step, ...]:
    """How to learn what changed and what vanished among the messages the store holds."""
    if method is Method.UID_DIFF or cursor.highestmodseq is None:
        return (Step.COMPARE_FLAGS,)
    if method is Method.QRESYNC and asked_qresync and not selected.overflowed:
        return (Step.APPLY_SELECTED,)
    changed = () if selected.highestmodseq == cursor.highestmodseq else (Step.FETCH_CHANGED,)
    new = max(0, (selected.uidnext or 0) - cursor.uidnext)
    # Nothing vanished if nothing is missing: not even all the UIDs handed out since could hide a gap.
    fits = cursor.complete and selected.uidnext is not None and stored + new == selected.exists
    return changed if fits else (*changed, Step.COMPARE_UIDS)


def _may_have_new(cursor: Cursor, selected: SelectedFolder, stored: int) -> bool:
    if selected.uidnext is not None:
        return selected.uidnext > cursor.uidnext
    return not cursor.complete or selected.exists != stored


def _contradiction(cursor: Cursor, selected: SelectedFolder) -> str | None:
    """What no honest server says while UIDVALIDITY stays the same (RFC 9051 section 2.3.1.1, RFC 7162 section 3.1)."""
    if selected.uidnext is not None and selected.uidnext < cursor.uidnext:
        return "UIDNEXT went back"
    if None not in (selected.highestmodseq, cursor.highestmodseq) and (
        (selected.highestmodseq or 0) < (cursor.highestmodseq or 0)
    ):
        return "HIGHESTMODSEQ went back"
    return None


BRAKE_SHARE = 0.5
"""Share of a folder's messages that may vanish at once before it is checked on a fresh connection."""

BRAKE_LEAST = 50
"""Messages below which a disappearance is never mass: people do empty small folders."""


def needs_brake(vanishing: int, stored: int) -> bool:
    """Whether a disappearance is so large that it is re-verified on a fresh connection before it is believed."""
    return vanishing >= BRAKE_LEAST and vanishing >= BRAKE_SHARE * stored
