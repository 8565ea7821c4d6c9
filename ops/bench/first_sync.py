"""The first synchronisation of a large mailbox over TLS, into a durable PostgreSQL.

All candidates read the same mailbox of the same Dovecot:

    ours        open_session and FolderSync, exactly what an account's sync child runs; fsync on
    drain       a bare TLS socket that sends one FETCH of the same items and throws the answer away: the limit
    mbsync      `mbsync` to Maildir on the same disk as the database, as it comes (FSync yes)
    mbsync_nofsync   the same with `FSync no`

A disk that others use changes its speed by a factor of two from one minute to the next, and with it whichever
candidate has its turn.  So they take turns, ROUNDS times, every other time in the opposite order; before each turn what
the last one left is removed, vacuumed and synced to the disk, so that nobody pays for another; and medians are
compared, with the best turn of each beside them.  Of ours the processor's time is told too: it hardly depends on the
disk and on others.  At the end the store is held against a plain IMAP dump.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final
from uuid import UUID

import trio

from daemon.imap.folder_changes import FolderSyncConfig
from daemon.imap.folder_record import FolderRecord, Store
from daemon.imap.folder_sync import FolderSync
from daemon.imap.open import open_session
from daemon.storage.connection import Conn
from daemon.storage.database import Database
from daemon.vault.secret import Secret
from ops.testservers.dovecot import Dovecot
from ops.testservers.mail import seeds
from ops.testservers.mailbox import Stored

from . import accounts
from .place import Place, opened
from .result import Row, Say, median

COUNT: Final = 20_000
QUICK: Final = 300
ROUNDS: Final = 5

SLOW_ROUNDS: Final = 2
"""Rounds that mbsync with FSync takes part in: it takes as long as all the others together."""

USER: Final = "ann@example.test"
WINDOW: Final = 500
MAX_BODY: Final = 50 << 20
"""Messages a transaction and largest body in bytes: the daemon's defaults."""

MBSYNC_WITHIN: Final = 600.0
"""Seconds; 20,000 messages with FSync took 20 s on a small machine."""

_MBSYNC: Final = """\
FSync {fsync}

IMAPStore far
Host {host}
Port {port}
SSLType IMAPS
SystemCertificates no
CertificateFile {ca}
User {user}
Pass {password}

MaildirStore near
Path {to}/
Inbox {to}/INBOX
SubFolders Verbatim

Channel inbox
Far :far:INBOX
Near :near:INBOX
Sync Pull
Create Near
Expunge None
SyncState *
"""


class Different(Exception):
    """What was stored is not what the server has, or mbsync did not store it."""


async def measure(*, quick: bool, say: Say) -> list[Row]:
    """Messages per second beside the yardsticks.

    Raises:
        Different: the store does not equal the server.
        subprocess.SubprocessError: mbsync took too long.
    """
    count, rounds = (QUICK, 1) if quick else (COUNT, ROUNDS)
    with Dovecot() as dovecot:
        say(f"filling a mailbox with {count} messages")
        await trio.to_thread.run_sync(dovecot.seed, USER, seeds(count, seed=1))
        async with opened(dovecot) as place:
            return await _compare(place, count, rounds, say)


async def _compare(place: Place, count: int, rounds: int, say: Say) -> list[Row]:
    in_thread = trio.to_thread.run_sync
    await in_thread(partial(_drain, place))  # Dovecot's index and the page cache are warm for everybody
    turns: dict[str, Callable[[int], Awaitable[float]]] = {
        "drain": lambda _: in_thread(partial(_drain, place)),
        "ours": lambda number: _first_sync(place, f"{number}"),
        "mbsync, FSync no": lambda _: in_thread(partial(_mbsync, place, count, fsync=False)),
        "mbsync, FSync yes": lambda _: in_thread(partial(_mbsync, place, count, fsync=True)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    processor = 0.0
    for number in range(rounds):
        for name in list(turns)[:: -1 if number % 2 else 1]:
            if name == "mbsync, FSync yes" and number >= SLOW_ROUNDS:
                continue
            say(f"round {number + 1} of {rounds}: {name}")
            await in_thread(os.sync)
            before = time.process_time()
            seconds[name].append(await turns[name](number))
            if name == "ours":
                processor += time.process_time() - before
                await _clean_up(place)
    for name, taken in seconds.items():
        say(f"{name}: {min(taken):.2f} s at best, median {median(taken):.2f}, at worst {max(taken):.2f}")
    account_id = await _account(place, "compared")
    await _sync_once(place, account_id)
    say("comparing the store with the server")
    size = await _verify(place, account_id, count)
    drain, ours, fast, slow = seconds.values()
    row = partial(Row, "first_sync")

    def speed(taken: list[float], of: Callable[[list[float]], float] = median) -> float:
        return count / of(taken)

    return [
        row("first sync, TLS", speed(ours), "msg/s", speed(slow), "mbsync (FSync yes)", (">=", 3.0), "ratio"),
        row("first sync, TLS", speed(ours), "msg/s", speed(fast), "mbsync (FSync no)", (">=", 1.0), "ratio"),
        row("first sync, TLS, best turn", speed(ours, min), "msg/s", speed(fast, min), "mbsync (FSync no), best turn"),
        row("first sync, TLS", speed(ours), "msg/s", speed(drain), "raw TLS drain"),
        row("first sync, bytes", size / median(ours) / 2**20, "MiB/s", size / median(drain) / 2**20, "raw TLS drain"),
        row("first sync, our processor time", 1e6 * processor / rounds / count, "µs/msg"),
    ]


# -- ours ----------------------------------------------------------------------------------------------------------


async def _account(place: Place, name: str) -> UUID:
    # Several accounts on one mailbox: the schema wants different user names, Dovecot folds their case.
    flips = int(hashlib.sha256(name.encode()).hexdigest(), 16)
    local, _, domain = USER.partition("@")
    spelled = "".join(c.upper() if flips >> at & 1 else c for at, c in enumerate(domain))
    username = f"{local}@{spelled}"
    [account_id] = await accounts.connect(
        place.database, place.vault, [username], place.imap, place.dovecot.password, owner=f"bench-{name}"
    )
    return account_id


async def _first_sync(place: Place, name: str) -> float:
    """Seconds of a first sync."""
    account_id = await _account(place, name)
    began = time.perf_counter()
    await _sync_once(place, account_id)
    return time.perf_counter() - began


async def _sync_once(place: Place, account_id: UUID) -> None:
    claim = await accounts.claim(place.database, account_id)
    async with open_session(place.dialer, place.imap, USER, Secret(place.dovecot.password)) as session:
        await session.enable(b"QRESYNC", b"CONDSTORE")
        sync = FolderSync(
            session,
            await FolderRecord.open(Store(place.database, claim), "INBOX"),
            FolderSyncConfig(WINDOW, MAX_BODY),
            verify=lambda: open_session(place.dialer, place.imap, USER, Secret(place.dovecot.password)),
            large_bodies=trio.Semaphore(1),
        )
        await sync.run()


async def _clean_up(place: Place) -> None:
    """Remove what was stored, and the room it took: or the server does so later, in somebody else's turn."""
    async with place.database.connection() as conn:
        await conn.execute("DELETE FROM accounts")
        await conn.execute("VACUUM (ANALYZE) messages, bodies, placements, folders, accounts")


# -- the yardsticks ------------------------------------------------------------------------------------------------


def _drain(place: Place) -> float:
    """Seconds to receive everything, login and SELECT included."""
    began = time.perf_counter()
    server = ("127.0.0.1", place.dovecot.imaps_port)
    with (
        socket.create_connection(server, timeout=60) as plain,
        place.context.wrap_socket(plain, server_hostname=place.dovecot.host) as tls,
    ):
        _expect(tls, b"* OK")
        for number, command in enumerate((
            b"LOGIN %s %s" % (USER.encode(), place.dovecot.password.encode()),
            b"SELECT INBOX",
            b"UID FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[])",
        )):  # fmt: skip
            tag = b"D%d" % number
            tls.sendall(tag + b" " + command + b"\r\n")
            _expect(tls, b"\r\n" + tag + b" OK")
    return time.perf_counter() - began


def _expect(tls: ssl.SSLSocket, words: bytes) -> None:
    """Read until *words* begin a line and that line ends."""
    buffer, tail = memoryview(bytearray(1 << 16)), b"\r\n"
    while True:
        count = tls.recv_into(buffer)
        if not count:
            raise ConnectionError("the server closed the connection")
        tail = (tail + bytes(buffer[:count]) if count < 4096 else bytes(buffer[count - 4096 : count]))[-8192:]
        if words in tail and tail.endswith(b"\r\n"):
            return


def _mbsync(place: Place, count: int, *, fsync: bool) -> float:
    """Seconds of one `mbsync` into an empty Maildir beside the database."""
    to = place.directory / "maildir"
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir()
    config = place.directory / "mbsyncrc"
    config.write_text(
        _MBSYNC.format(
            host=place.dovecot.host,
            port=place.dovecot.imaps_port,
            ca=place.dovecot.ca_pem,
            user=USER,
            password=place.dovecot.password,
            to=to,
            fsync="yes" if fsync else "no",
        )
    )
    began = time.perf_counter()
    command = ["mbsync", "--quiet", "--config", str(config), "inbox"]
    done = subprocess.run(command, check=False, capture_output=True, timeout=MBSYNC_WITHIN)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise Different(f"mbsync failed: {done.stderr.decode(errors='replace')[-500:]}")
    held = sum(1 for _ in (to / "INBOX").glob("[cn][ue][rw]/*"))
    if held != count:
        raise Different(f"mbsync stored {held} of {count} messages")
    return seconds


# -- is it all there? ----------------------------------------------------------------------------------------------


async def _verify(place: Place, account_id: UUID, count: int) -> int:
    """Compare UIDs, flags, sizes and hashes of all bodies with a plain dump; the bytes of all messages."""
    dump = await trio.to_thread.run_sync(place.dovecot.dump, USER)
    held = await stored(place.database, account_id)
    if len(dump) != count or held != dump:
        wrong = [uid for uid in dump.keys() | held.keys() if dump.get(uid) != held.get(uid)]
        raise Different(f"{len(dump)} on the server, {len(held)} stored; {len(wrong)} differ, UID {wrong[:5]}")
    return sum(message.size for message in dump.values())


async def stored(database: Database, account_id: UUID, folder: str = "INBOX") -> dict[int, Stored]:
    """What the store holds of a folder, in the form of `Dovecot.dump`."""
    return await database.run(partial(_stored, account_id=account_id, folder=folder))


async def _stored(conn: Conn, account_id: UUID, folder: str) -> dict[int, Stored]:
    cursor = await conn.execute(
        "SELECT p.uid, p.flags, m.size, encode(sha256(coalesce("
        "  (SELECT string_agg(b.data, ''::bytea ORDER BY b.part) FROM bodies b WHERE b.message_id = m.id), '')), 'hex')"
        " FROM placements p JOIN folders f ON f.id = p.folder_id JOIN messages m ON m.id = p.message_id"
        " WHERE f.account_id = %s AND f.name = %s AND p.vanished_at IS NULL",
        (account_id, folder),
    )
    return {uid: Stored(frozenset(flags), size, digest) for uid, flags, size, digest in await cursor.fetchall()}

