"""The embedded server's log: parsed, bounded in length and rate, always read."""

from __future__ import annotations

import trio
import trio.testing
from structlog.testing import capture_logs

from daemon.storage.server_log import LINES, LONGEST_LINE, PERIOD, LineBudget, ServerLog


async def told(*chunks: bytes) -> tuple[ServerLog, list[dict[str, object]]]:
    log = ServerLog()
    sender, receiver = trio.testing.memory_stream_one_way_pair()
    with capture_logs() as entries:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.follow, receiver)
            for chunk in chunks:
                await sender.send_all(chunk)
            await sender.aclose()
    return log, [dict(entry) for entry in entries]


async def test_severities_become_levels(autojump_clock: trio.testing.MockClock) -> None:
    log, entries = await told(b"LOG:  hello\nWARNING:  care\nFATAL:  ", b"the end\nPANIC:  p\nodd line\n\n")
    assert [(entry["log_level"], entry["severity"], entry["text"]) for entry in entries] == [
        ("info", "LOG", "hello"),
        ("warning", "WARNING", "care"),
        ("error", "FATAL", "the end"),
        ("critical", "PANIC", "p"),
        ("info", "LOG", "odd line"),
    ]
    assert log.last == "hello / care / the end / p / odd line"


async def test_an_endless_line_is_cut_and_the_next_one_is_whole(autojump_clock: trio.testing.MockClock) -> None:
    _, entries = await told(b"LOG:  " + b"x" * LONGEST_LINE, b"y" * 100_000, b"y\nLOG:  next\n")
    assert [len(str(entry["text"])) for entry in entries] == [LONGEST_LINE - len("LOG:  "), len("next")]


async def test_bytes_that_are_no_text_do_no_harm(autojump_clock: trio.testing.MockClock) -> None:
    _, entries = await told(b"LOG:  \xff\xfe\n")
    assert entries[0]["text"] == "\ufffd\ufffd"


async def test_a_flood_is_read_but_not_told(autojump_clock: trio.testing.MockClock) -> None:
    _, entries = await told(b"LOG:  again\n" * 10_000)
    assert len(entries) == LINES


def test_what_was_dropped_is_counted_until_the_next_period() -> None:
    budget = LineBudget()
    assert sum(budget.allows(100.0) for _ in range(LINES + 7)) == LINES
    assert budget.dropped == 7
    assert not budget.allows(100.0 + PERIOD - 0.1)
    assert budget.allows(100.0 + PERIOD)
    assert budget.dropped == 8


async def test_an_end_that_was_asked_for_is_no_error(autojump_clock: trio.testing.MockClock) -> None:
    _, entries = await told(
        b"FATAL:  terminating connection due to administrator command\nFATAL:  the database system is shutting down\n"
        b"FATAL:  terminating connection because of crash of another server process\n"
    )
    assert [entry["log_level"] for entry in entries] == ["info", "info", "error"]
