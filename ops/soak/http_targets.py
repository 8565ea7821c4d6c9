"""Classes of malformed requests: methods, targets, headers, cookies, tokens and JSON."""

from __future__ import annotations

import base64
import json
from typing import Any, Final

import jwt

from .http_cases import CANARY, Make, Material
from .http_daemon import SECRET, claims

_METHODS: Final = ("CONNECT", "TRACE", "TRACK", "PUT", "PATCH", "PROPFIND", "get", "GeT", "!#$%&'*+-.^_`|~",
    "G\x00T", "GÉT", "", "G T",
    "OPTIONS", "HEAD", "DELETE", "\x7f", "GET/", "(GET)", "X" * 300)  # fmt: skip
_PIECES: Final = ("/", "//", "///", "/.", "/..", "/../", "%2e%2e", "%2f", "%00", "%0d%0a", "%", "%z", "%ff",
    "%c0%ae", "%ed%a0%80", "%f4%90%80%80",
    "mail", "accounts", "sync", "docs", "openapi.json", "metrics", "health", "é", "😀", "\ud83d", "\\", ";a=b", "?",
    "??", "#", "#x", "*",
    "@", ":", ":80", "http:", "http://", "[", "]", "[::1]", " ", "\t", "|", "<script>", "'", '"', "{}", "\x7f", CANARY,
    "0189f7ea-0000-7000-8000-000000000000", "null", "-1", "1e400", "\u202e", "&", "=", "+")  # fmt: skip
_WHOLE: Final = ("*", "/", "", "//", "evil.example:443", "http://", "http://[", "http://[::1", "http://evil.example",
    "https://evil.example/mail/accounts",
    "http://user:pass@evil.example/mail/accounts", "ftp://evil.example/", "javascript:alert(1)",
    "file:///etc/passwd", "//evil.example/mail/accounts",
    "http:///mail/accounts", "HTTP://LOCALHOST/mail/sync", "http://a b/", "/mail/accounts/%00",
    "/mail/docs/..%2f..%2f..%2fetc/passwd",
    "/mail/docs/%2e%2e/%2e%2e/pyproject.toml", "/mail/accounts/" + "0" * 32,
    "/mail/accounts/{account_id}")  # fmt: skip
_NAMES: Final = ("Host", "Cookie", "Content-Type", "Content-Length", "Origin", "Sec-Fetch-Site", "X-Forwarded-For",
    "Forwarded", "Connection",
    "Keep-Alive", "Proxy-Connection", "TE", "Upgrade", "Via", "Range", "If-None-Match", "Accept", "Accept-Encoding",
    "Authorization",
    "Max-Forwards", "X-HTTP-Method-Override", "X-Original-URL", "Content-Encoding", "Date", "Expect", "Trailer",
    "Host ", " Host", "Ho st",
    "", ":", "\x00", "X\x00", "É", "(x)", "x" * 2000, "__proto__")  # fmt: skip
_VALUES: Final = ("", " ", "a", "null", "*", "close", "keep-alive", "close, upgrade", "\x00", "\x01", "\x7f",
    "\xff\xfe", "a\rb", "a\nb", "a\r\nX: y", "é",
    "😀", "\ud83d", "," * 3000, ";" * 3000, "=" * 3000, '"' * 999, "\\" * 999, "(" * 3000, "127.0.0.1",
    "127.0.0.1, " * 500, "::1%eth0", "0x7f.1",
    "999.999.999.999", "http://evil.example", "null, null", "same-origin, cross-site", "bytes=0-,0-,0-",
    "application/json; charset=\xff",
    "application/json; charset=utf-7", "application/json; charset=rot13", "multipart/form-data",
    "multipart/form-data; boundary=" + "x" * 999,
    "application/x-www-form-urlencoded", "text/plain", "gzip", "-1", "1e400", "9" * 400, CANARY,
    "%s%n{0}{{7*7}}${7*7}")  # fmt: skip


def _methods(m: Material) -> bytes:
    body = b"{}" if m.rng.random() < 0.3 else b""
    target = m.rng.choice(("/mail/accounts", "*", "/", "evil.example:443", "/mail/sync"))
    return m.request(m.rng.choice(_METHODS), target, body=body)


def _targets(m: Material) -> bytes:
    target = m.rng.choice(_WHOLE) if m.rng.random() < 0.3 else "".join(m.rng.choices(_PIECES, k=m.rng.randint(1, 9)))
    if m.rng.random() < 0.5:
        target = "/" + target
    method = m.rng.choice(("GET", "GET", "POST", "DELETE", "OPTIONS", "HEAD"))
    data = m.request(method, "TARGET", signed=m.rng.random() < 0.5)
    return data.replace(b"TARGET", m.encoded(target), 1)


def _long_targets(m: Material) -> bytes:
    filler = m.rng.choice(("a", "/a", "%41", "?a=b&", "/..", "é", ";", "%00")) * m.some(100, 30_000)
    return m.request("GET", "/mail/accounts" + filler)


def _headers(m: Material) -> bytes:
    lines = [_header(m) for _ in range(m.rng.randint(1, 6))]
    body = b"{}" if m.rng.random() < 0.4 else b""
    data = m.request("POST" if body else "GET", "/mail/sync", "MORE: ", body=body)
    return data.replace(b"MORE: ", b"\r\n".join(lines), 1)


def _header(m: Material) -> bytes:
    colon = m.rng.choice((": ", ":", " : ", "", "::", ":\t", " "))
    text = m.rng.choice(_NAMES) + colon + m.rng.choice(_VALUES)
    folded = b"\r\n" + m.rng.choice((b" ", b"\t", b"")) + b"folded" if m.rng.random() < 0.1 else b""
    return text.encode(m.rng.choice(("utf-8", "latin-1")), "replace") + folded


def _many_headers(m: Material) -> bytes:
    line = m.rng.choice(("X{n}: y", "X: y", "Cookie: a=b", "Host: a", "Connection: close",
        "Origin: http://evil.example", "X-Forwarded-For: ::1"))
    return m.request("GET", "/mail/accounts", *(line.format(n=n) for n in range(m.some(10, 6000))))


def _large_headers(m: Material) -> bytes:
    name = m.rng.choice(("X", "Cookie", "Host", "Origin", "User-Agent", "X-Forwarded-For"))
    return m.request("GET", "/mail/accounts", f"{name}: " + m.rng.choice(("x", "a=b; ", "é", ", ")) * m.some(1000,
        200_000))


def _hosts(m: Material) -> bytes:
    hosts = ("", "a b", "a\0b", "[::1", "evil.example, localhost", "localhost:99999", "localhost:-1", "é", "xn--",
        "a" * 5000, "%00", "@", CANARY)
    lines = [f"Host: {m.rng.choice(hosts)}" for _ in range(m.rng.choice((0, 1, 1, 2, 3)))]
    return m.encoded("\r\n".join(["GET /mail/accounts HTTP/1.1", *lines, f"Cookie: sb-access-token={m.token}", "",
        ""]))


def _cookies(m: Material) -> bytes:
    good = f"sb-access-token={m.token}"
    pieces = (good, "sb-access-token", "sb-access-token=", "sb-access-token=x", 'sb-access-token="x"',
        "SB-Access-Token=x", ";" * 500,
        "=;" * 500, "a=b", "sb-access-token =x", "\x00", "é=é", f"__Host-{good}", "$Version=1", "a" * 9000,
        f"x={good}", "\u00a0" + good)  # fmt: skip
    lines = ["Cookie: " + m.rng.choice(("; ", ";", ", ", "")).join(m.rng.choices(pieces, k=m.rng.randint(1, 8)))
             for _ in range(m.rng.randint(1, 3))]  # fmt: skip
    return m.request("GET", "/mail/accounts", *lines, signed=False)


def _encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _tokens(m: Material) -> bytes:
    head, payload, signature = m.token.split(".")
    made = _encoded(m.rng.choice(_TOKEN_HEADERS))
    token = m.rng.choice((
        f"{made}.{payload}.{signature}", f"{made}.{payload}.", f"{head}.{payload}.", f"{head}.{payload}", "...",
            "a.b.c",
        f"{head}.{_encoded(m.rng.choice(_DOCUMENTS))}.{signature}", f"{head}.{payload}.{signature[:-2]}",
        m.token + ".x",
        m.token[: m.rng.randrange(len(m.token))], f"{head}.{payload}.{'A' * 7000}",
        f"{'A' * 7000}.{payload}.{signature}", "A" * 20_000,
        m.token.replace(m.rng.choice(m.token), "é"), f"{head}=.{payload}=.{signature}=",
    ))  # fmt: skip
    return m.request("GET", "/mail/accounts", f"Cookie: sb-access-token={token}", signed=False)


def _claims(m: Material) -> bytes:
    """Signed as they must be, with claims that no issuer writes: what an identity provider's fault would send."""
    odd: tuple[Any, ...] = (None, True, 0, -1, 1e300, "", "\0", "a" * 6000, "\ud800", [], {}, [[]] * 20, {"a": {}},
        "authenticated", ["authenticated"],
        10**40, "\u202e", "' OR 1=1 --", 1e-9)  # fmt: skip
    changes = {m.rng.choice(("sub", "aud", "role", "iss", "exp", "nbf", "iat", "email", "app_metadata",
        "user_metadata", "x")): m.rng.choice(odd)
               for _ in range(m.rng.randint(1, 3))}  # fmt: skip
    payload = json.dumps(claims("attacker") | changes).encode()
    token = jwt.PyJWS().encode(payload, SECRET, algorithm="HS256")
    return m.request("GET", "/mail/accounts", f"Cookie: sb-access-token={token}", signed=False)


def _documents(m: Material) -> bytes:
    document = m.rng.choice(_DOCUMENTS)
    if m.rng.random() < 0.4:
        document = b'{"account_id": %b, "email": %b}' % (document, m.rng.choice(_DOCUMENTS))
    return m.request("POST", m.rng.choice(("/mail/sync", "/mail/accounts")), body=document[: 900_000])


def _bodies(m: Material) -> bytes:
    """A body that is nearly one to connect an account, to a host that leads nowhere."""
    body: dict[str, Any] = {"email": "a@example.test", "imap_host": "127.0.0.9", "imap_port": 993,
        "smtp_host": "127.0.0.9", "smtp_port": 465,
        "username": "a", "password": CANARY}  # fmt: skip
    odd: tuple[Any, ...] = (None, True, [], {}, "", "\0", "a" * 3000, -1, 0, 65536, 10**30, 1e300, "\ud800",
        "\r\nA1 LOGIN", "[::1]", "127.0.0.9.", "0x7f.1",
        "2130706433", "::ffff:127.0.0.9", "127.0.0.9%00", "é.example", "xn--a", "a@b@c.test", '"a b"@c.test', CANARY,
        ["\n"], {"a": 1})  # fmt: skip
    for _ in range(m.rng.randint(1, 3)):
        body[m.rng.choice((*body, "imap_security", "smtp_security", "name", "extra"))] = m.rng.choice(odd)
    return m.request("POST", "/mail/accounts", body=json.dumps(body).encode())


def _media_types(m: Material) -> bytes:
    kind = m.rng.choice(("application/json; charset=\xff", "application/json;", "application/JSON", "text/json", "",
        "application/json, text/plain",
        "application/json\0", "*/*", "application/" + "x" * 4000, "application/json; charset=utf-16",
        "application/problem+json"))  # fmt: skip
    encoded = m.rng.choice(("Content-Encoding: gzip", "Content-Encoding: \xff", "X: y"))
    data = m.request("POST", "/mail/sync", "TYPE", encoded, "Content-Length: 2")
    return data.replace(b"TYPE", b"Content-Type: " + kind.encode("latin-1")) + b"{}"


def _origins(m: Material) -> bytes:
    site = m.rng.choice(("same-origin", "cross-site", "none", "", "none, same-origin", "\xff", "x" * 3000))
    origin = m.rng.choice(("null", "http://evil.example", "http://localhost", "", "*", "\xff", "http://",
        "http://localhost\0.evil.example", CANARY))
    lines = m.rng.choices((f"Sec-Fetch-Site: {site}", f"Origin: {origin}", "Access-Control-Request-Method: DELETE"),
        k=3)
    return m.request(m.rng.choice(("POST", "OPTIONS", "DELETE", "GET")), "/mail/sync", *lines)


_TOKEN_HEADERS: Final = (
    b'{"alg": "none"}', b'{"alg": "None", "typ": "JWT"}', b'{"alg": "RS256", "kid": "x"}',
        b'{"alg": "ES256", "jwk": {"kty": "EC"}}',
    b'{"alg": ["HS256"]}', b'{"alg": "HS256", "crit": ["b64"], "b64": false}',
    b'{"alg": "HS256", "kid": ' + b"1" * 900 + b"}", b"[]", b"null", b"{",
    b"\xff\xfe", b'{"alg": "HS256", "jku": "http://evil.example/"}', b"[" * 1500, b'{"a":' * 300, b"1" * 1500,
    b'{"alg": "HS256", "alg": "none"}',
)  # fmt: skip

_DOCUMENTS: Final = (
    b"[" * 100_000, b'{"a":' * 100_000, b'[{"a":' * 50_000, b"[" * 300 + b"]" * 300, b"1" * 100_000,
        b"-" + b"9" * 4400, b"1e400", b"-1e400", b"1e-400",
    b"NaN", b"Infinity", b"-0", b"0.1" + b"0" * 100_000, b'"' + b"\\u0000" * 10_000 + b'"', b'"\\ud800"',
    b'"\\udc00\\ud800"', b'"\xed\xa0\x80"', b'"\xff"',
    b"\xef\xbb\xbf{}", '{"a": 1}'.encode("utf-16"), b"\0", b"", b"null", b"true", b"[]", b'""', b"{}{}", b"{},",
    b"{'a': 1}", b'{"a": 1,}', b'{"a": 1, "a": 2}',
    b'{"account_id": "0189f7ea-0000-7000-8000-000000000000", "account_id": null}', b'{"' + b"a" * 200_000 + b'": 1}',
    b"{" + b'"a":1,' * 50_000 + b'"b":1}',
    b'"' + b"\xf0\x9f\x98\x80" * 50_000 + b'"', b" " * 500_000 + b"{}", b'{"account_id": 1e999}',
    b'{"__proto__": {"a": 1}}', b'{"email": "zq9canary\\n"}',
    b'"%s"' % (b"\\" * 9999),
)  # fmt: skip

TARGETS: Final[dict[str, Make]] = {
    "methods": _methods,
    "targets": _targets,
    "long targets": _long_targets,
    "headers": _headers,
    "many headers": _many_headers,
    "large headers": _large_headers,
    "hosts": _hosts,
    "cookies": _cookies,
    "tokens": _tokens,
    "claims": _claims,
    "JSON": _documents,
    "bodies": _bodies,
    "media types": _media_types,
    "origins": _origins,
}
