"""`accountsctl doctor`: looks at a set-up from outside the daemon and says in words what is wrong and what to do.

Each check yields findings: `ok`, `note` (worth knowing, nothing to do now), `wrong`.  It changes nothing, contacts no
mail server, and shows no secret.  What needs no running daemon is looked at first (`_set_up`), then what does
(`_running`); the database is in `doctor_database`.
"""

from __future__ import annotations

import os
import re
import resource
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import httpx
import trio

from daemon.errors import Fault
from daemon.names import ForeignPackage, check_names, version
from daemon.network import Resolver, client_context
from daemon.settings import Settings, SettingsError, load
from daemon.settings_values import split_bind
from daemon.state import State, key_file, prepare

DISK_WRONG: Final = 1 << 30
"""Bytes free in the state directory: the embedded server's write-ahead log alone may take 1 GiB."""

DISK_NOTE: Final = 5 << 30
"""Bytes free: a mailbox of average size may take a gigabyte."""

ANSWER_WITHIN: Final = 5.0
"""Seconds for an answer on the daemon's own listeners and of the resolver's whole chain of name servers."""

DESCRIPTORS_EACH: Final = 2
"""An account holds one IMAP session and at most one more connection."""

DESCRIPTORS_REST: Final = 1024
"""For listeners, 256 requests under way, the pool, files."""

KNOWN_NAME: Final = "example.com"
"""A name that exists everywhere (RFC 2606 section 3)."""

_MAX_FDS = re.compile(r"^process_max_fds (\S+)$", re.MULTILINE)

Mark = Literal["ok", "note", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    mark: Mark
    what: str
    remedy: str = ""
    """What to do about it; empty when nothing is."""


def ok(what: str) -> Finding:
    """As it should be."""
    return Finding("ok", what)


def note(what: str, remedy: str = "") -> Finding:
    """Worth knowing."""
    return Finding("note", what, remedy)


def wrong(what: str, remedy: str = "") -> Finding:
    """To be mended."""
    return Finding("wrong", what, remedy)


async def examine(config: Path | None) -> AsyncIterator[Finding]:
    """All findings, in the order in which one depends on another."""
    from .doctor_database import database

    yield names()
    try:
        settings = load(config)
    except SettingsError as exc:
        yield wrong(str(exc), "correct the setting; nothing else can be looked at before")
        return
    yield ok(f"the settings are readable ({config or 'no file'}, the environment, credentials)")
    for finding in authorities(settings):
        yield finding
    state, findings = state_of(settings)
    for finding in findings:
        yield finding
    if state is not None:
        for finding in (*keys(state), disk(state.directory)):
            yield finding
    running = False
    async for finding in listeners(settings):
        running = running or finding.mark == "ok"
        yield finding
    if state is not None:
        async for finding in database(settings, state, running=running):
            yield finding
    yield await resolver(settings)
    yield note("whether mail servers can be reached (ports 993, 587 and so on) is not tried on strangers' servers",
               "connecting an account tells, in words")  # fmt: skip


def names() -> Finding:
    """Whether the import names are ours."""
    try:
        check_names()
    except ForeignPackage as exc:
        return wrong(str(exc), "see 'Names' in the README")
    return ok(f"accountsd {version()}, its import names are its own")


def authorities(settings: Settings) -> Iterator[Finding]:
    """The file of certificate authorities, where one is set."""
    file = settings.network.ca_file
    if file is None:
        return
    try:
        client_context(file)
    except OSError as exc:  # ssl.SSLError is one
        yield wrong(f"network.ca_file {file} cannot be used: {exc.strerror or 'it holds no certificate'}",
                    "name a PEM file of certificates that the daemon's user can read")  # fmt: skip
    else:
        yield ok(f"network.ca_file {file} holds certificates")


def state_of(settings: Settings) -> tuple[State | None, list[Finding]]:
    """The state directory and the session secret in it."""
    try:
        state = prepare(settings, create=False)
    except SettingsError as exc:
        return None, [wrong(str(exc), "start the daemon once, which makes what is missing, or run this as its user")]
    found: list[Finding] = []
    try:
        mode = state.directory.stat().st_mode
    except OSError as exc:
        return None, [wrong(f"the state directory {state.directory} cannot be seen: {exc.strerror}",
                            "start the daemon once, or say where it is by storage.directory")]  # fmt: skip
    if mode & 0o022:
        found.append(wrong(f"others may write in the state directory {state.directory}", "chmod go-w it"))
    else:
        found.append(ok(f"the state directory is {state.directory}"))
    if settings.auth.mode == "hs256" and settings.auth.secret is None:
        file = settings.auth.secret_file or state.directory / "session-secret"
        found.append(_private(file, "the session secret"))
    elif settings.auth.mode == "hs256":
        found.append(note("the session secret is in the settings themselves", "a file or a credential leaks less"))
    else:
        found.append(ok(f"sessions come from {settings.auth.issuer}"))
    return state, found


def _private(file: Path, what: str) -> Finding:
    if stat.S_IMODE(file.stat().st_mode) & 0o077 and not _is_credential(file):
        return wrong(f"others can read {what} ({file}): whoever can read it can be any user", f"chmod 600 {file}")
    return ok(f"{what} ({file}) is readable by its owner only")


def _is_credential(file: Path) -> bool:
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    return bool(directory) and file.is_relative_to(str(directory))


def keys(state: State) -> Iterator[Finding]:
    """The key ring."""
    try:
        with _as_owner_of(state.directory):
            ring = key_file(state).ring
    except SettingsError as exc:
        yield wrong(str(exc), "without its key ring no account can be opened: mend the file or restore its copy")
    else:
        yield ok(f"the key ring seals under key {ring.current}")
        yield note(f"nothing opens accounts without {state.key_file}", "keep a copy, apart from those of the database")


@contextmanager
def _as_owner_of(directory: Path) -> Iterator[None]:
    """As root: be the user whose daemon it is, so that files are judged as that daemon judges them."""
    owner = directory.stat().st_uid
    if os.geteuid() != 0 or owner == 0:
        yield
        return
    os.seteuid(owner)
    try:
        yield
    finally:
        os.seteuid(0)


def disk(directory: Path) -> Finding:
    """Room where the state is."""
    status = os.statvfs(directory)
    free = status.f_bavail * status.f_frsize
    said = f"{free / (1 << 30):.1f} GiB free in {directory}"
    if free < DISK_WRONG:
        return wrong(said, "make room: a full disk stops every synchronisation")
    return note(said, "soon more will be needed") if free < DISK_NOTE else ok(said)


async def listeners(settings: Settings) -> AsyncIterator[Finding]:
    """Whether the daemon answers; its limit of descriptors, which it tells among its metrics."""
    async with httpx.AsyncClient(timeout=ANSWER_WITHIN, trust_env=False) as client:
        for key, bind, path in (
            ("operations.bind", settings.operations.bind, "/health/ready"),
            ("api.bind", settings.api.bind, "/mail/openapi.json"),
        ):
            if split_bind(bind)[1] == 0:
                yield note(f"{key} is {bind}: a port of the system's choice cannot be looked at from here")
                continue
            yield await _listener(client, key, bind, path)
        yield await _descriptors(client, settings)


async def _listener(client: httpx.AsyncClient, key: str, bind: str, path: str) -> Finding:
    try:
        answer = await client.get(f"http://{_reachable(bind)}{path}")
    except httpx.TransportError as exc:
        return wrong(f"nobody answers on {key} = {bind} ({type(exc).__name__})",
                     "is the daemon running, with these settings?")  # fmt: skip
    if answer.status_code == httpx.codes.OK:
        return ok(f"{key} = {bind} answers")
    return wrong(f"{key} = {bind} answers {answer.status_code} to {path}: {answer.text[:200]}",
                 "its log says what it waits for")  # fmt: skip


async def _descriptors(client: httpx.AsyncClient, settings: Settings) -> Finding:
    needed = settings.fleet.max_accounts * DESCRIPTORS_EACH + DESCRIPTORS_REST
    whose, limit = "a daemon started from here", resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    try:
        text = (await client.get(f"http://{_reachable(settings.operations.bind)}/metrics")).text
    except httpx.TransportError:
        text = ""
    if found := _MAX_FDS.search(text):
        whose, limit = "the running daemon", int(float(found[1]))
    if limit == resource.RLIM_INFINITY or limit >= needed:
        return ok(f"{whose} may open enough descriptors for {settings.fleet.max_accounts} accounts")
    able = max(0, (limit - DESCRIPTORS_REST) // DESCRIPTORS_EACH)
    said = f"{whose} may open {limit} descriptors, enough for about {able} accounts and not for fleet.max_accounts"
    return note(said, f"LimitNOFILE={needed} in the unit, or ulimit -n, or a smaller fleet.max_accounts")


def _reachable(bind: str) -> str:
    """Where to knock for a listener that is bound to all addresses."""
    host, port = split_bind(bind)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def resolver(settings: Settings) -> Finding:
    """Whether names resolve, by the daemon's own resolver."""
    asked = ", ".join(settings.network.nameservers) or "the system's resolver"
    try:
        with trio.fail_after(ANSWER_WITHIN):
            await Resolver(settings.network.nameservers).resolve(KNOWN_NAME)
    except (Fault, trio.TooSlowError) as exc:
        reason = exc.reason if isinstance(exc, Fault) else f"no answer in {ANSWER_WITHIN:g} s"
        return wrong(f"{KNOWN_NAME} does not resolve by {asked}: {reason}",
                     "correct network.nameservers or /etc/resolv.conf: mail servers are found by it")  # fmt: skip
    return ok(f"names resolve by {asked}")
