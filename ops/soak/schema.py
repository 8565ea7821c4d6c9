"""`schema`: Schemathesis reads /mail/openapi.json of a real daemon and looks for an answer that it does not promise.

With the sessions of an owner who has accounts at a real Dovecot, of an admin and a member to whom they share some, and
of a stranger; all know all ids, and each asks for any others, too.  Names are looked up at a name server of ours that
knows none, so that no generated host is ever asked for.  What must hold: no 5xx, no status that is not documented,
every answer as its schema says, and in the end the same process without an error in its log.  Besides:

- the owner is served by each operation at least once: what always says no has not been tried;
- no answer to the stranger holds a word of the others', and their rows are afterwards what they were;
- who comes too often hears how long to wait.

`schema_world` is what there is to be asked for, `schema_answers` reads what was answered.  Schemathesis runs as a
program of its own: its command line and its reports are what it promises to keep.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
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
from .http_daemon import COOKIE, complaints, give_secret, listening, ready, token
from .life import ended, fill, opened
from .schema_answers import Answers, Route
from .schema_world import ADMIN, MEMBER, OWNER, STRANGER, Mailboxes, World

CHECKS: Final = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "missing_required_header", "unsupported_method", "allow_header_conformance",
    "ignored_auth",
)  # fmt: skip
"""Those that an API can fail which connects to servers that are not there: what is refused as data is our business."""

UNTENDED: Final = "use_after_free"
"""A check for a world in which nobody brings back what was taken away."""

LEFT_OUT: Final = "startSync"
QUICK: Final = ("--phases", "fuzzing", "--max-examples", "8", "--exclude-operation-id", LEFT_OUT)
"""A fixed number of cases, for within a few seconds a machine that is busy may not even have read the document; and
not the one operation that waits, up to 10 s, for what it asks for."""

CASES: Final = 200
"""Generated requests an operation and round; more rounds until the time is over."""

ENDS_WITHIN: Final = 120.0
"""Seconds beyond its time that one run of Schemathesis may take: it ends what it has begun, and shrinks."""

MAX_OUTPUT: Final = 4000
"""Characters of its words kept where it fails."""

PASSWORD: Final = "schema-password"  # noqa: S105  # of servers that end with the campaign

ADDRESS: Final = "127.0.0.1"
"""Where the mail servers are: their certificates name it, and no name server is asked."""

OFTEN: Final = 0.85
"""How often a value is one that there is, and not a generated one."""

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
TURNS_QUICK: Final = (Turn(OWNER, 1), Turn(STRANGER, 1, tended=False))


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
    config, summary, lines = (directory / name for name in ("schemathesis.toml", "report.json", "lines.ndjson"))
    config.write_text(configured(stage.world) if turn.known else "", "utf-8")
    size = QUICK if found.options.quick else ("--max-time", str(seconds), "--max-examples", str(CASES))
    only = [part for name in turn.only for part in ("--include-operation-id", name)]
    checks = CHECKS if turn.tended else (*CHECKS, UNTENDED)
    seed = found.options.seed + number
    command = [
        sys.executable, "-P", "-m", "schemathesis.cli", "--config-file", str(config), "--no-color", "run",
        f"http://127.0.0.1:{stage.api}/mail/openapi.json", "--header", f"Cookie:{COOKIE}={token(turn.user)}",
        "--checks", ",".join(checks), *size, *only, "--seed", str(seed), "--request-timeout", "90",
        "--continue-on-failure", "--report", "json,ndjson", "--report-json-path", str(summary),
        "--report-ndjson-path", str(lines), "--workers", "2", "--warnings", "off",
    ]  # fmt: skip
    report = found.report
    with trio.move_on_after(seconds + ENDS_WITHIN) as scope:
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False, cwd=directory)
        if done.returncode:
            words = (done.stdout + done.stderr).decode(errors="replace")
            report.problem(f"Schemathesis, seed {seed}, {turn.name}: {words[-MAX_OUTPUT:]}")
    if scope.cancelled_caught:
        report.problem(f"Schemathesis did not end within {seconds + ENDS_WITHIN:g} s")
    answers = Answers(stage.routes)
    never = stage.world.secrets() if turn.user == STRANGER else ()
    await trio.to_thread.run_sync(answers.read, lines, never)
    for fault in answers.faults:
        report.problem(f"{turn.name}: {fault}")
    everything = found.served.setdefault(turn.user, Answers(stage.routes))
    everything.add(answers)
    found.turns.append({"turn": turn.name, **_summary(report, summary), "operations": answers.figures()})


def configured(world: World) -> str:
    """Schemathesis's configuration of somebody who knows the ids."""
    accounts = [str(account.id) for account in [*world.accounts, world.strangers]]
    connected = [f"connected{number}@example.test" for number in range(20)]
    mailboxes = world.mailboxes
    values: dict[str, list[str] | list[int]] = {
        "accounts": accounts,
        "expendable": [str(account.id) for account in world.expendable],
        "invitations": sorted(world.invitations),
        "received": sorted(world.received),
        "people": [ADMIN, MEMBER],
        "guests": [f"guest{number}@x.test" for number in range(20)],
        "campaigns": world.campaigns,
        "tls": ["tls"],
        "imap_host": [mailboxes.imap.host],
        "imap_port": [mailboxes.imap.port],
        "smtp_host": [mailboxes.smtp.host],
        "smtp_port": [mailboxes.smtp.port],
        "mailboxes": connected,
        "usernames": [*connected, *(account.username for account in world.shared)],
        "password": [mailboxes.password],
    }
    text = "".join(f"[dictionaries.{name}]\nvalues = {json.dumps(some)}\n" for name, some in values.items())
    known = {
        "path.account_id": "accounts", "path.invitation_id": "invitations", "path.user_id": "people",
        "path.campaign_id": "campaigns", "body.account_id": "accounts", "body.invitation_id": "received",
        "body.email": "guests",
    }  # fmt: skip
    mailbox = {
        "body.email": "mailboxes",
        "body.imap_host": "imap_host", "body.imap_port": "imap_port", "body.imap_security": "tls",
        "body.smtp_host": "smtp_host", "body.smtp_port": "smtp_port", "body.smtp_security": "tls",
        "body.username": "usernames", "body.password": "password",
    }  # fmt: skip
    text += "[parameters]\n" + _bound(known, OFTEN)
    for name, also in (
        ("disconnectAccount", {"path.account_id": "expendable"}), ("connectAccount", mailbox),
        ("changeAccount", mailbox),
    ):  # fmt: skip
        text += f'[[operations]]\ninclude-operation-id = "{name}"\n[operations.parameters]\n'
        text += _bound(also, 1.0 if also is mailbox else OFTEN)
    return text


def _bound(names: Mapping[str, str], probability: float) -> str:
    return "".join(
        f'"{name}" = {{ dictionary = "{values}", probability = {probability} }}\n' for name, values in names.items()
    )


def _summary(report: Report, file: Path) -> dict[str, Any]:
    """What it did, by its own report; nothing tried is no success."""
    try:
        told = json.loads(file.read_bytes())
        figures = {name: told[name] for name in ("seed", "running_time", "stop_reason", "test_cases")}
        figures["phases"] = {name: phase["status"] for name, phase in told["phases"].items()}
        figures["operations"] = told["operations"]["tested"]
        tried = int(told["test_cases"]["generated"])
    except (OSError, ValueError, KeyError, TypeError) as exc:
        report.problem(f"Schemathesis left no report: {exc!r}")
        return {}
    if not tried:
        report.problem(f"Schemathesis tried nothing: {figures}")
    return figures
