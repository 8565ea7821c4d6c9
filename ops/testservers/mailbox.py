"""What another mail client does to a mailbox, over imaplib: fill, flag, expunge, move, read back.

imaplib is the standard library's, slow and plain, and shares no code with the daemon: what it reads is evidence.
"""

import hashlib
import imaplib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

_BATCH = 250
"""Messages in one MULTIAPPEND. They become visible together; larger batches are no faster."""

_FETCHED = re.compile(rb"(\d+) \((.*)\{(\d+)\}$", re.DOTALL)
_FLAGS = re.compile(rb"FLAGS \(([^)]*)\)")
_UIDVALIDITY = re.compile(rb"UIDVALIDITY (\d+)")
_UID = re.compile(rb"UID (\d+)")
_SIZE = re.compile(rb"RFC822\.SIZE (\d+)")


class CommandRefused(Exception):
    """The server said NO or BAD to something it should do."""


@dataclass(frozen=True, slots=True)
class Seed:
    """A message as it should come to lie in a folder. `internal_date` is in seconds since 1970."""

    content: bytes
    flags: tuple[str, ...] = ()
    internal_date: float | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as the server holds it. `size` in bytes; `sha256` of the whole message, in hex."""

    flags: frozenset[str]
    size: int
    sha256: str


def append_all(client: imaplib.IMAP4, folder: str, messages: Iterable[bytes | Seed]) -> int:
    """Append messages in order, by MULTIAPPEND (RFC 3502) with LITERAL+ (RFC 7888); the number of them.

    Raises `CommandRefused`.
    """
    if folder.upper() != "INBOX":
        client.create(quoted(folder))       # NO when it exists: the append tells
    remaining, count = iter(messages), 0
    while batch := list(islice(remaining, _BATCH)):
        count += len(batch)
        tag = b"S%d" % count
        client.send(b"".join([tag, b" APPEND ", quoted(folder).encode(), *map(_literal, batch), b"\r\n"]))
        while not (line := client.readline()).startswith(tag):
            if not line:
                raise CommandRefused("the server closed the connection during APPEND")
        if not line.startswith(tag + b" OK"):
            raise CommandRefused(line.decode(errors="replace").strip())
    return count


def _literal(message: bytes | Seed) -> bytes:
    seed = Seed(message) if isinstance(message, bytes) else message
    date = b""
    if seed.internal_date is not None:
        date = b" " + imaplib.Time2Internaldate(seed.internal_date).encode()
    return b" (%s)%s {%d+}\r\n%s" % (" ".join(seed.flags).encode(), date, len(seed.content), seed.content)


def store_flags(
    client: imaplib.IMAP4, folder: str, uids: Iterable[int], flags: Sequence[str], *, remove: bool,
) -> None:
    """Add or remove flags. Raises `CommandRefused`."""
    _select(client, folder)
    for some in _sets(uids):
        check(client.uid("STORE", some, "-FLAGS.SILENT" if remove else "+FLAGS.SILENT", f"({' '.join(flags)})"))


def expunge(client: imaplib.IMAP4, folder: str, uids: Iterable[int]) -> None:
    """Delete these messages and no others (UID EXPUNGE, RFC 4315). Raises `CommandRefused`."""
    _select(client, folder)
    for some in _sets(uids):
        check(client.uid("STORE", some, "+FLAGS.SILENT", r"(\Deleted)"))
        check(client.uid("EXPUNGE", some))


def move(client: imaplib.IMAP4, folder: str, uids: Iterable[int], to: str) -> None:
    """Move messages (RFC 6851). Raises `CommandRefused`."""
    client.create(quoted(to))
    _select(client, folder)
    for some in _sets(uids):
        check(client.uid("MOVE", some, quoted(to)))


def recreate(client: imaplib.IMAP4, folder: str) -> None:
    """Delete and create a folder. Raises `CommandRefused`, also when its UIDVALIDITY is the same after.

    Dovecot counts UIDVALIDITY up where the time in seconds would give the same again.
    """
    before = uidvalidity(client, folder)
    check(client.delete(quoted(folder)))
    check(client.create(quoted(folder)))
    if uidvalidity(client, folder) == before:
        raise CommandRefused(f"{folder} was created anew with UIDVALIDITY {before} again")


def uidvalidity(client: imaplib.IMAP4, folder: str) -> int:
    """A folder's UIDVALIDITY. Raises `CommandRefused`."""
    [said] = check(client.status(quoted(folder), "(UIDVALIDITY)"))
    match = _UIDVALIDITY.search(said)
    if match is None:
        raise CommandRefused(f"no UIDVALIDITY: {said!r}")
    return int(match[1])


def all_uids(client: imaplib.IMAP4, folder: str) -> list[int]:
    """The UIDs in a folder, ascending. Raises `CommandRefused`."""
    _select(client, folder, readonly=True)
    found = check(client.uid("SEARCH", "ALL"))
    return sorted(int(uid) for uid in (found[0] or b"").split())


def dump(client: imaplib.IMAP4, folder: str) -> dict[int, Stored]:
    """Every message of a folder, by UID. Raises `CommandRefused`."""
    _select(client, folder, readonly=True)
    stored: dict[int, Stored] = {}
    for some in _sets(all_uids(client, folder)):
        for part in check(client.uid("FETCH", some, "(UID FLAGS RFC822.SIZE BODY.PEEK[])")):
            if not isinstance(part, tuple):
                continue
            head, body = part
            match, flags, uid, size = (expression.search(head) for expression in (_FETCHED, _FLAGS, _UID, _SIZE))
            if not (match and flags and uid and size):
                raise CommandRefused(f"unreadable FETCH response: {head[:200]!r}")
            names = frozenset(flag.decode() for flag in flags[1].split()) - {r"\Recent"}
            stored[int(uid[1])] = Stored(names, int(size[1]), hashlib.sha256(body).hexdigest())
    return stored


def quoted(folder: str) -> str:
    """A folder name as a quoted string. ASCII names only: modified UTF-7 is the daemon's business."""
    if not folder.isascii() or any(c in folder for c in '"\\\r\n\0'):
        raise ValueError(f"not a plain folder name: {folder!r}")
    return f'"{folder}"'


def check(answer: tuple[str, list[Any]]) -> list[Any]:
    """The data of an answer by imaplib that says OK. Raises `CommandRefused`."""
    status, data = answer
    if status != "OK":
        raise CommandRefused(f"{status} {data!r}"[:500])
    return data


def _select(client: imaplib.IMAP4, folder: str, *, readonly: bool = False) -> None:
    check(client.select(quoted(folder), readonly=readonly))


def _sets(uids: Iterable[int], size: int = 500) -> Iterable[str]:
    """Sequence sets of at most `size` UIDs (a command line of some 4 kB), runs joined."""
    ordered = sorted(uids)
    for start in range(0, len(ordered), size):
        runs: list[list[int]] = []
        for uid in ordered[start:start + size]:
            if runs and runs[-1][1] == uid - 1:
                runs[-1][1] = uid
            else:
                runs.append([uid, uid])
        yield ",".join(str(a) if a == b else f"{a}:{b}" for a, b in runs)
