"""The deadlines of a conversation's beginning: what was missed, and what is said of it."""

import pytest
import trio
from trio.testing import MockClock

from daemon.errors import Disposition, Fault, FaultKind
from daemon.network import opening
from daemon.network.opening import greeting_within, login_within


async def test_a_login_in_time_raises_nothing(autojump_clock: MockClock):
    with login_within(60) as begun:
        await trio.sleep(59)
    assert not begun.greeted


@pytest.mark.parametrize(
    ("greeted", "kind", "reason"),
    [
        (False, FaultKind.CONNECT_FAILED, "The mail server did not answer within 60 seconds."),
        (True, FaultKind.UNAVAILABLE, "The mail server did not finish the login within 60 seconds."),
    ],
)
async def test_a_login_beyond_its_time(autojump_clock: MockClock, greeted: bool, kind: FaultKind, reason: str):
    async def wait() -> None:
        with login_within(60) as begun:
            begun.greeted = greeted
            await trio.sleep_forever()

    began = trio.current_time()
    with pytest.raises(Fault) as caught:
        await wait()
    assert (caught.value.kind, caught.value.reason) == (kind, reason)
    assert caught.value.disposition is Disposition.RETRY
    assert trio.current_time() - began == 60


@pytest.mark.parametrize(("begun", "reason"), [(False, opening.SILENT), (True, opening.UNFINISHED)])
async def test_a_greeting_beyond_its_time(autojump_clock: MockClock, begun: bool, reason: str):
    with pytest.raises(Fault) as caught, greeting_within(20, lambda: begun):
        await trio.sleep_forever()
    assert (caught.value.kind, caught.value.reason) == (FaultKind.CONNECT_FAILED, reason)


async def test_a_greeting_that_never_comes_is_told_as_that_although_the_login_goes_on(autojump_clock: MockClock):
    with pytest.raises(Fault) as caught, login_within(60), greeting_within(20, lambda: False):
        await trio.sleep_forever()
    assert caught.value.reason == opening.SILENT


async def test_a_caller_that_gives_up_is_no_fault(autojump_clock: MockClock):
    with trio.move_on_after(5) as scope, login_within(60), greeting_within(20, lambda: False):
        await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_what_is_wrong_within_is_told_as_it_is():
    with pytest.raises(Fault) as caught, login_within(60), greeting_within(20, lambda: False):
        raise Fault(FaultKind.LOST, "It was lost.")
    assert caught.value.reason == "It was lost."
