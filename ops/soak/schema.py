"""`schema`: Schemathesis reads /mail/openapi.json of a real daemon and looks for an answer that it does not promise.

With the sessions of an owner who has accounts at a real Dovecot, of an admin and a member to whom they share some, and
of a stranger; all know all ids, and each asks for any others, too.  Names are looked up at a name server of ours that
knows none, so that no generated host is ever asked for.  What must hold: no 5xx, no status that is not documented,
every answer as its schema says, and in the end the same process without an error in its log.  Besides:

- the owner is served by each operation at least once: what always says no has not been tried;
- no answer to the stranger holds a word of the others', and their rows are afterwards what they were;
- who comes too often hears how long to wait.

`schema_world` is what there is to be asked for, `schema_asks` runs Schemathesis, `schema_answers` reads what was
answered.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

import httpx
import trio

from daemon.network import Endpoint, Security
from daemon.storage.database import Database
from ops.testservers.dovecot import Dovecot
from ops.testservers.dovecot_conf import DovecotOptions
from ops.testservers.smtp import SmtpOptions, SmtpServer
from ops.testservers.tls import Authority

from .campaign import Options, Report, Say
from .daemon_process import DaemonProcess
from .http_daemon import complaints, give_secret, listening, ready
from .life import ended, fill, opened
from .schema_answers import Answers, Route
from .schema_asks import LEFT_OUT, OFTEN, Asked, ask, configured, lines_of
from .schema_world import ADMIN, MEMBER, OWNER, STRANGER, Mailboxes, World

PASSWORD: Final = "schema-password"  # noqa: S105  # of servers that end with the campaign

ADDRESS: Final = "127.0.0.1"
"""Where the mail servers are: their certificates name it, and no name server is asked."""

PLENTY: Final[Mapping[str, object]] = dict.fromkeys(
    ("rates.connects", "rates.connects_per_host", "rates.connects_per_mailbox", "rates.connects_per_mailbox_of_all",
     "rates.changes", "rates.invitations"), 1_000_000,
)  # fmt: skip
SCARCE: Final[Mapping[str, object]] = {**PLENTY, "rates.connects": 4, "rates.changes": 4, "rates.invitations": 4}
"""So few that everybody comes too often."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Who asks for a while, and how."""

    user: str
    weight: float
    """How much of the time, beside the others."""
    known: bool = True
    """Whether they know the ids that there are."""
    tended: bool = True
    only: Sequence[str] = ()
    """Names of operations; all where there are none."""
    sure: bool = False
    """Whether they send only what should be served."""

    @property
    def name(self) -> str:
        """What it is called in the report."""
        return f"{self.user}, {'known' if self.known else 'any'} ids{'' if self.tended else ', untended'}"


TURNS: Final = (
    Turn(OWNER, 4), Turn(OWNER, 1, known=False), Turn(ADMIN, 1.5), Turn(MEMBER, 1.5),
    Turn(STRANGER, 3, tended=False), Turn(STRANGER, 1, known=False, tended=False), Turn(OWNER, 1, tended=False),
)  # fmt: skip
HURRIED: Final = Turn(OWNER, 1)
"""Asks where rates are scarce."""
TURNS_QUICK: Final = (Turn(OWNER, 1, sure=True), Turn(STRANGER, 1, tended=False))


async def no_names(*, task_status: trio.TaskStatus[int]) -> None:
    """A name server that knows no name; its port."""
    with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as sock:
        await sock.bind(("127.0.0.1", 0))
        task_status.started(sock.getsockname()[1])
        while True:
            query, peer = await sock.recvfrom(4096)
            if len(query) >= 12:  # RFC 1035 section 4.1.1: the same header, QR and RA set, and NXDOMAIN
                await sock.sendto(query[:2] + b"\x81\x83" + query[4:6] + b"\0" * 6 + _question(query), peer)


def _question(query: bytes) -> bytes:
    """The question of a query, without what may follow it (EDNS)."""
    end = query.find(b"\0", 12)
    return query[12 : end + 5] if end >= 0 else b""


@dataclass
class Stage:
    """A daemon that is asked, and its world."""

    daemon: DaemonProcess
    database: Database
    world: World
    api: int
    routes: Sequence[Route]


@dataclass
class Found:
    """What the campaign has seen so far."""

    report: Report
    options: Options
    say: Say
    turns: list[dict[str, Any]] = field(default_factory=list)
    served: dict[str, Answers] = field(default_factory=dict)
    """Answers by who asked."""


async def campaign(options: Options, say: Say) -> Report:
    """Run it."""
    report, authority = Report(), Authority()
    found = Found(report, options, say)
    mail = [f"schema{number}@example.test" for number in range(2)]
    unit = 60 * options.minutes / sum(turn.weight for turn in (*TURNS, HURRIED))
    with (
        Dovecot(DovecotOptions(password=PASSWORD), authority=authority) as dovecot,
        SmtpServer(SmtpOptions(password=PASSWORD), authority=authority) as smtp,
    ):
        await fill(dovecot, dict.fromkeys(mail, 20), 0, say)
        async with _staged(found, dovecot, smtp, mail, PLENTY) as stage:
            await _take_turns(found, stage, TURNS_QUICK if options.quick else TURNS, unit)
            for name, last in found.served[OWNER].never_served():
                if not options.quick or name != LEFT_OUT:
                    report.problem(f"{name} never served the owner, and said at last {last!r}")
        if not options.quick:
            async with _staged(found, dovecot, smtp, mail, SCARCE) as stage:
                await _come_too_often(found, stage, unit)
    report.figures = {"minutes": options.minutes, "rounds": found.turns}
    return report


@asynccontextmanager
async def _staged(
    found: Found, dovecot: Dovecot, smtp: SmtpServer, mail: Sequence[str], rates: Mapping[str, object]
) -> AsyncIterator[Stage]:
    """A daemon with the world; it must end in order."""
    ports = {"network.ports": f"{dovecot.imaps_port},{smtp.tls_port}"}
    async with trio.open_nursery() as nursery:
        names = await nursery.start(no_names)
        async with DaemonProcess(
            port=dovecot.imaps_port, ca=dovecot.ca_pem, nameservers=(f"127.0.0.1:{names}",),
            settings={**ports, **rates},
        ) as daemon:  # fmt: skip
            give_secret(daemon)
            await trio.to_thread.run_sync(daemon.start)
            api, operations = await listening(daemon)
            await ready(operations)
            mailboxes = Mailboxes(
                daemon.vault,
                Endpoint(ADDRESS, dovecot.imaps_port, Security.TLS),
                Endpoint(ADDRESS, smtp.tls_port, Security.TLS),
                PASSWORD,
            )
            world = World(mailboxes, mail)
            async with opened(daemon.conninfo) as database:
                await database.run(world.tend)
                async with httpx.AsyncClient() as client:
                    document = (await client.get(f"http://127.0.0.1:{api}/mail/openapi.json")).json()
                yield Stage(daemon, database, world, api, Route.of(document))
            await ended(daemon, found.report, told=complaints)
        nursery.cancel_scope.cancel()


async def _take_turns(found: Found, stage: Stage, turns: Sequence[Turn], unit: float) -> None:
    """One after the other, each with so many times *unit* seconds as it weighs."""
    for number, turn in enumerate(turns):
        seconds = max(1, round(unit * turn.weight))
        found.say(f"{turn.name}: {seconds} s")
        before = await stage.world.rows(stage.database)
        async with trio.open_nursery() as nursery:
            if turn.tended:
                await nursery.start(stage.world.tended, stage.database)
            await _turn(found, stage, turn, number, seconds)
            nursery.cancel_scope.cancel()
        if turn.user == STRANGER:
            after = await stage.world.rows(stage.database)
            for table in before:
                if changed := sorted({*map(repr, before[table])} ^ {*map(repr, after[table])}):
                    found.report.problem(f"the stranger changed {table}: {changed[:4]}")


async def _come_too_often(found: Found, stage: Stage, unit: float) -> None:
    """What has a rate, more often than that allows."""
    limited = [route.name for route in stage.routes if route.limited]
    await _take_turns(found, stage, [replace(HURRIED, only=limited)], unit)
    for name in limited:
        if not found.turns[-1]["operations"].get(name, {}).get("429"):
            found.report.problem(f"{name} was never refused for its rate")


async def _turn(found: Found, stage: Stage, turn: Turn, number: int, seconds: int) -> None:
    """One run of Schemathesis; what it says it did, and what was answered."""
    directory = stage.daemon.directory / f"schemathesis-{number}"
    directory.mkdir()
    asked = Asked(
        turn.user, stage.api, found.options.seed + number, seconds, quick=found.options.quick,
        configuration=configured(stage.world, turn.user, 1.0 if turn.sure else OFTEN) if turn.known else "",
        untended=not turn.tended, sure=turn.sure, only=turn.only,
    )  # fmt: skip
    report, answers = found.report, Answers(stage.routes)
    figures = await ask(report, directory, asked, turn.name)
    never = stage.world.secrets() if turn.user == STRANGER else ()
    if lines_of(directory).exists():
        await trio.to_thread.run_sync(answers.read, lines_of(directory), never)
    for fault in answers.faults:
        report.problem(f"{turn.name}: {fault}")
    found.served.setdefault(turn.user, Answers(stage.routes)).add(answers)
    found.turns.append({"turn": turn.name, **figures, "operations": answers.figures()})
