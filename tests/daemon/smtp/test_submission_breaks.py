"""Sending to servers that break off, fall silent or talk nonsense, at every step."""

import pytest
import trio

from daemon.errors import Fault, FaultKind
from daemon.smtp import Patience, Verdict
from tests.daemon.network.test_stream import reset

from .servers import BIG, BOB, EVE, MESSAGE, USER, parts, talk

STEPS = ["mail", "rcpt", "data", "body", "end"]


async def play_until(peer, step):
    """Serve as far as *step*, whose command is read and not answered."""
    await peer.log_in()
    await peer.expect(b"MAIL.*")
    if step == "mail":
        return
    await peer.say(b"250 ok")
    await peer.expect(b"RCPT.*")
    if step == "rcpt":
        return
    await peer.say(b"250 ok")
    await peer.expect(b"DATA")
    if step == "data":
        return
    await peer.say(b"354 go")
    if step == "body":
        await peer.stream.receive_some(1000)
        return
    await peer.message()


@pytest.mark.parametrize("how", ["fin", "reset"])
@pytest.mark.parametrize("step", STEPS)
async def test_a_connection_that_breaks_is_unknown_only_after_the_end(step, how, server_context, ca_file):
    async def script(peer):
        await play_until(peer, step)
        if how == "reset":
            reset(peer.stream)

    async with talk(script, server_context, ca_file) as submission:
        if step == "end":
            result = await submission.send(USER, [BOB], MESSAGE)
            assert (result.verdict, result.unknown) == (Verdict.UNKNOWN, (BOB,))
        else:
            message = BIG if step == "body" else MESSAGE  # larger than all buffers: its end cannot have left
            with pytest.raises(Fault) as caught:
                await submission.send(USER, [BOB], message)
            assert caught.value.kind is FaultKind.LOST
            assert not submission.in_doubt
        assert not submission.usable


@pytest.mark.parametrize("step", STEPS)
async def test_a_server_that_falls_silent_is_unknown_only_after_the_end(step, server_context, ca_file):
    async def script(peer):
        await play_until(peer, step)
        await trio.sleep_forever()

    patience = Patience(command=0.3, block=0.3, final=0.3)
    async with talk(script, server_context, ca_file, patience=patience) as submission:
        if step == "end":
            assert (await submission.send(USER, [BOB], MESSAGE)).unknown == (BOB,)
        else:
            with pytest.raises(Fault) as caught:
                await submission.send(USER, [BOB], BIG if step == "body" else MESSAGE)
            assert caught.value.kind is FaultKind.LOST
            assert not submission.in_doubt


@pytest.mark.parametrize("step", [step for step in STEPS if step != "body"])  # where no reply belongs
async def test_421_defers_and_ends_the_connection(step, server_context, ca_file):
    async def script(peer):
        await play_until(peer, step)
        await peer.say(b"421 4.3.2 going down")
        await peer.wait_for_end()

    async with talk(script, server_context, ca_file) as submission:
        result = await submission.send(USER, [BOB, EVE] if step == "rcpt" else [BOB], MESSAGE)
        assert result.verdict is Verdict.DEFERRED
        assert parts(result) == ([BOB, EVE] if step == "rcpt" else [BOB])
        assert result.fault.kind is FaultKind.THROTTLED
        assert not submission.in_doubt
        assert not submission.usable


async def test_421_at_the_second_recipient_takes_the_first_along(server_context, ca_file):
    async def script(peer):
        await peer.log_in()
        await peer.expect(b"MAIL.*")
        await peer.say(b"250 ok")
        await peer.expect(b"RCPT.*")
        await peer.say(b"250 ok")
        await peer.expect(b"RCPT.*")
        await peer.say(b"421 4.4.2 closing")
        await peer.wait_for_end()

    async with talk(script, server_context, ca_file) as submission:
        result = await submission.send(USER, [BOB, EVE, USER], MESSAGE)
        assert result.verdict is Verdict.DEFERRED
        assert set(result.deferred) == {BOB, EVE, USER}


@pytest.mark.parametrize(("step", "answer"), [
    ("mail", b"354 go"), ("rcpt", b"334 x"), ("data", b"250 ok"), ("data", b"220 x"), ("mail", b"nonsense"),
    ("rcpt", b"250-a\r\n251 b"), ("data", b"999 x")])
async def test_an_answer_that_makes_no_sense_ends_the_connection(step, answer, server_context, ca_file):
    async def script(peer):
        await play_until(peer, step)
        await peer.say(answer)
        await peer.wait_for_end()

    async with talk(script, server_context, ca_file) as submission:
        with pytest.raises(Fault) as caught:
            await submission.send(USER, [BOB], MESSAGE)
        assert caught.value.kind is FaultKind.PROTOCOL
        assert not submission.usable
        assert not submission.in_doubt


@pytest.mark.parametrize("answer", [b"354 more", b"nonsense", b"x" * 100_000, b"150 x"])
async def test_nonsense_after_the_end_is_unknown(answer, server_context, ca_file):
    async def script(peer):
        await play_until(peer, "end")
        await peer.say(answer)
        await peer.wait_for_end()

    async with talk(script, server_context, ca_file) as submission:
        result = await submission.send(USER, [BOB], MESSAGE)
        assert (result.verdict, result.fault.kind) == (Verdict.UNKNOWN, FaultKind.PROTOCOL)
        assert not submission.usable


async def test_an_answer_nobody_asked_for_ends_the_connection_and_mispairs_nothing(server_context, ca_file):
    """The first 250 is the answer to MAIL; the second must not become that to RCPT."""
    async def script(peer):
        await peer.log_in()
        await peer.expect(b"MAIL.*")
        await peer.say(b"250 ok", b"250 unasked")
        await peer.wait_for_end()

    async with talk(script, server_context, ca_file) as submission:
        with pytest.raises(Fault) as caught:
            await submission.send(USER, [BOB], MESSAGE)
        assert caught.value.kind is FaultKind.LOST
        assert not submission.in_doubt


async def test_an_acceptance_counts_though_the_server_closes_with_it(server_context, ca_file):
    async def script(peer):
        await play_until(peer, "end")
        await peer.say(b"250 2.0.0 queued", b"421 4.4.2 that was all")

    async with talk(script, server_context, ca_file) as submission:
        result = await submission.send(USER, [BOB], MESSAGE)
        assert (result.verdict, result.reply.code) == (Verdict.ACCEPTED, 250)
        assert not submission.in_doubt
        assert not submission.usable


async def test_the_end_of_the_message_is_sent_by_itself(server_context, ca_file):
    """What makes "not sent" and "unknown" two things."""
    chunks = []

    async def script(peer):
        await play_until(peer, "data")
        await peer.say(b"354 go")
        while not b"".join(chunks).endswith(b"\r\n.\r\n"):
            chunks.append(bytes(await peer.stream.receive_some(65536)))
        await peer.say(b"250 ok")

    async with talk(script, server_context, ca_file) as submission:
        await submission.send(USER, [BOB], MESSAGE)
    assert chunks[-1] == b".\r\n"  # a TLS record of its own


async def test_two_senders_take_turns(server_context, ca_file):
    async def script(peer):
        await peer.log_in()
        for _ in range(2):
            for command in (b"MAIL.*", b"RCPT.*"):
                await peer.expect(command)
                await peer.say(b"250 ok")
            await peer.expect(b"DATA")
            await peer.say(b"354 go")
            await peer.message()
            await peer.say(b"250 ok")

    async with talk(script, server_context, ca_file) as submission, trio.open_nursery() as nursery:
        for one in (BOB, EVE):
            nursery.start_soon(submission.send, USER, [one], MESSAGE)


async def test_a_body_that_raises_leaves_without_quit(server_context, ca_file):
    heard = []

    async def script(peer):
        await peer.log_in()
        heard.append(await peer.wait_for_end())

    with pytest.raises(KeyError):
        async with talk(script, server_context, ca_file):
            raise KeyError
    assert heard == [b""]
