"""Nobody looks at all objects while accounts start, and garbage is found all the same: young, and much of it."""

import gc
import weakref
from collections.abc import Iterator

import pytest
import trio

from daemon.account.tree import AccountTree
from daemon.imap.session import Session
from daemon.network.stream import TLSSocket
from daemon.storage.database import Database
from daemon.telemetry import lean
from ops.testservers.dovecot import Dovecot
from ops.testservers.tls import Authority
from tests.daemon.account.running import add_account, in_state, make_runtime, running
from tests.fix_dovecot import MailUser
from tests.fix_proxy import OpenProxy


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


def grow(objects: int) -> list[list[int]]:
    """So many objects that stay, and the looks of the loop's watch meanwhile."""
    kept: list[list[int]] = []
    while len(kept) < objects:
        kept += [[number] for number in range(10_000)]
        lean.tidy()
    return kept


def test_ten_thousand_accounts_start_with_few_looks_at_all_there_is(full: list[int]) -> None:
    """What is out of sight is looked at when it has doubled; else looks are at what has come since the last."""
    lean.set_aside()
    aside = gc.get_freeze_count()
    kept = grow(1_500_000)
    assert gc.get_freeze_count() - aside > len(kept) // 2, "what is old is out of sight"
    assert len(full) < 2 * len(kept) / (lean.OLD_AFTER * 7_000), "a quarter more each time would be twice as many"
    assert len(gc.get_objects(generation=2)) < lean.MUCH + lean.OLD_AFTER * 10_000


def test_garbage_that_grew_old_is_found_before_it_is_set_aside(
    full: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests leave cycles, and those under way at a young collection are old when they do."""
    monkeypatch.setattr(lean, "MUCH", 0)
    lean.set_aside()
    knot = Knot()
    gone = weakref.ref(knot)
    gc.collect(1)
    del knot
    gc.collect(1)
    assert gone() is not None, "it is old"
    monkeypatch.setattr(lean, "OLD_AFTER", 0)
    lean.tidy()
    assert gone() is None


def test_what_is_little_is_not_set_aside(full: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be requests that are under way, whose cycles nobody would find."""
    lean.set_aside()
    aside = gc.get_freeze_count()
    monkeypatch.setattr(lean, "OLD_AFTER", 0)
    kept = [[number] for number in range(10_000)]
    lean.tidy()
    assert kept
    assert gc.get_freeze_count() == aside


def test_young_garbage_is_found(full: list[int]) -> None:
    lean.set_aside()
    gone = weakref.ref(Knot())
    kept = [[number] for number in range(20_000)]
    assert kept
    assert gone() is None


def test_old_garbage_is_found_when_there_is_much(full: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean, "ROOM", 1000)
    monkeypatch.setattr(lean, "MUCH", 0)
    lean.set_aside()
    knot = Knot()
    gone = weakref.ref(knot)
    monkeypatch.setattr(lean, "OLD_AFTER", 0)
    lean.tidy()
    del knot
    assert gone() is not None, "it was set aside"
    monkeypatch.setattr(lean, "OLD_AFTER", 5)
    assert grow(gc.get_freeze_count() + 100_000)
    assert gone() is None
    assert full


@pytest.mark.parametrize("end", ["asked to", "cut"])
async def test_sessions_set_aside_are_freed_when_they_end(
    db: Database, authority: Authority, mail_user: MailUser, dovecot: Dovecot, proxy: OpenProxy, end: str
) -> None:
    """By their last reference, or with what died young."""
    link = await proxy(dovecot.imaps_port)
    claim = await add_account(db, mail_user.name, link.port, mail_user.password)
    async with running(make_runtime(db, authority, link.port), claim) as tree:
        await in_state(db, claim.account_id, "watching")
        await _another(tree, None)
        for _ in range(3):
            session = tree._sync._session
            assert session is not None
            stream = session.wire.stream
            assert isinstance(stream, TLSSocket)
            ended = weakref.ref(stream._socket)
            del stream
            gc.freeze()
            gc.disable()
            try:
                if end == "cut":
                    link.cut()
                else:
                    tree.restart()
                session = await _another(tree, session)
                gc.collect(1)
                assert ended() is None
            finally:
                gc.enable()
                gc.unfreeze()


async def _another(tree: AccountTree, than: Session | None) -> Session:
    """A new session, once it waits for news."""
    with trio.fail_after(20):
        while (  # noqa: ASYNC110  # nobody tells
            (session := tree._sync._session) is than or session is None or session._watch is None
        ):
            await trio.sleep(0.01)
    return session
