"""Conversations that the tests of sessions script: one answer, an end behind it, an IDLE."""

from contextlib import aclosing

import trio

from daemon.imap.fetched import Fetched
from daemon.imap.session import Session
from tests.daemon.imap.scripted import Peer, Script


def saying(*answers: bytes, to: bytes) -> Script:
    """A server that answers one command with *answers*, `%tag%` being its tag, and then listens."""

    async def script(peer: Peer) -> None:
        tag = await peer.expect(to)
        await peer.say(*(answer.replace(b"%tag%", tag) for answer in answers))
        await peer.hear_out()

    return script


def ending(*answers: bytes, to: bytes) -> Script:
    """The same, but it closes the connection behind its last byte, which ends no line."""

    async def script(peer: Peer) -> None:
        tag = await peer.expect(to)
        await peer.raw(b"\r\n".join(answers).replace(b"%tag%", tag))

    return script


def idling(*packets: bytes, ends: bool = True) -> Script:
    """A server in IDLE that sends *packets*, apart from each other, and ends IDLE at DONE."""

    async def script(peer: Peer) -> None:
        tag = await peer.expect(b"IDLE")
        for packet in packets:
            await peer.raw(packet)
            await trio.sleep(0.02)  # so that they arrive as packets of their own
        if ends:
            assert await peer.line() == b"DONE"
            await peer.say(tag + b" OK idled")
            await peer.hear_out()

    return script


async def fetch_all(
    imap: Session, *sets: bytes, items: tuple[bytes, ...] = (b"FLAGS",), **options: object
) -> list[Fetched]:
    async with aclosing(imap.fetch(sets, items, **options)) as messages:
        return [message async for message in messages]
