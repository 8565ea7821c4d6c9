"""What a renewal of IDLE asks, and which answer says that nothing is new.  No server: tables."""

from dataclasses import dataclass, replace

import pytest
import trio

from daemon.imap.folder_changes import FolderSyncConfig
from daemon.imap.folder_sync import FolderSync
from daemon.imap.news import FlagNews
from daemon.imap.plan import Cursor, Method
from daemon.imap.responses import Response, split_response
from daemon.imap.selected import Known, SelectedFolder, SelectQuestion
from daemon.imap.session import Session
from daemon.imap.watch import NOOP
from daemon.imap.wire import Wire
from tests.daemon.imap.watching import ANSWER, settled

QRESYNC = frozenset({b"QRESYNC", b"CONDSTORE"})
CURSOR = Cursor(uidvalidity=7, uidnext=5, highestmodseq=90, backfill_below=1)
SELECTED = SelectedFolder("INBOX", 4, 7, 5, 90, True, None, ())


@dataclass
class Folder:
    """What `FolderSync` looks at of the row."""

    cursor: Cursor | None
    name: str = "INBOX"
    demoted: Method | None = None


@dataclass
class Record:
    """Likewise of the record."""

    folder: Folder
    settled: int | None = 4
    moved: bool = False

    @property
    def cursor(self) -> Cursor:
        assert self.folder.cursor is not None
        return self.folder.cursor


class NoStream:
    """Nothing is said here."""

    async def receive_some(self, max_bytes: int) -> bytes:
        raise AssertionError

    async def send_all(self, data: bytes) -> None:
        raise AssertionError

    async def aclose(self) -> None:
        raise AssertionError


def session_with(enabled: frozenset[bytes] = QRESYNC, capabilities: frozenset[bytes] = QRESYNC) -> Session:
    session = Session(Wire(NoStream(), "localhost"))
    session.enabled, session.capabilities = enabled, capabilities
    session.newsbox.messages = 4
    return session


def sync_of(session: Session, record: Record) -> FolderSync:
    config = FolderSyncConfig(window=50, max_body=1)
    return FolderSync(session, record, config, verify=None, large_bodies=trio.Semaphore(1))  # type: ignore[arg-type]  # what is not used here


def response(line: bytes) -> Response:
    return split_response([line])


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({}, True),
        ({"uidnext": None}, True),  # a server may leave it out: the count and the mod-sequence tell
        ({"uidvalidity": 8}, False),
        ({"uidvalidity": 0}, False),
        ({"uidnext": 6}, False),
        ({"uidnext": 4}, False),
        ({"highestmodseq": 91}, False),
        ({"highestmodseq": 89}, False),
        ({"highestmodseq": None}, False),
        ({"exists": 5}, False),
        ({"exists": 3}, False),
        ({"changed": {3: FlagNews((b"\\Seen",), 91)}}, False),
        ({"vanished": (range(3, 4),)}, False),
        ({"overflowed": True}, False),
    ],
)
async def test_what_is_settled(changed: dict[str, object], same: bool) -> None:
    sync = sync_of(session_with(), Record(Folder(CURSOR)))
    assert sync._is_settled(replace(SELECTED, **changed)) is same  # type: ignore[arg-type]  # a table


async def test_nothing_is_settled_that_the_record_does_not_know() -> None:
    assert not sync_of(session_with(), Record(Folder(CURSOR), settled=None))._is_settled(SELECTED)


@pytest.mark.parametrize(
    ("enabled", "capabilities", "folder", "command"),
    [
        (QRESYNC, QRESYNC, Folder(CURSOR), b'EXAMINE "INBOX" (QRESYNC (7 90))'),
        (QRESYNC, QRESYNC, Folder(CURSOR, name='A "b" \\c'), b'EXAMINE "A \\"b\\" \\\\c" (QRESYNC (7 90))'),
        (QRESYNC, QRESYNC, Folder(CURSOR, name="Entwürfe"), b'EXAMINE "Entw&APw-rfe" (QRESYNC (7 90))'),
        (QRESYNC, QRESYNC, Folder(CURSOR, demoted=Method.CONDSTORE), b'EXAMINE "INBOX"'),
        (frozenset({b"CONDSTORE"}), QRESYNC, Folder(CURSOR), b'EXAMINE "INBOX"'),
        (frozenset(), QRESYNC, Folder(CURSOR), b'EXAMINE "INBOX" (CONDSTORE)'),
        (QRESYNC, QRESYNC, Folder(CURSOR, demoted=Method.UID_DIFF), b"NOOP"),
        (QRESYNC, QRESYNC, Folder(replace(CURSOR, highestmodseq=None)), b"NOOP"),
        (frozenset(), frozenset({b"IDLE"}), Folder(CURSOR), b"NOOP"),
    ],
)
async def test_what_is_asked(
    enabled: frozenset[bytes], capabilities: frozenset[bytes], folder: Folder, command: bytes
) -> None:
    question = sync_of(session_with(enabled, capabilities), Record(folder)).question()
    assert question is not None
    assert question.command == command
    assert (question is NOOP) == (command == b"NOOP")


async def test_only_a_run_tells() -> None:
    session, record = session_with(), Record(Folder(CURSOR))
    sync = sync_of(session, record)
    assert sync.question() is not None
    for bad in (
        Record(Folder(replace(CURSOR, backfill_below=2))),
        Record(Folder(CURSOR), settled=None),
        Record(Folder(CURSOR), settled=5),
        Record(Folder(CURSOR), settled=3),
    ):
        assert sync_of(session, bad).question() is None
    session.newsbox.file(response(b"* 4 EXISTS"))
    assert sync.question() is None, "news wait"
    session.take_news()
    session.newsbox.messages = 3
    assert sync.question() is None, "the counts differ"


@pytest.mark.parametrize("name", ["a\r\nA9 LOGOUT", "a\0b", "a\nb"])
async def test_no_name_says_a_second_command(name: str) -> None:
    with pytest.raises(ValueError, match="folder name"):
        session_with().look_again(name, None, settled)


@pytest.mark.parametrize("known", [Known(0, 90), Known(7, 0), Known(1 << 32, 90), Known(7, 1 << 64)])
async def test_numbers_that_are_none_are_not_asked_for(known: Known) -> None:
    with pytest.raises(ValueError, match="QRESYNC"):
        session_with().look_again("INBOX", known, settled)


@pytest.mark.parametrize(
    ("lines", "same"),
    [
        (ANSWER, True),
        (tuple(reversed(ANSWER)), True),
        ((*ANSWER, b"* OK [UNSEEN 2] first"), True),
        ((*ANSWER, b"* 5 EXISTS"), False),
        ((*ANSWER, b"* 4294967296 EXISTS"), True),  # no number of messages: not told
        ((*ANSWER, b"* 4 EXPUNGE"), False),
        ((*ANSWER, b"* VANISHED 3"), False),
        ((*ANSWER, b"* VANISHED (EARLIER) 2:3"), False),
        ((*ANSWER, b"* VANISHED (EARLIER) x"), False),
        ((*ANSWER, b"* 3 FETCH (UID 3 FLAGS ())"), False),
        ((*ANSWER, b"* 3 FETCH (FLAGS ())"), False),
        ((*ANSWER, b"* 3 FETCH (("), False),
        ((*ANSWER, b"* OK [NOMODSEQ] none"), False),
        ((*ANSWER, b"* OK [UIDVALIDITY 8] other"), False),
        ((*ANSWER, b"* OK [UIDNEXT 6] next"), False),
        ((*ANSWER, b"* OK [HIGHESTMODSEQ 91] next"), False),
        ((*ANSWER, b"* OK [HIGHESTMODSEQ 18446744073709551616] none"), True),  # no mod-sequence: not told
        ((*ANSWER, b"* OK [CLOSED] all before was another folder's"), False),
        ((b"* 9 EXISTS", b"* VANISHED 1", b"* OK [CLOSED] x", *ANSWER), True),
        ((), False),
    ],
)
async def test_which_answer_says_that_nothing_is_new(lines: tuple[bytes, ...], same: bool) -> None:
    question = session_with().look_again("INBOX", Known(7, 90), settled)
    assert isinstance(question, SelectQuestion)
    for line in lines:
        assert question.take(response(line))if b"UNSEEN" not in line else not question.take(response(line))
    assert question.answered(response(b"A2 OK [READ-ONLY] done")) is same


async def test_noop_has_no_words_of_its_own() -> None:
    assert not NOOP.take(response(b"* 4 EXISTS"))
    assert NOOP.answered(response(b"A2 OK done"))
