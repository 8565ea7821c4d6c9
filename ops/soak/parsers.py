"""`parsers`: generated inputs for everything that reads a stranger's bytes; none may be answered by a surprise.

    corpora (parsers_corpora: a real Dovecot's answers, generated mail, examples)
      ──► cases (parsers_inputs: changed, strung together, repeated)
        ──► parsers (parsers_mail, parsers_web) ──► measured (parsers_measure)

What must hold: only the declared errors come out, results keep their promises, no case hangs, memory is bounded by the
input's length, and an input four times as long takes about four times as long.
"""

from __future__ import annotations

import random
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from . import parsers_mail as mail
from . import parsers_web as web
from .campaign import Options, Report, Say
from .parsers_corpora import corpora, dovecot_says
from .parsers_inputs import Corpus, case
from .parsers_measure import Parser, Told, alarmed, growth, memory, one

MEMORY_EVERY: Final = 25
"""One case in so many is watched for its memory, which makes it several times slower."""

GROWTH_EVERY: Final = 60
"""One case in so many is a pair of which the second is longer."""

SIZES: Final = (4 << 10, 16 << 10, 64 << 10)
"""Bytes of the shorter of the two."""

NAMES_EVERY: Final = 100
"""One look-up for so many cases: those that are not believed take the resolver's five seconds."""

NAMES_AT_ONCE: Final = 64
ANSWERED_WITHIN: Final = 30.0
"""Seconds for one of them, on a machine that others use too."""


@dataclass(frozen=True, slots=True)
class Target:
    """A parser and what it is given."""

    parser: Parser
    corpus: str
    share: int
    """Of the cases, among those of all."""
    linear: bool = True
    """Whether its work must be."""


TARGETS: Final = {
    "IMAP values and FETCH": Target(mail.imap_values, "imap", 6),
    "IMAP news": Target(mail.imap_news, "imap", 3),
    "IMAP SELECT": Target(mail.imap_selected, "imap", 2),
    "IMAP SEARCH": Target(mail.imap_search, "imap", 2),
    "IMAP words": Target(mail.imap_words, "imap", 2),
    "IMAP session": Target(mail.imap_session, "imap", 4),
    "SMTP replies": Target(mail.smtp_replies, "smtp", 3),
    "SMTP session": Target(mail.smtp_session, "smtp", 3),
    "headers": Target(mail.mail_headers, "mail", 5),
    "messages to store": Target(mail.mail_stored, "mail", 3),
    "messages to send": Target(mail.mail_payload, "mail", 1),
    "addresses": Target(mail.mail_addresses, "address", 4),
    "HTTP heads": Target(web.http_heads, "head", 4),
    "cookies": Target(web.cookies, "cookie", 1),
    "tokens": Target(web.tokens, "token", 2),
    "claims": Target(web.claims, "claims", 2),
    "key sets": Target(web.key_sets, "keys", 2),
    "bodies": Target(web.bodies, "json", 2),
    "hosts": Target(web.hosts, "host", 2),
    "settings": Target(web.Settings.read, "toml", 1, linear=False),  # the operator's; tomllib squares a key's dots
}


async def campaign(options: Options, say: Say) -> Report:
    """Run it."""
    report = Report()
    say("asking a Dovecot")
    given = corpora(await trio.to_thread.run_sync(dovecot_says))
    whole = sum(target.share for target in TARGETS.values())
    figures = {}
    with alarmed(), tempfile.TemporaryDirectory() as directory:
        web.Settings.file = Path(directory, "case.toml")
        for number, (name, target) in enumerate(TARGETS.items()):
            count = max(1, options.points * target.share // whole)
            rng = random.Random(f"{options.seed}.{number}")  # noqa: S311  # repeatable, not secret
            told = await _target(target, given[target.corpus], rng, count, quick=options.quick)
            figures[name] = _booked(report, name, told)
            say(f"{name}: {told.cases} cases in {told.seconds:.1f} s")
    names = Told()
    await _names(names, given["dns"], options)
    figures["DNS answers"] = _booked(report, "DNS answers", names)
    report.figures = {"cases": sum(int(each["cases"]) for each in figures.values()), "parsers": figures}
    return report


async def _target(target: Target, corpus: Corpus, rng: random.Random, count: int, *, quick: bool) -> Told:
    """Put so many cases to a parser."""
    told, parser = Told(), target.parser
    for number in range(count):
        if target.linear and number % GROWTH_EVERY == GROWTH_EVERY - 1:
            await growth(told, parser, corpus, rng, SIZES[0] if quick else rng.choice(SIZES))
        elif number % MEMORY_EVERY == MEMORY_EVERY - 1:
            await memory(told, parser, case(rng, corpus), rng.getrandbits(32))
        else:
            await one(told, parser, case(rng, corpus), rng.getrandbits(32))
        if number % 100 == 0:
            await trio.lowlevel.checkpoint()
    return told


async def _names(told: Told, corpus: Corpus, options: Options) -> None:
    """Hostile answers to look-ups, many at once, for some are waited for."""
    names, rng = web.Names(), random.Random(options.seed)  # noqa: S311  # repeatable, not secret
    limiter = trio.CapacityLimiter(NAMES_AT_ONCE)

    async def look_up(number: int, data: bytes) -> None:
        async with limiter:
            told.cases += 1
            try:
                with trio.fail_after(ANSWERED_WITHIN):
                    await names.look_up(number, data)
            except Exception as exc:  # noqa: BLE001  # whatever comes out is what is looked for
                told.problems.setdefault(type(exc).__name__, f"{exc!r} after {data[:400]!r}")

    async with trio.open_nursery() as server:
        await server.start(names.serve)
        async with trio.open_nursery() as clients:
            for number in range(max(8, options.points // NAMES_EVERY)):
                clients.start_soon(look_up, number, case(rng, corpus, 4000))
        server.cancel_scope.cancel()


def _booked(report: Report, name: str, told: Told) -> dict[str, float]:
    for problem in told.problems.values():
        report.problem(f"{name}: {problem}")
    return {
        "cases": told.cases,
        "seconds": round(told.seconds, 1),
        "slowest_ms": round(1000 * told.slowest, 1),
        "bytes_held_per_byte": round(told.memory, 1),
        "times_longer_for_4": round(told.growth, 1),
    }
