"""The campaigns against the API: short forms of them, and that they notice what must not be."""

import json
import random
from dataclasses import replace
from types import SimpleNamespace

import pytest

from control_api.web import HEADERS
from ops.soak.http import cases, growth
from ops.soak.http_answers import Answer, NotHttp, answers, wrong
from ops.soak.http_cases import CANARY, MUTATIONS, Material
from ops.soak.http_daemon import complaints
from ops.soak.http_framing import FRAMING, SLOW
from ops.soak.http_targets import TARGETS
from ops.soak.samples import Sample

ENVELOPE = {"success": False, "error": "No.", "code": "no"}


def response(status, body=b"", *headers, **more):
    fields = {"content-type": "application/json", "cache-control": "no-store", "content-length": str(len(body))} | more
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in fields.items()), *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def only(data):
    [answer] = answers(data, to_head=False)
    return answer


def test_answers_are_taken_apart():
    refusal = json.dumps(ENVELOPE).encode()
    data = b"HTTP/1.1 100 \r\n\r\n" + response(404, refusal) + response(200, b"{}")
    assert [(answer.status, answer.body) for answer in answers(data, to_head=False)] == [
        (100, b""), (404, refusal), (200, b"{}")]
    data = response(404, **{"content-length": "99"}) + response(204)
    assert [answer.status for answer in answers(data, to_head=True)] == [404, 204]


@pytest.mark.parametrize("data", [
    b"hello", b"HTTP/1.1 200 OK\r\n", response(200, b"{}")[:-1], response(200, b"{}") + b"x",
    response(200, b"{}", "content-length: 2"), response(200, b"{}", **{"content-length": "-2"}),
    response(200, b"{}", "transfer-encoding: chunked"), b"HTTP/1.1 200 OK\r\nX: \xff\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/2 200\r\ncontent-length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n",
])
def test_what_is_no_whole_answer_is_noticed(data):
    with pytest.raises(NotHttp):
        list(answers(data, to_head=False))


@pytest.mark.parametrize(("data", "word"), [
    (response(500, json.dumps(ENVELOPE).encode()), "status 500"),
    (response(503, json.dumps(ENVELOPE).encode()), "status 503"),
    (response(101), "status 101"),
    (response(302, b"<html>"), "status 302"),
    (response(400, b"<html>"), "without JSON"),
    (response(400, b"[]"), "without an envelope"),
    (response(400), "without JSON"),
    (response(400, b'{"success": false, "error": ""}'), "poor envelope"),
    (response(400, json.dumps(ENVELOPE).encode(), **{"content-type": "text/html"}), "status 400 with"),
    (response(400, json.dumps(ENVELOPE | {"error": CANARY}).encode()), "own words"),
    (response(200, b"{}", f"x: {CANARY}"), "own words"),
])
def test_what_an_api_must_not_say_is_noticed(data, word):
    assert word in wrong(only(data))


def test_what_an_api_may_say():
    assert wrong(only(response(400, json.dumps(ENVELOPE).encode()))) is None
    assert wrong(only(response(501, json.dumps(ENVELOPE).encode()))) is None
    assert wrong(Answer(204, {}, b"")) is None
    assert wrong(only(response(404)), to_head=True) is None
    assert HEADERS["Cache-Control"] == "no-store"


def test_the_seed_makes_the_cases():
    def made(seed):
        return cases(Material(random.Random(seed), "a.b.c"), 2000, quick=False)

    first = made(1)
    assert first == made(1) != made(2)
    assert {case.kind for case in first} == {*FRAMING, *TARGETS, *MUTATIONS, *SLOW}
    assert not {case.kind for case in cases(Material(random.Random(1), "a.b.c"), 300, quick=True)} & {*SLOW}


SAMPLE = Sample(at=1.0, pid=7, rss_mib=100, descriptors=20, threads=4, connections=4, tasks=30)


@pytest.mark.parametrize(("before", "after", "found"), [
    (SAMPLE, SAMPLE, 0),
    (None, SAMPLE, 0),
    (SAMPLE, None, 1),
    (SAMPLE, replace(SAMPLE, rss_mib=149), 1),
    (SAMPLE, replace(SAMPLE, tasks=35, connections=9, descriptors=25, threads=9), 4),
])  # fmt: skip
def test_what_a_listener_holds_on_to_is_noticed(before, after, found):
    assert len(growth(before, after)) == found


def test_words_of_an_orderly_shutdown_are_no_error(tmp_path):
    log = tmp_path / "log"
    ours = {"level": "error", "event": "api.unhandled"}
    theirs = {"level": "error", "event": "postgres.log", "text": "terminating connection due to administrator command"}
    log.write_text("\n".join(map(json.dumps, [theirs, ours, {"level": "info", "event": "x"}])))
    [told] = complaints(SimpleNamespace(log=log))
    assert "api.unhandled" in told
