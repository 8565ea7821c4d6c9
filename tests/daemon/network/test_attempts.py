import socket
from ipaddress import ip_address

import trio

from daemon.network.attempts import MOST_ATTEMPTS, STAGGER, connect_first, in_order

V4 = [ip_address(f"192.0.2.{n}") for n in range(1, 10)]
V6 = [ip_address(f"2001:db8::{n}") for n in range(1, 10)]


class Winner:
    def __init__(self, address):
        self.address, self.closed = address, False

    def close(self):
        self.closed = True


class Network:
    """Addresses that answer, or fail, after so many seconds; the others never do."""

    def __init__(self, answers=(), failures=()):
        self.answers, self.failures = dict(answers), dict(failures)
        self.started, self.made = [], []

    async def connect(self, address, port):
        self.started.append((address, trio.current_time()))
        await trio.sleep(self.failures.get(address, self.answers.get(address, 1e9)))
        if address in self.failures:
            raise OSError("refused")
        self.made.append(Winner(address))
        return self.made[-1]


def test_the_families_take_turns():
    assert in_order([V6[0], V6[1], V6[2], V4[0], V4[1]]) == [V6[0], V4[0], V6[1], V4[1], V6[2]]
    assert in_order([V4[0], V4[1], V6[0]]) == [V4[0], V6[0], V4[1]]
    assert in_order([V4[0], V4[0]]) == [V4[0]]
    assert in_order([]) == []
    assert len(in_order(V4 + V6)) == MOST_ATTEMPTS


async def test_the_second_address_is_tried_beside_a_silent_first(autojump_clock):
    start, network = trio.current_time(), Network(answers={V4[0]: 0.1})
    winner = await connect_first([V6[0], V4[0], V6[1]], 993, network.connect)
    assert winner.address == V4[0]
    assert not winner.closed
    assert network.started == [(V6[0], start), (V4[0], start + STAGGER)]
    assert trio.current_time() == start + STAGGER + 0.1


async def test_a_failure_lets_the_next_go_at_once(autojump_clock):
    start, network = trio.current_time(), Network(answers={V4[1]: 0}, failures={V4[0]: 0.05})
    assert (await connect_first(V4[:2], 993, network.connect)).address == V4[1]
    assert network.started[1] == (V4[1], start + 0.05)


async def test_a_slow_first_still_wins_over_a_silent_second(autojump_clock):
    network = Network(answers={V6[0]: 1.0})
    assert (await connect_first([V6[0], V4[0]], 993, network.connect)).address == V6[0]


async def test_two_at_the_same_moment_leave_one_open(autojump_clock):
    made, both = [], trio.Event()

    async def connect(address, port):
        await both.wait()
        made.append(Winner(address))
        return made[-1]

    async with trio.open_nursery() as nursery:
        @nursery.start_soon
        async def _():
            await trio.sleep(1)
            both.set()

        winner = await connect_first(V4[:2], 993, connect)
    assert len(made) == 2
    assert [other.closed for other in made if other is not winner] == [True]
    assert not winner.closed


async def test_nobody_answers(autojump_clock):
    network = Network(failures=dict.fromkeys(V4[:3], 1))
    assert await connect_first(V4[:3], 993, network.connect) is None
    assert await connect_first([], 993, network.connect) is None


async def test_cancelled_nothing_stays_open(autojump_clock):
    network = Network()
    with trio.move_on_after(3) as scope:
        await connect_first(V4, 993, network.connect)
    assert scope.cancelled_caught
    assert len(network.started) == MOST_ATTEMPTS
    assert network.made == []


async def test_a_real_silent_address_is_passed_over():
    """A listener whose queue is full drops SYNs, as a firewall does."""
    with socket.socket() as deaf, socket.socket() as alive, socket.socket() as filler:
        deaf.bind(("127.0.0.2", 0))
        port = deaf.getsockname()[1]
        deaf.listen(0)
        filler.connect(("127.0.0.2", port))
        alive.bind(("127.0.0.3", port))
        alive.listen()
        with trio.fail_after(10):
            sock = await connect_first([ip_address("127.0.0.2"), ip_address("127.0.0.3")], port)
        with sock:
            assert sock.getpeername() == ("127.0.0.3", port)


async def test_a_real_refusal_is_none():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        assert await connect_first([ip_address("127.0.0.1"), ip_address("::1")], port) is None
