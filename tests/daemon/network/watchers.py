"""Watchers that note what is asked of them, and what a lookout has of them: for its tests."""

import socket
from contextlib import ExitStack, asynccontextmanager, contextmanager
from math import inf
from pathlib import Path

import trio

from daemon.network import Lookout

from .loopback import background


class Noted:
    """A watcher that notes its calls, and answers with each of *answers* in turn, then that it is enough.

    An exception is raised, a function is called.
    """

    def __init__(self, *answers):
        self.answers = list(answers)
        self.calls = []
        self.times = []

    def readable(self):
        return self._answer("readable")

    def due(self):
        return self._answer("due")

    def _answer(self, name):
        self.calls.append(name)
        self.times.append(trio.current_time())
        answer = self.answers.pop(0) if self.answers else True
        if isinstance(answer, Exception):
            raise answer
        return answer() if callable(answer) else answer


class Reading(Noted):
    """Reads one byte before it answers."""

    def __init__(self, sock, *answers):
        super().__init__(*answers)
        self.sock = sock
        self.read = b""

    def readable(self):
        self.read += self.sock.recv(1)
        return super().readable()


class Steady:
    """A watcher that always does the same."""

    def __init__(self, does):
        self.readable = self.due = does


class Waits(list):
    """What each wait ended with, in their order."""

    async def wait(self, lookout, fd, watcher, due_at=inf):
        try:
            await lookout.wait(fd, watcher, due_at)
        except (ValueError, trio.ClosedResourceError) as exc:
            self.append((fd, exc))
        else:
            self.append((fd, None))


@contextmanager
def pairs():
    """A function that makes pairs of connected sockets, closed at the end."""
    with ExitStack() as stack:

        def made():
            pair = socket.socketpair()
            for sock in pair:
                stack.enter_context(sock)
                sock.setblocking(False)
            return pair

        yield made


@asynccontextmanager
async def looking():
    """A lookout that runs, and a nursery for those who wait."""
    lookout = Lookout()
    async with background() as nursery:
        await nursery.start(lookout.run)
        yield lookout, nursery
    lookout.close()


def known(lookout):
    """The descriptors of which the kernel is to tell."""
    told = Path(f"/proc/self/fdinfo/{lookout._epoll.fileno()}").read_text().splitlines()
    return {int(line.split()[1]) for line in told if line.startswith("tfd:")}


def ticks(lookout):
    """The descriptors that are due at some time."""
    return {fd for due in lookout._ticks.values() for fd in due}


def nothing_is_left(lookout):
    """Nobody waits, and nothing is known of who did."""
    return lookout.waiting == 0 and not known(lookout) and not ticks(lookout)
