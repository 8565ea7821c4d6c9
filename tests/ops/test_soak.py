"""The soak: its plan is replayable, its comparison sees every difference, and a short campaign ends in equality."""

import itertools
import random
from collections import Counter

import pytest
import trio

from daemon.network import Endpoint, Security
from daemon.storage.database import Database
from ops.bench import accounts
from ops.bench.child import until
from ops.bench.first_sync import stored
from ops.bench.place import vault_of
from ops.soak import proxy as soak_proxy
from ops.soak.plan import FAULTS, KILLS_UNTIL, MAIL, Kind, plan
from ops.soak.samples import Sample, grown, growth
from ops.soak.verify import OnServer, differences, look
from ops.testservers.dovecot import Dovecot
from ops.testservers.mail import seeds
from ops.testservers.mailbox import Stored


def test_the_same_seed_makes_the_same_campaign():
    assert list(plan(7, 60.0, 50)) == list(plan(7, 60.0, 50))
    assert list(plan(7, 60.0, 50)) != list(plan(8, 60.0, 50))


def test_a_longer_campaign_begins_like_a_shorter_one():
    short = list(plan(3, 30.0, 10))
    assert list(plan(3, 90.0, 10))[: len(short)] == short


def test_everything_comes_and_in_order():
    actions = list(plan(1, 600.0, 20))
    times = [action.at for action in actions]
    assert times == sorted(times)
    kinds = Counter(action.kind for action in actions)
    assert set(kinds) == {*MAIL, *FAULTS}
    assert 130 < sum(kinds[kind] for kind in FAULTS) < 280  # every three seconds
    assert {action.account for action in actions} == set(range(20))


def test_growth_is_told_for_each_life():
    def sample(at: float, pid: int, rss: float) -> Sample:
        return Sample(at, pid, rss, 40, 5, 3)

    lives = growth([sample(0, 1, 80), sample(2, 1, 95), sample(4, 1, 90), sample(6, 2, 80), sample(8, 3, 70)])
    assert [(life["rss_first"], life["rss_most"], life["rss_last"]) for life in lives] == [(80, 95, 90)]


@pytest.mark.parametrize(
    ("leak", "told"),
    [
        ({}, []),
        ({"rss_mib": 0.05}, ["rss_mib grew from 132.1 to 156.1"]),
        ({"tasks": 0.1}, ["tasks grew"]),
        ({"threads": 0.1}, ["threads grew"]),
    ],
)
def test_what_grows_in_a_long_life_is_told(leak: dict[str, float], told: list[str]):
    base = {"rss_mib": 120.0, "descriptors": 90, "threads": 5, "connections": 50, "tasks": 130, "database_sessions": 8}
    samples = [Sample(0.0, 1, 500.0, 400, 5, 3)] + [
        Sample(float(at), 2, **{name: value + at * leak.get(name, 0.0) for name, value in base.items()})
        for at in range(2, 842, 2)
    ]
    figures, problems = grown(samples)
    assert len(problems) == len(told)
    assert all(sentence.startswith(words) for words, sentence in zip(told, problems, strict=True))
    assert figures["tasks"][0] > 0
    assert grown(samples[:200]) == ({}, []), "too short to judge"


def test_a_long_campaign_ends_with_a_long_life():
    kinds = Counter(action.kind for action in plan(1, 1800.0, 20) if action.at > KILLS_UNTIL)
    assert kinds[Kind.KILL_DAEMON] == 0 < kinds[Kind.KILL_DATABASE]


async def _served(nursery: trio.Nursery) -> soak_proxy.Proxy:
    async def echo(stream: trio.SocketStream) -> None:
        async with stream:
            async for data in stream:
                await stream.send_all(data)

    listeners = await nursery.start(trio.serve_tcp, echo, 0)
    proxy = soak_proxy.Proxy(listeners[0].socket.getsockname()[1])
    await nursery.start(proxy.run)
    return proxy


async def test_the_proxy_passes_on_goes_deaf_and_cuts():
    async with trio.open_nursery() as nursery:
        proxy = await _served(nursery)
        with trio.fail_after(20):
            stream = await trio.open_tcp_stream("127.0.0.1", proxy.port)
            await stream.send_all(b"one")
            assert await stream.receive_some(10) == b"one"
            assert proxy.open == proxy.accepted == 1

            rng = random.Random(0)
            links = proxy.deafen(1.0, rng)
            await stream.send_all(b"two")
            with trio.move_on_after(0.1) as deaf:
                await stream.receive_some(10)
            assert deaf.cancelled_caught
            proxy.hear(links)
            assert await stream.receive_some(10) == b"two"

            assert proxy.cut(0.5, rng, reset=True) == 1  # at least one
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some(10)
            await until(lambda: not proxy.open)
            assert proxy.cut(1.0, rng, reset=False) == 0
            await stream.aclose()
        nursery.cancel_scope.cancel()


USER = "verified@example.test"


async def _set(db: Database, statement: str) -> None:
    async def work(conn):
        await conn.execute(statement)

    await db.run(work)


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        ("DELETE FROM placements WHERE uid = 3", ["1 messages are missing, UID [3]", "lie nowhere"]),
        ("UPDATE placements SET vanished_at = now() WHERE uid = 2", ["1 messages are missing"]),
        ("UPDATE placements SET flags = '{Other}' WHERE uid = 2", ["flags of 1 messages differ"]),
        ("UPDATE messages SET size = size + 1", ["size of 5 messages differ"]),
        ("UPDATE bodies SET data = data || 'x'::bytea", ["sha256 of 5 messages differ"]),
        ("UPDATE folders SET uidnext = uidnext + 1", ["the cursor is"]),
        ("UPDATE folders SET highestmodseq = 1000000", ["beyond the server's"]),
        ("UPDATE folders SET demoted = 'uid_diff', demoted_reason = 'it lies'", ["it lies"]),
        ("INSERT INTO placements SELECT folder_id, uid + 100, message_id, flags, modseq FROM placements WHERE uid = 1",
         ["gone from the server but stored, UID [101]", "stored twice"]),
        ("INSERT INTO events (type, account_id, data) SELECT 'email.received', id, '{\"uid\": 5}'"
         " FROM accounts, generate_series(1, 2)", ["told twice, such as UID 5"]),
    ],
)  # fmt: skip
async def test_every_difference_is_seen(db: Database, dovecot: Dovecot, harm: str, told: list[str]):
    user = f"{abs(hash(harm))}@example.test"
    await trio.to_thread.run_sync(dovecot.seed, user, seeds(5, seed=1))
    server = await trio.to_thread.run_sync(look, dovecot, user)
    account_id = await _stored_as(db, dovecot, user, server)
    assert await differences(db, account_id, user, server) == []
    assert await stored(db, account_id) == server.messages
    await _set(db, harm)
    found = await differences(db, account_id, user, server)
    for words, sentence in itertools.zip_longest(told, found, fillvalue="nothing more"):
        assert words in sentence


async def _stored_as(db: Database, dovecot: Dovecot, user: str, server: OnServer):
    """Sync the mailbox with the parts that the first-sync benchmark uses."""
    from daemon.imap.folder_changes import FolderSyncConfig
    from daemon.imap.folder_record import FolderRecord, Store
    from daemon.imap.folder_sync import FolderSync
    from daemon.imap.open import open_session
    from daemon.vault.secret import Secret
    from ops.bench.place import dialer_to, trusting

    imap = Endpoint(dovecot.host, dovecot.imaps_port, Security.TLS)
    [account_id] = await accounts.connect(db, vault_of(bytes(32)), [user], imap, dovecot.password)
    dialer = dialer_to({dovecot.imaps_port}, trusting(dovecot.ca_pem))
    claim = await accounts.claim(db, account_id)

    def session():
        return open_session(dialer, imap, user, Secret(dovecot.password))

    async with session() as opened:
        await opened.enable(b"QRESYNC", b"CONDSTORE")
        record = await FolderRecord.open(Store(db, claim), "INBOX")
        config = FolderSyncConfig(window=500, max_body=1 << 20)
        sync = FolderSync(opened, record, config, verify=session, large_bodies=trio.Semaphore(1))
        await sync.run()
    assert set(server.messages) == {1, 2, 3, 4, 5}
    assert all(isinstance(message, Stored) for message in server.messages.values())
    return account_id
