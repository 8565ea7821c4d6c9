"""What reads the words of API clients, identity providers, name servers and the operator, as functions of one case."""

from __future__ import annotations

import random
import re
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path
from typing import ClassVar, Final

import h11
import jwt
import trio

from control_api.claims import MAX_NAME, TokenRefused
from control_api.cookies import DuplicateCookie, session_token
from control_api.errors import InvalidBody, refusal_for
from control_api.heads import Http11, origin_form
from control_api.keys import MAX_KEYS, BadKeySet, read_key_set
from control_api.origins import Origins, has_body, is_json
from control_api.proxies import client_address
from control_api.schemas import ConnectBody, SyncBody, parse_body
from control_api.server import MAX_HEAD
from control_api.tokens import SharedSecret, TokenVerifier
from daemon.errors import Fault
from daemon.identity.users import MAX_EMAIL, MAX_USER_ID
from daemon.network import InvalidHost, Resolver, canonical_host
from daemon.network.endpoint import MAX_HOST, ip_literal
from daemon.network.resolver import MOST_ADDRESSES
from daemon.settings import SettingsError, load
from daemon.vault.secret import Secret

from .http_daemon import SECRET

_ORIGINS: Final = Origins.of(["https://app.example.com"])
_VERIFIER: Final = TokenVerifier(SharedSecret(Secret(SECRET)), "accountsd", "free")
_PROXIES: Final = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
_AUTHORITY: Final = re.compile(rb"https?://[^/?#]", re.IGNORECASE)
_STEPS: Final = (1, 50, 1 << 14)


def http_heads(data: bytes, rng: random.Random) -> None:
    """A client's bytes in pieces, through the parser of heads."""
    connection = Http11(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
    step = rng.choice(_STEPS)
    with suppress(h11.RemoteProtocolError):
        for at in range(0, len(data) + step, step):
            connection.receive_data(data[at : at + step])
            while (event := connection.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                if isinstance(event, h11.Request):
                    _headers(event)
                if isinstance(event, h11.ConnectionClosed):
                    return
            if event is h11.PAUSED:
                return


def _headers(request: h11.Request) -> None:
    """What is made of a request's headers before anybody is known."""
    assert not _AUTHORITY.match(origin_form(request.target))
    given = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers]

    def of(wanted: str) -> list[str]:
        return [value for name, value in given if name == wanted]

    _ORIGINS.forged(request.method.decode("latin-1"), of("sec-fetch-site"), of("origin"))
    assert "zq9" not in str(_ORIGINS.cors_headers(of("origin")))
    is_json(next(iter(of("content-type")), None))
    has_body(next(iter(of("content-length")), None), next(iter(of("transfer-encoding")), None))
    assert ip_literal(client_address("127.0.0.1", of("x-forwarded-for"), _PROXIES)) is not None
    with suppress(DuplicateCookie):
        session_token(of("cookie"))


def cookies(data: bytes, _rng: random.Random) -> None:
    """Cookie headers."""
    with suppress(DuplicateCookie):
        found = session_token(data.decode("latin-1").split("\n"))
        assert found is None or 0 < len(found) <= len(data)


async def tokens(data: bytes, _rng: random.Random) -> None:
    """A session token as it comes in a cookie."""
    with suppress(TokenRefused):
        await _VERIFIER.verify(data.decode("latin-1"))


async def claims(data: bytes, _rng: random.Random) -> None:
    """A payload that is signed as it must be."""
    token = jwt.PyJWS().encode(data, SECRET, algorithm="HS256")
    with suppress(TokenRefused):
        user = await _VERIFIER.verify(token)
        assert 1 <= len(user.id) <= MAX_USER_ID
        assert len(user.email) <= MAX_EMAIL
        assert len(user.name) <= max(MAX_NAME, MAX_EMAIL)
        f"{user.id}{user.email}{user.name}".encode()


def key_sets(data: bytes, _rng: random.Random) -> None:
    """An issuer's document."""
    with suppress(BadKeySet):
        assert len(read_key_set(data)) <= MAX_KEYS


def bodies(data: bytes, _rng: random.Random) -> None:
    """A request's body; a refusal repeats nothing of it."""
    for model in (ConnectBody, SyncBody):
        refusal = None
        try:
            parse_body(model, data)
        except InvalidBody as exc:
            refusal = refusal_for(exc)
        assert refusal is None or len(str(refusal.envelope())) < 4000


def hosts(data: bytes, _rng: random.Random) -> None:
    """A mail server's name as somebody types it: canonical once, canonical for ever."""
    with suppress(InvalidHost, UnicodeDecodeError):
        host = canonical_host(data.decode("utf-8"))
        assert host.isascii()
        assert len(host) <= MAX_HOST
        assert canonical_host(host) == host


class Settings:
    """The settings file, written anew for each case."""

    file: ClassVar[Path]
    """Where it is."""

    @classmethod
    def read(cls, data: bytes, _rng: random.Random) -> None:
        """Read it; whatever is wrong is one sentence."""
        cls.file.write_bytes(data)
        sentence = ""
        try:
            load(cls.file, {})
        except SettingsError as exc:
            sentence = str(exc)
        assert "\n" not in sentence


class Names:
    """A name server that answers with cases, by UDP and, where that is asked for, by TCP.

    The number and the question of an answer are always right, for others are not looked at at all.
    """

    def __init__(self) -> None:
        self._cases: dict[bytes, bytes] = {}
        self._resolver: Resolver | None = None

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer until cancelled."""
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as sock:
            await sock.bind(("127.0.0.1", port))
            self._resolver = Resolver([f"127.0.0.1:{port}"])
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.serve_listeners, self._over_tcp, [listener])
                task_status.started()
                while True:
                    with suppress(OSError):  # one who has gone
                        query, peer = await sock.recvfrom(4096)
                        await sock.sendto(self._answer(query)[:60_000], peer)

    async def _over_tcp(self, stream: trio.SocketStream) -> None:
        async with stream:
            with suppress(trio.BrokenResourceError):
                query = bytes(await stream.receive_some(4096))
                answer = self._answer(query[2:])[:65_535]
                await stream.send_all(len(answer).to_bytes(2, "big") + answer)

    def _answer(self, query: bytes) -> bytes:
        label = query[13 : 13 + query[12]] if len(query) > 12 else b""
        end = query.find(b"\0", 12) + 5
        case = self._cases.get(label, b"")
        return query[:2] + case[2:12] + query[12:end] + case[12:]

    async def look_up(self, number: int, data: bytes) -> None:
        """Resolve a name of its own, answered with *data*: header and what follows the question."""
        assert self._resolver is not None
        label = f"c{number}"
        self._cases[label.encode()] = data
        try:
            assert 1 <= len(await self._resolver.resolve(f"{label}.example.test")) <= MOST_ADDRESSES
        except Fault:
            return
        finally:
            del self._cases[label.encode()]
