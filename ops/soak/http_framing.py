"""Classes of malformed requests: framing, lengths, chunks, versions, other protocols, pipelines, and slowness."""

from __future__ import annotations

from typing import Final

from .http_cases import CANARY, Case, End, Make, Material

_LENGTHS: Final = ("-1", "+2", "0x2", "2 2", "2,2", "2, 3", "1e1", "٢", "", " ", "9" * 19, "9" * 400,
    "0" * 5000 + "2", "2.0", "NaN")
_SIZES: Final = ("zz", "-1", "+2", "0x2", "", " 2", "2 ", "2;", "2;a=b", '2;a="' + "x" * 200 + '"', "f" * 15,
    "f" * 16, "f" * 300,
    "2\n", "２")  # fmt: skip
_CODINGS: Final = ("gzip", "gzip, chunked", "chunked, gzip", "chunked, chunked", "identity", "xchunked",
    "chunked;q=1", " chunked",
    "\x0bchunked", '"chunked"', "Chunked", ",chunked", "")  # fmt: skip
_VERSIONS: Final = ("HTTP/0.9", "HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "HTTP/3", "HTTP/1.1.1", "HTTP/11", "HTTP/01.1",
    "http/1.1",
    "HTTPS/1.1", "HTTP/1.1 ", " HTTP/1.1", "HTTP/１.1", "ICY", "")  # fmt: skip
_BREAKS: Final = (b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n ", b"\r\n\t", b"\0\r\n", b"\x0b\r\n", b"\xc2\x85")


def _lengths(m: Material) -> bytes:
    given = [f"Content-Length: {m.rng.choice(_LENGTHS)}" for _ in range(m.rng.randint(1, 3))]
    return m.request("POST", "/mail/sync", *given, "Content-Type: application/json") + b"{}"


def _both(m: Material) -> bytes:
    headers = [f"Content-Length: {m.rng.choice((0, 2, 5, 60))}", f"Transfer-Encoding: {m.rng.choice(_CODINGS)}"]
    m.rng.shuffle(headers)
    inner = m.request("DELETE", f"/mail/{CANARY}", signed=False)
    return m.request("POST", "/mail/sync", *headers, "Content-Type: application/json") + b"0\r\n\r\n" + inner


def _codings(m: Material) -> bytes:
    given = [f"Transfer-Encoding: {m.rng.choice(_CODINGS)}" for _ in range(m.rng.randint(1, 2))]
    return m.request("POST", "/mail/sync", *given, "Content-Type: application/json") + b"2\r\n{}\r\n0\r\n\r\n"


def _chunks(m: Material) -> bytes:
    head = m.request("POST", "/mail/sync", "Transfer-Encoding: chunked", "Content-Type: application/json")
    chunks = []
    for _ in range(m.rng.randint(1, 6)):
        size = m.rng.choice((*_SIZES, "2", "2", "2"))
        chunks.append(size.encode() + m.rng.choice((b"\r\n", b"\n", b"\r\n", b"")) + b"{}" + m.rng.choice((b"\r\n",
            b"", b"\n")))
    return head + b"".join(chunks) + m.rng.choice((b"0\r\n\r\n", b"", b"0\r\nX: y\r\n\r\n",
        b"0\r\nContent-Length: 5\r\n\r\n"))


def _trailers(m: Material) -> bytes:
    head = m.request("POST", "/mail/sync", "Transfer-Encoding: chunked", "Trailer: X",
        "Content-Type: application/json")
    lines = m.rng.choice((b"X: y\r\n", b": y\r\n", b"X y\r\n", b"X: \0\r\n", b"Cookie: sb-access-token=x\r\n",
        b"\xff: y\r\n"))
    return head + b"2\r\n{}\r\n0\r\n" + lines * m.some(1, 4000) + b"\r\n"


def _tiny_chunks(m: Material) -> bytes:
    head = m.request("POST", "/mail/sync", "Transfer-Encoding: chunked", "Content-Type: application/json")
    return head + b"1\r\n \r\n" * m.some(10, 20_000) + b"2\r\n{}\r\n0\r\n\r\n"


def _extensions(m: Material) -> bytes:
    head = m.request("POST", "/mail/sync", "Transfer-Encoding: chunked", "Content-Type: application/json")
    return head + b"2;" + b"x" * m.some(10, 80_000) + b"\r\n{}\r\n0\r\n\r\n"


def _versions(m: Material) -> bytes:
    return m.request(version=m.rng.choice(_VERSIONS)) * m.rng.randint(1, 2)


def _breaks(m: Material) -> bytes:
    data, other = m.good(), m.rng.choice(_BREAKS)
    if m.rng.random() < 0.5:
        return data.replace(b"\r\n", other)
    lines = data.split(b"\r\n")
    at = m.rng.randrange(1, len(lines))
    return b"\r\n".join(lines[:at]) + other + b"\r\n".join(lines[at:])


def _http09(m: Material) -> bytes:
    return m.rng.choice((b"GET /\r\n", b"GET /mail/accounts\r\n\r\n", b"GET\r\n\r\n", b"\r\n\r\n", b" \r\n\r\n",
        b"GET  / \r\n\r\n"))


def _http2(m: Material) -> bytes:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0" + m.rng.randbytes(m.some(1, 2000))
    settings = m.rng.choice(("AAMAAABkAAQAoAAA", "!!!", "", "\x80"))
    upgrade = m.request("GET", "/mail/accounts", "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings",
        f"HTTP2-Settings: {settings}")  # fmt: skip
    return m.rng.choice((preface, upgrade, upgrade + preface, m.request("POST", "/mail/sync", "Upgrade: h2c",
        "Connection: Upgrade", body=b"{}")))  # fmt: skip


def _websocket(m: Material) -> bytes:
    parts = [
        m.rng.choice(("Upgrade: websocket", "Upgrade: WebSocket", "Upgrade: websocket, h2c", "Upgrade:",
            "Upgrade: \xff")),
        m.rng.choice(("Connection: Upgrade", "Connection: keep-alive, Upgrade", "Connection: close",
        "Connection: \xe9")),
        m.rng.choice(("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Key:", "Sec-WebSocket-Key: \xe4",
        "X: y")),
        m.rng.choice(("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8", "Sec-WebSocket-Version: 99999999999",
        "X: y")),
        *m.rng.sample(("Sec-WebSocket-Protocol: ,,\x80", "Sec-WebSocket-Extensions: permessage-deflate; x=\xff",
        "Content-Length: 5",
            "Transfer-Encoding: chunked", "Sec-WebSocket-Extensions: " + "a;" * 3000, "Upgrade: websocket"),
            m.rng.randint(0, 2)),
    ]  # fmt: skip
    target = m.rng.choice(("/mail/ws/inbox", "/ws/inbox", "/mail/accounts", "//", "*"))
    method, version = m.rng.choice(("GET", "GET", "GET", "POST", "get")), m.rng.choice(("HTTP/1.1", "HTTP/1.1",
        "HTTP/1.0"))
    frames = m.rng.choice((b"", b"\x81\x05hello", b"\x88\x00", b"\x8f\xff" + b"\xff" * 8, m.rng.randbytes(300)))
    return m.request(method, target, *parts, version=version)+ frames


def _tls(m: Material) -> bytes:
    return bytes.fromhex("16030100c8010000c40303") + m.rng.randbytes(200)


def _other_protocols(m: Material) -> bytes:
    return m.rng.choice((b"EHLO example.test\r\n", b"A1 LOGIN a b\r\n", b"SSH-2.0-x\r\n",
        b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + m.good(), b"*1\r\n$4\r\nPING\r\n",
        b"\r\n\r\n\r\n" + m.good()))  # fmt: skip


def _pipeline(m: Material) -> bytes:
    good = b"".join(m.good() for _ in range(m.rng.randint(1, 12)))
    rubbish = m.rng.choice((b"\0" * 3000, b"\xff" * 60_000, b"GET", m.rng.randbytes(500), b"\r\n" * 9000,
        b"HTTP/1.1 200 OK\r\n\r\n"))
    return good + rubbish + m.good()


def _after_close(m: Material) -> bytes:
    return m.request("GET", "/mail/sync", "Connection: close") + m.good() * m.rng.randint(1, 30)


def _expect(m: Material) -> bytes:
    expected = m.rng.choice(("100-continue", "100-CONTINUE", "the-moon", "100-continue, 100-continue", ""))
    return m.request("POST", "/mail/sync", f"Expect: {expected}", body=b"{}")[: None if m.rng.random() < 0.6 else -1]


def _large_body(m: Material) -> Case:
    size = m.some(1 << 20, 12 << 20)
    announced = m.rng.choice((size, size + 1, size - 100_000, 1 << 40))
    head = m.request("POST", "/mail/accounts", f"Content-Length: {announced}", "Content-Type: application/json")
    return Case("large bodies", (head, *(b" " * 65536 for _ in range(size // 65536))))


def _large_chunked(m: Material) -> Case:
    head = m.request("POST", "/mail/accounts", "Transfer-Encoding: chunked", "Content-Type: application/json")
    chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
    return Case("large bodies in chunks", (head, *(chunk for _ in range(m.some(20, 300)))))


def _short_body(m: Material) -> Case:
    head = m.request("POST", "/mail/sync", f"Content-Length: {m.rng.choice((3, 100, 1 << 19))}",
        "Content-Type: application/json")
    return Case("bodies that end early", (head, b"{}"), m.rng.choice((End.HALF, End.ABORT, End.ABORT)))


def _slow_head(m: Material) -> Case:
    data = m.good()
    step = max(1, len(data) // 20)
    return Case("slow heads", tuple(data[at : at + step] for at in range(0, len(data) - 4, step)), End.PATIENT, 1.0)


def _slow_body(m: Material) -> Case:
    head = m.request("POST", "/mail/sync", "Content-Length: 1000", "Content-Type: application/json")
    return Case("slow bodies", (head, *(b" " for _ in range(40))), End.PATIENT, 0.5)


def _silent(m: Material) -> Case:
    return Case("nothing said", (m.rng.choice((b"", b"G", b"\r\n", m.good())),), End.PATIENT)


def _drops(m: Material) -> Case:
    data = m.good()
    return Case("byte by byte", tuple(data[at : at + 1] for at in range(len(data))),
        m.rng.choice((End.HALF, End.ABORT)))


FRAMING: Final[dict[str, Make]] = {
    "lengths": _lengths,
    "length and coding": _both,
    "codings": _codings,
    "chunks": _chunks,
    "chunk extensions": _extensions,
    "tiny chunks": _tiny_chunks,
    "trailers": _trailers,
    "versions": _versions,
    "line breaks": _breaks,
    "HTTP/0.9": _http09,
    "HTTP/2": _http2,
    "WebSocket": _websocket,
    "TLS": _tls,
    "other protocols": _other_protocols,
    "pipelined rubbish": _pipeline,
    "after close": _after_close,
    "expectations": _expect,
    "large bodies": _large_body,
    "large bodies in chunks": _large_chunked,
    "bodies that end early": _short_body,
    "byte by byte": _drops,
}

SLOW: Final[dict[str, Make]] = {"slow heads": _slow_head, "slow bodies": _slow_body, "nothing said": _silent}
"""Classes that take their time, until the server's patience ends."""
