"""Cookies, origins, media types, proxies, places: the small pure rules."""

import ipaddress

import pytest

from control_api.cookies import DuplicateCookie, session_token
from control_api.errors import Busy, BusyCaller, rate_headers
from control_api.limits import Gate
from control_api.origins import Origins, has_body, is_json
from control_api.proxies import client_address
from daemon.identity.rates import Allowance, Rate

LISTED = "https://app.example.com"
ORIGINS = Origins.of(["HTTPS://App.Example.com", "http://localhost:3000"])


@pytest.mark.parametrize(("headers", "token"), [
    ([], None), (["a=b"], None), (["sb-access-token=x.y.z"], "x.y.z"), (["a=b; sb-access-token=x ; c"], "x"),
    (["sb-access-token="], None), (["sb-access-token"], None), (["SB-ACCESS-TOKEN=x"], None),
    (["a=b", "sb-access-token=t"], "t"), (["xsb-access-token=1; sb-access-token=2"], "2"),
    (["sb-access-token=a=b"], "a=b"),
])
def test_session_cookie(headers, token):
    assert session_token(headers) == token


@pytest.mark.parametrize("headers", [
    ["sb-access-token=a; sb-access-token=b"], ["sb-access-token=a", "sb-access-token=a"],
    ["sb-access-token=; sb-access-token=b"],
])
def test_two_session_cookies_are_none_of_them(headers):
    with pytest.raises(DuplicateCookie):
        session_token(headers)


@pytest.mark.parametrize(("site", "origin", "forged"), [
    ([], [], False),                                        # curl
    (["same-origin"], [], False), (["none"], [], False), (["same-origin"], ["https://else.example"], False),
    (["same-site"], [], True), (["cross-site"], [], True), (["cross-site"], ["https://evil.example"], True),
    (["cross-site"], [LISTED], False), (["same-site"], [LISTED], False), (["cross-site"], ["null"], True),
    ([], [LISTED], False), ([], ["http://localhost:3000"], False), ([], ["null"], True), ([], [""], True),
    ([], ["https://app.example.com.evil.example"], True), ([], ["http://app.example.com"], True),
    ([], [LISTED, "https://evil.example"], True), ([], [LISTED, LISTED], True),
    (["something-new"], [], True), (["something-new"], [LISTED], False), (["SAME-ORIGIN"], [], True), ([""], [], True),
    (["same-origin", "cross-site"], [], True), (["none, cross-site"], [], True),
])
@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "PATCH", "BREW"])
def test_forgery(method, site, origin, forged):
    assert ORIGINS.forged(method, site, origin) is forged


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_safe_methods_are_nobodys_forgery(method):
    assert not ORIGINS.forged(method, ["cross-site"], ["https://evil.example"])


def test_cors_is_for_listed_origins_alone_and_never_for_all():
    assert ORIGINS.cors_headers(["https://evil.example"]) == {}
    assert ORIGINS.preflight_headers([LISTED, LISTED], ["GET"]) == {}
    headers = ORIGINS.cors_headers([LISTED])
    assert headers["Access-Control-Allow-Origin"] == LISTED
    assert headers["Access-Control-Allow-Credentials"] == "true"
    told = Allowance(Rate("change.user", 2, 60.0), 1, 1_800_000_000)
    assert {"Retry-After", *rate_headers(told)} == set(headers["Access-Control-Expose-Headers"].split(", "))


@pytest.mark.parametrize(("length", "coding", "body"), [
    (None, None, False), ("0", None, False), ("00", None, False), ("1", None, True), ("10", None, True),
    ("x", None, True), (None, "chunked", True), ("0", "chunked", True),
])
def test_has_body(length, coding, body):
    assert has_body(length, coding) is body


@pytest.mark.parametrize(("value", "json"), [
    ("application/json", True), ("Application/JSON; charset=utf-8", True), ("application/json;x", True),
    (None, False), ("", False), ("text/plain", False), ("application/problem+json", False),
    ("text/plain; application/json", False), ("application/jsonp", False), ("application/x-www-form-urlencoded", False),
])
def test_media_type(value, json):
    assert is_json(value) is json


TRUSTED = [ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("fd00::/8")]


@pytest.mark.parametrize(("peer", "forwarded", "client"), [
    ("198.51.100.1", ["203.0.113.9"], "198.51.100.1"),      # not a proxy of ours: it may claim what it likes
    ("127.0.0.1", [], "127.0.0.1"), ("127.0.0.1", ["203.0.113.9"], "203.0.113.9"),
    ("127.0.0.1", ["6.6.6.6, 203.0.113.9"], "203.0.113.9"), ("127.0.0.1", ["6.6.6.6", "203.0.113.9"], "203.0.113.9"),
    ("127.0.0.1", ["203.0.113.9, 127.0.0.5"], "203.0.113.9"), ("127.0.0.1", ["203.0.113.9, rubbish"], "127.0.0.1"),
    ("127.0.0.1", [""], "127.0.0.1"), ("::ffff:127.0.0.1", ["203.0.113.9"], "203.0.113.9"),
    ("fd00::1", ["2001:db8::9"], "2001:db8::9"), ("", ["203.0.113.9"], ""),
    ("127.0.0.1", ["fe80::1%" + "z" * 300], "fe80::1"),     # a zone may be any text
    ("127.0.0.1", ["1.1.1.1," + "127.0.0.1," * 50 + "127.0.0.1"], "127.0.0.1"),
])
def test_client_address(peer, forwarded, client):
    assert client_address(peer, forwarded, TRUSTED) == client


def test_places_are_given_back_and_refused_beyond_the_bound():
    gate = Gate(2, per_caller=1)
    with gate.request(), gate.request(), pytest.raises(Busy), gate.request():
        pass
    with gate.caller("a"), gate.caller("b"), pytest.raises(BusyCaller), gate.caller("a"):
        pass
    with gate.request(), gate.caller("a"):
        assert gate.statistics() == {"under_way": 1, "most_under_way": 2, "callers": 1, "refused": 2}
    assert gate.statistics()["callers"] == 0
