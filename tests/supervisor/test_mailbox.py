"""An actor's mailbox: bounds, deadlines, answers."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import trio

from supervisor import (
    AlreadyAnswered,
    CallTimeout,
    InvalidCapacity,
    Mailbox,
    MailboxClosed,
    MailboxFull,
    Reply,
)


@dataclass(frozen=True)
class Ask:
    number: int
    reply: Reply[int]


async def test_commands_come_in_order_and_beyond_the_capacity_are_refused(autojump_clock):
    box: Mailbox[str] = Mailbox(2)
    box.cast("a")
    box.cast("b")
    with pytest.raises(MailboxFull):
        box.cast("c")
    assert [await box.receive(), await box.receive()] == ["a", "b"]
    box.cast("d")
    assert await box.receive() == "d"
    statistics = box.statistics()
    assert (statistics.accepted, statistics.refused, statistics.queued, statistics.most_queued) == (3, 1, 0, 2)


async def test_receive_gives_none_at_its_deadline(autojump_clock):
    box: Mailbox[str] = Mailbox(2)
    assert await box.receive(trio.current_time() + 30) is None
    assert trio.current_time() == 30
    assert await box.receive(10) is None  # long past
    box.cast("a")
    assert await box.receive(10) == "a"


@pytest.mark.parametrize("deadline", [50.0, float("inf")])
async def test_receive_wakes_for_a_command(autojump_clock, deadline):
    box: Mailbox[str] = Mailbox(2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_later, 5, box.cast, "a")
        assert await box.receive(deadline) == "a"
    assert trio.current_time() == 5


async def test_a_cancelled_receive_loses_nothing(autojump_clock):
    box: Mailbox[str] = Mailbox(2)
    with trio.move_on_after(5):
        await box.receive()
    box.cast("a")
    with trio.CancelScope() as scope:
        scope.cancel()
        await box.receive()
    assert await box.receive() == "a"


async def test_one_receiver(autojump_clock):
    box: Mailbox[str] = Mailbox(2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(box.receive)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await box.receive()
        box.cast("a")


async def test_receive_is_a_checkpoint_also_when_a_command_waits(autojump_clock):
    box: Mailbox[str] = Mailbox(1)
    box.cast("a")
    with trio.testing.assert_checkpoints():
        await box.receive()


async def _later(seconds, function, *args):
    await trio.sleep(seconds)
    function(*args)


async def _actor(box, delay=0.0):
    while True:
        command = await box.receive()
        await trio.sleep(delay)
        if command.number < 0:
            command.reply.fail(ValueError("negative"))
        else:
            command.reply.send(command.number * 2)


async def test_call_brings_the_answer_or_the_actors_exception(autojump_clock):
    box: Mailbox[Ask] = Mailbox(4)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_actor, box, 3)
        assert await box.call(lambda reply: Ask(21, reply), 5) == 42
        assert trio.current_time() == 3
        with pytest.raises(ValueError, match="negative"):
            await box.call(lambda reply: Ask(-1, reply), 5)
        nursery.cancel_scope.cancel()
    assert box.statistics().calls_waiting == 0


async def test_a_call_gives_up_in_time_and_the_actor_can_tell(autojump_clock):
    box: Mailbox[Ask] = Mailbox(4)
    with pytest.raises(CallTimeout):
        await box.call(lambda reply: Ask(1, reply), 5)
    assert trio.current_time() == 5
    command = await box.receive()
    assert command is not None
    assert not command.reply.wanted
    command.reply.send(2)  # nobody hears it, and nothing breaks


async def test_a_cancelled_call_leaves_nothing_behind(autojump_clock):
    box: Mailbox[Ask] = Mailbox(4)
    with trio.move_on_after(1):
        await box.call(lambda reply: Ask(1, reply), 5)
    assert box.statistics().calls_waiting == 0


async def test_call_does_not_wait_for_room(autojump_clock):
    box: Mailbox[Ask] = Mailbox(1)
    box.cast(Ask(1, Reply()))
    with pytest.raises(MailboxFull):
        await box.call(lambda reply: Ask(1, reply), 5)
    assert trio.current_time() == 0


async def test_answers_are_given_once(autojump_clock):
    reply: Reply[int] = Reply()
    reply.send(1)
    with pytest.raises(AlreadyAnswered):
        reply.fail(ValueError())


async def test_none_is_an_answer(autojump_clock):
    box: Mailbox[Reply[None]] = Mailbox(1)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def actor():
            reply = await box.receive()
            assert reply is not None
            reply.send(None)

        assert await box.call(lambda reply: reply, 5) is None


async def test_close_lets_go_everybody_who_waits(autojump_clock):
    box: Mailbox[Ask] = Mailbox(4)
    outcomes = []

    async def call():
        try:
            await box.call(lambda reply: Ask(1, reply), 50)
        except MailboxClosed:
            outcomes.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(call)
        await trio.sleep(1)
        taken = await box.receive()  # in the actor's hands, unanswered
        await trio.sleep(1)
        box.close()
        assert taken is not None
        taken.reply.send(5)  # too late, harmless
    assert outcomes == [2, 2, 2]
    with pytest.raises(MailboxClosed):
        box.cast(Ask(1, Reply()))
    with pytest.raises(MailboxClosed):
        await box.receive()
    assert box.statistics().closed
    assert box.statistics().queued == 0


async def test_an_answer_given_before_the_close_is_heard(autojump_clock):
    box: Mailbox[Ask] = Mailbox(4)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def actor():
            command = await box.receive()
            assert command is not None
            command.reply.send(7)
            box.close()

        assert await box.call(lambda reply: Ask(1, reply), 5) == 7


async def test_close_wakes_the_receiver(autojump_clock):
    box: Mailbox[str] = Mailbox(1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_later, 3, box.close)
        with pytest.raises(MailboxClosed):
            await box.receive()
    assert trio.current_time() == 3


def test_a_mailbox_without_room_is_refused():
    with pytest.raises(InvalidCapacity):
        Mailbox(0)
