"""What servers say unasked: filed, bounded, taken once."""

import pytest

from daemon.imap import news as bounds
from daemon.imap.news import FlagNews, FolderStatus, News, NewsBox, folder_name
from daemon.imap.responses import split_response


def filed(*lines: bytes, messages: int = 10) -> NewsBox:
    box = NewsBox(messages=messages)
    for line in lines:
        box.file(split_response([line]))
    return box


def test_nothing_said_is_no_news() -> None:
    box = filed(b"* OK Still here", b"* 3 RECENT", b"* FLAGS (\\Seen)", b"* OK [UIDNEXT 5] next")
    assert not box.any
    assert not box.take()
    assert box.take() == News()


def test_the_number_of_messages_follows_what_was_said() -> None:
    assert filed(b"* 12 EXISTS").take().exists == 12
    assert filed(b"* 12 EXISTS", b"* 3 EXPUNGE", b"* 3 EXPUNGE").take() == News(exists=10, removed=2)
    assert filed(b"* VANISHED 1:3,7").take() == News(exists=6, vanished=(range(1, 4), range(7, 8)))
    assert filed(b"* VANISHED (EARLIER) 1:3").take() == News(vanished=(range(1, 4),))
    assert filed(b"* VANISHED 1:4294967295").take().exists == 0


def test_flags_are_kept_by_uid() -> None:
    news = filed(b"* 2 FETCH (UID 9 FLAGS (\\Seen) MODSEQ (5))", b"* 2 FETCH (FLAGS () UID 9 MODSEQ (6))").take()
    assert news.flags == {9: FlagNews((), 6)}
    assert not news.must_reconcile


@pytest.mark.parametrize(
    "line",
    [
        b"* 2 FETCH (FLAGS (\\Seen))", b"* 2 FETCH (UID 0 FLAGS ())", b"* 2 FETCH (((",
        b"* VANISHED nonsense", b"* VANISHED",
    ],
)
def test_what_names_no_message_wants_the_folder_compared(line: bytes) -> None:
    news = filed(line).take()
    assert news
    assert news.unplaced == 1
    assert news.must_reconcile


def test_an_expunge_wants_the_folder_compared() -> None:
    assert filed(b"* 3 EXPUNGE").take().must_reconcile


def test_news_is_taken_once() -> None:
    box = filed(b"* 12 EXISTS", b"* 2 FETCH (UID 9 FLAGS ())", b"* 1 EXPUNGE", b"* STATUS other (MESSAGES 3)")
    assert box.any
    assert box.take()
    assert not box.any
    assert box.take() == News()


def test_facts_beyond_the_bounds_are_counted_and_want_the_folder_compared() -> None:
    box = filed(b"* VANISHED " + b",".join(b"%d" % uid for uid in range(1, 2 * bounds.MAX_VANISHED + 5, 2)))
    for uid in range(1, bounds.MAX_FLAG_NEWS + 6):
        box.file(split_response([b"* 1 FETCH (UID %d FLAGS ())" % uid]))
    for number in range(bounds.MAX_STATUSES + 7):
        box.file(split_response([b"* STATUS f%d (MESSAGES 1)" % number]))
    news = box.take()
    assert len(news.vanished) == bounds.MAX_VANISHED
    assert len(news.flags) == bounds.MAX_FLAG_NEWS
    assert len(news.statuses) == bounds.MAX_STATUSES
    assert news.dropped == box.overflowed == 2 + 5 + 7
    assert news.must_reconcile


def test_statuses_of_other_folders_are_kept_by_name() -> None:
    numbers = b"(MESSAGES 3 UIDNEXT 12 HIGHESTMODSEQ 9 UIDVALIDITY 0 UNSEEN 99999999999)"
    news = filed(b'* STATUS "Entw&APw-rfe" ' + numbers).take()
    assert news.statuses == {"Entwürfe": FolderStatus(messages=3, uidnext=12, highestmodseq=9)}


@pytest.mark.parametrize("line", [b"* STATUS x", b"* STATUS (a) (MESSAGES 1)", b"* STATUS &bad (MESSAGES 1)"])
def test_a_status_that_cannot_be_read_is_counted(line: bytes) -> None:
    assert filed(line).take().dropped == 1


def test_a_notification_overflow_wants_everything_compared() -> None:
    assert filed(b"* OK [NOTIFICATIONOVERFLOW] too much").take().must_reconcile


def test_a_modseq_is_a_hint_and_no_reason_to_act() -> None:
    news = filed(b"* OK [HIGHESTMODSEQ 77] ok").take()
    assert news.highestmodseq == 77
    assert not news
    assert filed(b"* OK [HIGHESTMODSEQ 0] ok").take().highestmodseq is None


def test_alerts_are_kept_short_clean_and_few() -> None:
    said = [b"* NO [ALERT] Disk \x1b[31malmost full " + b"x" * 9999] * 50
    news = filed(*said).take()
    assert len(news.alerts) == 4
    assert news.alerts[0].startswith("Disk  [31malmost full x")
    assert len(news.alerts[0]) <= 400
    assert not news


def test_another_folder_voids_the_news_of_the_last() -> None:
    box = filed(b"* 12 EXISTS", b"* 2 FETCH (UID 9 FLAGS ())", b"* STATUS other (MESSAGES 3)")
    box.forget_folder()
    news = box.take()
    assert news.exists is None
    assert not news.flags
    assert news.statuses


@pytest.mark.parametrize(
    ("said", "name"),
    [
        (b"INBOX", "INBOX"), (b"inbox", "INBOX"), (b"Entw&APw-rfe", "Entwürfe"), (2024, "2024"), (None, "NIL"),
        (b"a&-b", "a&b"),
    ],
)
def test_folder_names(said: object, name: str) -> None:
    assert folder_name(said) == name


@pytest.mark.parametrize(
    "said", [b"", b"Entw\xc3\xbcrfe", b"&bad", b"&AA0ACg-", b"a\r\nb", b"x" * 2000, (b"a",), b"&AGE-", b"&////-"]
)
def test_a_name_that_could_not_be_selected_is_none(said: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any: codecs have their own words
        folder_name(said)
