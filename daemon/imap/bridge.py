"""All of IMAPClient's commands on a session's connection, between two commands of its own.

For everything rare: STORE, MOVE, COPY, APPEND, EXPUNGE, quota, ACL...  IMAPClient and imaplib run unmodified in a
greenlet; where they would block on a socket, greenback awaits the session's wire.  So a bridged call is cancelled,
bounded and ended like any other command of the session, and nothing holds a thread.

What is told unasked meanwhile (EXISTS, EXPUNGE, VANISHED, FETCH) is filed with the session's news, whether or not the
command took it as its answer.  Not for SELECT, IDLE, login or logout: those are the session's own.
"""

from __future__ import annotations

import imaplib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar, cast

import greenback
import structlog
from imapclient import IMAPClient
from imapclient.exceptions import IMAPClientError

from daemon.errors import Fault, FaultKind

from .conversation import ANSWER_TIME
from .faults import Refused, bye
from .parse import Malformed
from .responses import split_response

if TYPE_CHECKING:
    from collections.abc import Callable

    from .session import Session

log = structlog.get_logger(__name__)

MAX_BRIDGED: Final = 64 << 20
"""Bytes that one bridged call may receive: imaplib keeps all of an answer, several times over, before it gives any."""

_TOLD: Final = frozenset({b"EXISTS", b"EXPUNGE", b"VANISHED", b"FETCH", b"OK"})

# What imapclient's parsers raise at answers that are none; its own errors are IMAPClientError.
_UNREADABLE: Final = (ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError, RecursionError)

_T = TypeVar("_T")


@dataclass(slots=True)
class _Call:
    """What one bridged call has done so far."""

    session: Session
    room: int = field(default_factory=lambda: MAX_BRIDGED)
    sent: bool = False
    command: str = "a bridged command"
    refusal: tuple[str, bytes] | None = None
    """Status and text of the last tagged answer, if it was NO or BAD."""


class _IMAP4(imaplib.IMAP4):
    """imaplib with its documented I/O methods put on a wire."""

    def __init__(self, call: _Call) -> None:
        self._call = call
        self._wire = call.session.wire
        self._greeting = b"* PREAUTH ready\r\n"
        super().__init__(self._wire.host)

    def open(self, host: str = "", port: int = 143, timeout: float | None = None) -> None:  # noqa: ARG002 - imaplib's
        self.host, self.port = host, port

    def readline(self) -> bytes:
        if self._greeting:
            line, self._greeting = self._greeting, b""
            return line
        taken = self._wire.take_line()
        if taken is None:
            greenback.await_(self._wire.wait_line(self._wire.patience))
            taken = self._wire.take_line() or b""
        self._count(len(taken) + 64)  # 64: what a line costs beside its bytes
        bare = taken.endswith((b" OK", b" NO", b" BAD"))  # imaplib wants words behind them, not every server has any
        return taken + (b" \r\n" if bare else b"\r\n")

    def read(self, size: int) -> bytes:
        self._count(size)
        return greenback.await_(self._wire.block(size))

    def send(self, data: bytes) -> None:  # type: ignore[override]  # imaplib and imapclient send nothing else
        self._call.sent = True
        greenback.await_(self._wire.send(data))

    def shutdown(self) -> None:
        """Leave the connection to the session."""

    def _get_capabilities(self) -> None:
        names = sorted(name.decode("latin-1") for name in self._call.session.capabilities)
        self.capabilities = (*names, "IMAP4REV1")  # imaplib looks for it; IMAP4rev2 answers all it asks

    def _command(self, name: str, *args: object) -> bytes:
        for argument in args:
            _refuse_line_breaks(argument)
        self._call.command = name
        return super()._command(name, *args)  # type: ignore[misc,no-any-return]  # not in the stubs

    def _get_response(self) -> bytes | None:
        line: bytes | None = super()._get_response()  # type: ignore[misc]  # not in the stubs
        if line and self._call.sent:
            self._notice(line)
        return line

    def _notice(self, line: bytes) -> None:
        """File what the line tells of the folder; remember how the command ended."""
        if not line.startswith(b"* "):
            _, status, text = (*line.split(b" ", 2), b"", b"")[:3]
            refused = status.upper() in (b"NO", b"BAD")
            self._call.refusal = (status.upper().decode("ascii"), text) if refused else None
            return
        response = split_response([line])
        if response.kind == b"BYE":
            raise bye(response.text)
        # A FETCH with a literal was asked for; only its first line is here.
        if response.kind in _TOLD and not line.endswith(b"}"):
            self._call.session.newsbox.file(response)

    def _count(self, size: int) -> None:
        self._call.room -= size
        if self._call.room < 0:
            raise Fault(FaultKind.PROTOCOL, f"The mail server's answer went beyond {MAX_BRIDGED} bytes.")


class _Client(IMAPClient):  # type: ignore[misc]  # imapclient has no types
    """IMAPClient on a session; made for one call."""

    def __init__(self, call: _Call) -> None:
        self._call = call
        super().__init__(call.session.wire.host, ssl=False)
        self._imap.debug = 0  # 5, its own choice, formats every literal twice for a log nobody reads
        self._imap.state = self._state = "AUTH" if call.session.selected is None else "SELECTED"
        self._imap.untagged_responses.clear()
        self._cached_capabilities = tuple(sorted(call.session.capabilities))  # else it asks again in each call
        self.normalise_times = False  # else naive local times

    @property
    def moved(self) -> bool:
        """Whether a command selected or left a folder, of which the session knows nothing."""
        return bool(self._imap.state != self._state)

    def _create_IMAP4(self) -> _IMAP4:  # noqa: N802 - imapclient's name
        return _IMAP4(self._call)

    def _set_read_timeout(self) -> None:
        pass  # the wire has its own

    def _normalise_folder(self, folder_name: str | bytes) -> str:
        # Before modified UTF-7 hides them: Dovecot repeats the name, decoded, in its NO, and so a line break in a
        # name becomes a response of the name's author.
        _refuse_line_breaks(folder_name)
        return cast(str, super()._normalise_folder(folder_name))

    def _raw_command(self, command: bytes, args: object, uid: bool = True) -> object:
        for argument in args if isinstance(args, (list, tuple)) else (args,):
            _refuse_line_breaks(argument)
        self._call.command = command.decode("latin-1")
        return super()._raw_command(command, args, uid)


def _refuse_line_breaks(argument: object) -> None:
    """CVE-2025-15366: imaplib up to 3.14 sends line breaks in arguments as they are, commands behind them and all."""
    text = argument if isinstance(argument, str) else argument.decode("latin-1") if isinstance(argument, bytes) else ""
    if any(c in text for c in "\r\n\0"):
        raise ValueError("no line breaks or NUL in an IMAP command")


async def call(session: Session, run: Callable[[IMAPClient], _T], *, within: float = ANSWER_TIME) -> _T:
    """What `run(client)` returns, with a client that speaks on *session*; keep *run* to the client's own methods.

    Raises Refused for NO and BAD (the session stays sound), Fault when the connection or the protocol breaks, and
    whatever *run* raises before anything is sent (the session stays sound then too).
    """
    bridged = _Call(session)
    with session.exclusive(), session.wire.within(within):
        outcome, error = await greenback.with_portal_run_sync(_run, bridged, run)
        if error is not None:
            if not bridged.sent:
                session.dirty = False
            raise error
        return cast(_T, outcome)


def _run(call: _Call, run: Callable[[IMAPClient], _T]) -> tuple[_T | None, Exception | None]:
    """One call with what went wrong translated, in the greenlet; Faults and cancellation pass as they are."""
    client = _Client(call)
    try:
        outcome = run(client)
    except (IMAPClientError, *_UNREADABLE) as exc:
        return None, _translated(call, exc)
    if client.moved:
        return None, RuntimeError("the bridge is not for SELECT, CLOSE, login or logout")
    return outcome, None


def _translated(call: _Call, exc: Exception) -> Exception:
    if not call.sent:
        return exc
    if isinstance(exc, IMAPClientError) and call.refusal is not None:
        return Refused(call.command, *call.refusal)
    # A line that is no response aborts imaplib; a line that is one but makes no sense fails in imapclient's parsers.
    log.debug("imap.bridge_unreadable", command=call.command, error=type(exc).__name__)
    fault = Malformed(f"{call.command}: {type(exc).__name__}")
    fault.__cause__ = exc
    return fault
