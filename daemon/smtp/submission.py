"""Messages over one connection that is logged in: MAIL, RCPT for each recipient, DATA, the message, its end.

The end of the message goes out by itself, after all before it was handed to the kernel.  That one write is the line
between "not sent" and "unknown": a connection lost on this side of it has sent nothing that a server may deliver
(RFC 5321 section 4.1.1.4), one lost on the other side may have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import aiosmtplib
import structlog
import trio

from daemon.errors import Fault, FaultKind

from . import envelope
from .envelope import Payload
from .faults import Phase, judge, speaks_of_us
from .outcome import SendResult
from .replies import Reply, reply
from .stream import TrioSMTP

log = structlog.get_logger(__name__)

LARGE: Final = 1 << 17
"""Bytes from which a message is prepared in a thread: below, it takes the loop 4 ms at most, whatever is in it
(measured), and 0.5 ms where it is text."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server may take, in seconds (RFC 5321 section 4.5.3.2, the least that it asks of clients)."""

    command: float = 300.0
    """A reply to MAIL, RCPT, DATA and the rest."""
    block: float = 180.0
    """Taking each 64 KiB of a message."""
    final: float = 600.0
    """The reply to the message: giving up sooner makes *unknown* of what was merely slow."""


DEFAULT_PATIENCE: Final = Patience()


@dataclass(frozen=True, slots=True)
class SubmissionStatistics:
    """What went over one connection."""

    messages: int
    """Tried."""
    accepted: int
    """Messages, not recipients."""
    bytes_sent: int


@dataclass(slots=True)
class _Tally:
    """One send in the making; recipients by the caller's spelling."""

    recipients: list[str]
    accepted: list[str] = field(default_factory=list)
    refused: dict[str, Reply] = field(default_factory=dict)
    deferred: dict[str, Reply] = field(default_factory=dict)
    fault: Fault | None = None

    def settle(self, recipients: Sequence[str], answer: Reply, phase: Phase) -> None:
        """Book a negative reply for these recipients."""
        if answer.local:
            ours = False
        else:
            fault = judge(answer, phase)
            if fault.kind is FaultKind.PROTOCOL:
                raise fault
            ours = speaks_of_us(answer, phase)
            if ours:
                self.fault = fault
        into = self.deferred if answer.temporary or ours else self.refused
        into.update(dict.fromkeys(recipients, answer))

    @property
    def open(self) -> list[str]:
        """Those about whom nothing is settled."""
        return [one for one in self.recipients if one not in self.refused and one not in self.deferred]

    def result(self, last: Reply | None, *, taken: bool = False) -> SendResult:
        accepted = tuple(self.accepted) if taken else ()
        return SendResult(accepted, self.refused, self.deferred, (), last, self.fault)


class Submission:
    """A connection to send over, again and again while it is `usable`.  Made by `session.open_submission`."""

    def __init__(self, smtp: TrioSMTP, patience: Patience = DEFAULT_PATIENCE) -> None:
        self._smtp = smtp
        self._patience = patience
        self._lock = trio.Lock()
        self._begun = False
        self._messages = self._accepted = 0
        self.in_doubt = False
        """Whether a message was completed and not answered: true from the write of its end to the reply, and still
        true when that was cancelled."""

    @property
    def usable(self) -> bool:
        """Whether another message may be tried; if not, the connection is only to be left."""
        return self._smtp.is_connected

    @property
    def extensions(self) -> frozenset[str]:
        """What EHLO announced, in lower case."""
        return frozenset(self._smtp.esmtp_extensions)

    @property
    def size_limit(self) -> int | None:
        """The largest message the server takes, in bytes; None where it set no limit."""
        return envelope.size_limit(self._smtp.esmtp_extensions)

    def statistics(self) -> SubmissionStatistics:
        """What went over the connection so far."""
        return SubmissionStatistics(self._messages, self._accepted, self._smtp.wire.sent)

    async def check(self) -> None:
        """See that the server is still there, before a connection that has been idle is used (NOOP).

        Raises Fault: LOST, or what the server says instead.
        """
        async with self._lock:
            answer = await self._command(b"NOOP")
            if not answer.positive:
                raise judge(answer, Phase.SENDER)

    async def send(self, envelope_from: str, recipients: Sequence[str], message: bytes) -> SendResult:
        """Hand one message over; an empty *envelope_from* is the null sender of bounces.

        Returns when every recipient is accounted for, *unknown* included.  Raises Fault (LOST, PROTOCOL) where the
        conversation broke before the message was complete: then nothing was sent, whoever the recipient.  Raises
        ValueError without recipients.  Cancelled, nothing was sent unless `in_doubt` is true.
        """
        if not recipients:
            raise ValueError("a message needs a recipient")
        if len(message) > LARGE:
            content = await trio.to_thread.run_sync(envelope.payload, message)
        else:
            content = envelope.payload(message)
        async with self._lock:
            self._messages += 1
            try:
                result = await self._transact(envelope_from, _Tally(list(dict.fromkeys(recipients))), content)
            except Fault:
                self._smtp.wire.close()  # the conversation is out of step
                raise
            self._accepted += bool(result.accepted)
        log.debug(
            "smtp.sent", verdict=result.verdict, accepted=len(result.accepted), refused=len(result.refused),
            deferred=len(result.deferred), code=result.reply and result.reply.code,
            status=result.reply and result.reply.enhanced,
        )  # fmt: skip
        return result

    async def _transact(self, envelope_from: str, tally: _Tally, content: Payload) -> SendResult:
        extensions = self._smtp.esmtp_extensions
        sender = envelope.mailbox(envelope_from) if envelope_from else ""
        local = envelope.BAD_SENDER if sender is None else envelope.refuse(sender, content, extensions)
        if sender is None or local is not None:
            tally.settle(tally.recipients, local or envelope.BAD_SENDER, Phase.SENDER)
            return tally.result(local)
        paths = self._paths(tally)
        if not paths:
            return tally.result(next(iter(tally.refused.values())))
        options = envelope.mail_options([sender, *paths.values()], content, extensions)
        encoding = "utf-8" if "SMTPUTF8" in options else "ascii"

        await self._reset()
        answer = await self._mail(sender, options, encoding)
        if not answer.positive:
            tally.settle(tally.open, answer, Phase.SENDER)
            return tally.result(answer)
        for recipient, path in paths.items():
            answer = await self._rcpt(path, encoding)
            if answer.positive:
                tally.accepted.append(recipient)
            else:
                tally.settle([recipient], answer, Phase.RECIPIENT)
            if not self.usable:  # 421: whatever was accepted went with the transaction
                closing = _closing(answer)
                tally.settle(tally.open, closing, Phase.DATA)
                return tally.result(closing)
        if not tally.accepted:
            return tally.result(answer)
        return await self._data(tally, content)

    def _paths(self, tally: _Tally) -> dict[str, str]:
        """The recipients that can be asked about, with their form on the wire; the others are refused here."""
        paths = {}
        for recipient in tally.recipients:
            path = envelope.mailbox(recipient)
            if path is None:
                tally.settle([recipient], envelope.BAD_RECIPIENT, Phase.RECIPIENT)
            elif not path.isascii() and "smtputf8" not in self._smtp.esmtp_extensions:
                tally.settle([recipient], envelope.NO_UTF8, Phase.RECIPIENT)
            else:
                paths[recipient] = path
        return paths

    async def _data(self, tally: _Tally, content: Payload) -> SendResult:
        answer = await self._command(b"DATA")
        if answer.code != 354:
            tally.settle(tally.open, answer, Phase.DATA)
            return tally.result(answer)
        await self._smtp.wire.write(content.data, self._patience.block)
        self.in_doubt = True
        try:
            answer = reply(*await self._smtp.wire.converse(envelope.END, self._patience.final))
            if 300 <= answer.code < 400:
                self._smtp.wire.close()
                raise Fault(FaultKind.PROTOCOL, "The mail server asked for more after the end of the message.")
        except Fault as fault:
            log.warning("smtp.in_doubt", recipients=len(tally.accepted), reason=fault.reason)
            return SendResult((), tally.refused, tally.deferred, tuple(tally.accepted), None, fault)
        self.in_doubt = False
        self._begun = False
        if answer.code == 421:
            self._smtp.wire.close()
        if not answer.positive:
            tally.settle(tally.open, answer, Phase.DATA)
        return tally.result(answer, taken=answer.positive)

    async def _reset(self) -> None:
        """Forget a transaction that was begun and not finished (RSET); done only when the next one begins."""
        if self._begun:
            answer = await self._command(b"RSET")
            if not answer.positive:
                raise judge(answer, Phase.SENDER)
        self._begun = True

    async def _mail(self, sender: str, options: list[str], encoding: str) -> Reply:
        try:
            response = await self._smtp.mail(sender, options=options, encoding=encoding)
        except aiosmtplib.SMTPSenderRefused as exc:
            return reply(exc.code, exc.message)
        except aiosmtplib.SMTPServerDisconnected:
            raise _gone() from None
        return reply(*response)

    async def _rcpt(self, path: str, encoding: str) -> Reply:
        try:
            response = await self._smtp.rcpt(path, encoding=encoding)
        except aiosmtplib.SMTPRecipientRefused as exc:
            return reply(exc.code, exc.message)
        except aiosmtplib.SMTPServerDisconnected:
            raise _gone() from None
        return reply(*response)

    async def _command(self, command: bytes) -> Reply:
        try:
            return reply(*await self._smtp.execute_command(command))
        except aiosmtplib.SMTPServerDisconnected:
            raise _gone() from None


def _closing(answer: Reply) -> Reply:
    """What ended the transaction under recipients of whom it was not said."""
    return answer if answer.temporary else Reply(421, "4.3.0", "The server closed the connection.", local=True)


def _gone() -> Fault:
    return Fault(FaultKind.LOST, "The connection to the mail server is closed.")
