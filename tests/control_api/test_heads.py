"""The head of a request, judged by pure rules."""

import pytest

from control_api.heads import origin_form, problem

SHAKE = [(b"upgrade", b"WebSocket"), (b"connection", b"keep-alive, Upgrade"), (b"sec-websocket-key", b"a2V5"),
         (b"sec-websocket-version", b"13")]


@pytest.mark.parametrize(("target", "expected"), [
    (b"/x?y", b"/x?y"), (b"*", b"*"), (b"http://h/x?y", b"/x?y"), (b"HTTPS://h:1/", b"/"), (b"http://h", b"/"),
    (b"http://h?x", b"/?x"), (b"http:///x", b"http:///x"), (b"ftp://h/x", b"ftp://h/x"), (b"h:443", b"h:443"),
])
def test_origin_form(target, expected):
    assert origin_form(target) == expected


@pytest.mark.parametrize(("version", "headers", "expected"), [
    (b"1.1", [], None), (b"1.0", [], None), (b"2.0", [], 505), (b"0.9", [], 505),
    (b"1.1", [(b"content-length", b"1")], None),
    (b"1.1", [(b"content-length", b"1"), (b"transfer-encoding", b"chunked")], 400),
    (b"1.1", SHAKE, None), (b"1.0", SHAKE, 400), (b"1.1", SHAKE[:3], 400), (b"1.1", SHAKE[:2] + SHAKE[3:], 400),
    (b"1.1", SHAKE[:1] + SHAKE[2:], None),      # no upgrade is asked for: an ordinary request
    (b"1.1", [*SHAKE, (b"sec-websocket-extensions", b"\xff")], 400),
    (b"1.1", [(b"cookie", b"\xff")], None),
])
def test_problems(version, headers, expected):
    assert problem(b"GET", version, headers) == expected


def test_only_get_opens_a_websocket():
    assert problem(b"POST", b"1.1", SHAKE[:2]) is None
