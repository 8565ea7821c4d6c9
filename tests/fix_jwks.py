"""Session tokens signed with real keys, and a real HTTP server that publishes them.

    jwks_server.issuer, jwks_server.url     for `[auth] issuer` and `jwks_url`
    jwks_server.make_token(sub="...", alg="ES256")      any claim by name; `claim=None` leaves one out
    jwks_server.rotate()                    new keys; tokens of the old ones are signed by keys no longer published
    jwks_server.down = True                 503; `jwks_server.slow = 5.0` answers that much later
    jwks_server.body = b"not json"          publishes that instead
    jwks_server.requests                    how often it was asked

HS256 tokens are signed with `jwks_server.secret` (32 bytes and more: RFC 7518 section 3.2).
"""

import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key pair with its name."""

    kid: str
    alg: str
    private: PrivateKey

    def public_jwk(self) -> dict[str, Any]:
        algorithm = RSAAlgorithm if self.alg == "RS256" else ECAlgorithm
        jwk = json.loads(algorithm.to_jwk(self.private.public_key()))
        return jwk | {"kid": self.kid, "alg": self.alg, "use": "sig", "key_ops": ["verify"]}


@cache
def _rsa_key(number: int) -> rsa.RSAPrivateKey:
    """RSA keys take long to make: the same few for the whole run."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def signing_keys(generation: int) -> dict[str, SigningKey]:
    """A key of each algorithm, with names of its own."""
    mark = uuid.uuid4().hex[:8]
    return {
        "RS256": SigningKey(f"rsa-{generation}-{mark}", "RS256", _rsa_key(generation)),
        "ES256": SigningKey(f"ec-{generation}-{mark}", "ES256", ec.generate_private_key(ec.SECP256R1())),
    }


class JwksServer:
    """The publisher and the signer."""

    secret = "a-test-secret-that-everybody-knows-0123456789"

    def __init__(self) -> None:
        self.down = False
        self.slow = 0.0
        self.body: bytes | None = None
        self.requests = 0
        self._released = threading.Event()
        self._generation = 0
        self.keys = signing_keys(0)
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                publisher._answer(self)

            def log_message(self, *_: object) -> None:
                """Say nothing on standard error."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = False       # joined by server_close: no thread outlives the fixture
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), name="jwks server")
        self._thread.start()

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/auth/v1"

    @property
    def url(self) -> str:
        return f"{self.issuer}/.well-known/jwks.json"

    def rotate(self) -> None:
        """Publish new keys instead of the old ones."""
        self._generation += 1
        self.keys = signing_keys(self._generation)

    def make_token(
        self, *, alg: str = "ES256", lifetime: float = 3600.0, headers: dict[str, Any] | None = None,
        key: SigningKey | str | None = None, **claims: Any,
    ) -> str:
        """A token as Supabase issues them: signed by the current key of `alg`, or by `key`."""
        now = int(time.time())
        payload: dict[str, Any] = {
            "iss": self.issuer, "aud": "authenticated", "role": "authenticated", "sub": str(uuid.uuid4()),
            "email": "you@example.test", "iat": now, "exp": now + int(lifetime), "session_id": str(uuid.uuid4()),
            "app_metadata": {"provider": "email", "providers": ["email"]}, "user_metadata": {}, "is_anonymous": False,
        } | claims
        payload = {name: value for name, value in payload.items() if value is not None}
        if alg == "HS256":
            return jwt.encode(payload, key if isinstance(key, str) else self.secret, algorithm=alg, headers=headers)
        signer = key if isinstance(key, SigningKey) else self.keys[alg]
        return jwt.encode(payload, signer.private, algorithm=alg, headers={"kid": signer.kid} | (headers or {}))

    def close(self) -> None:
        self._released.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        self.requests += 1
        if self.slow:
            self._released.wait(self.slow)
        if self.down:
            request.send_error(503)
            return
        if request.path != "/auth/v1/.well-known/jwks.json":
            request.send_error(404)
            return
        body = self.body
        if body is None:
            body = json.dumps({"keys": [key.public_jwk() for key in self.keys.values()]}).encode()
        with suppress(ConnectionError):     # who asked did not wait
            request.send_response(200)
            request.send_header("Content-Type", "application/json")
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            request.wfile.write(body)


@pytest.fixture
def jwks_server() -> Iterator[JwksServer]:
    server = JwksServer()
    yield server
    server.close()
