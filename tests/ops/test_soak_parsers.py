"""The campaign against parsers: its cases follow from the seed, its measure notices what it must, its short form."""

import random
from contextlib import suppress

import pytest

from ops.soak import parsers_measure
from ops.soak.parsers_corpora import corpora
from ops.soak.parsers_inputs import MOST, Corpus, case, pattern
from ops.soak.parsers_measure import Told, alarmed, growth, memory, one, put

CORPUS = Corpus((b"* 5 FETCH (UID 7)\r\n", b"a (b) 12\r\n"), (b"(", b")", b"a "))


def test_the_seed_makes_the_cases():
    def made(seed):
        rng = random.Random(seed)
        return [case(rng, CORPUS) for _ in range(300)]

    assert made(1) == made(1) != made(2)
    assert all(len(data) <= MOST for data in made(3))
    assert len(set(made(1))) > 250


def test_every_language_has_its_corpus():
    for name, corpus in corpora([b"* OK hello\r\n"]).items():
        assert corpus.real, name
        assert corpus.words, name
        rng = random.Random(name)
        for _ in range(50):
            case(rng, corpus)
            assert pattern(rng, corpus)[1]


async def test_a_surprise_is_noticed_and_a_quiet_case_is_none():
    def parser(data, _rng):
        if data == b"x":
            raise KeyError("here")

    told = Told()
    with alarmed():
        await one(told, parser, b"y", 1)
        assert told.problems == {}
        await one(told, parser, b"x", 1)
    [sentence] = told.problems.values()
    assert "KeyError at parser" in sentence
    assert "b'x'" in sentence
    assert told.cases == 2


async def test_a_case_that_hangs_is_ended(monkeypatch):
    monkeypatch.setattr(parsers_measure, "HANGS", 0.2)

    async def parser(data, _rng):
        while True:
            with suppress(Exception):
                data += data[:1]

    with alarmed():
        _, problem = await put(parser, b"x", 1)
    assert problem == "hung for 0.2 s"


async def test_memory_that_does_not_follow_the_input_is_noticed():
    told = Told()
    with alarmed():
        await memory(told, lambda data, _rng: None, bytes(5000), 1)
        assert told.problems == {}
        await memory(told, lambda data, _rng: bytearray(1 << 22) and None, bytes(5000), 1)
    assert list(told.problems) == ["memory"]
    assert told.memory > 800


@pytest.mark.parametrize(("power", "noticed"), [(1, False), (2, True)])
async def test_work_that_is_not_linear_is_noticed(monkeypatch, power, noticed):
    """Told by a clock of the test's: the work of a case is the power of its length."""
    spent = 0.0

    def parser(data, _rng):
        nonlocal spent
        spent += (len(data) / 4096) ** power

    monkeypatch.setattr(parsers_measure.time, "thread_time", lambda: spent)
    told = Told()
    with alarmed():
        await growth(told, parser, CORPUS, random.Random(1), 4096)
    assert bool(told.problems) is noticed
