"""Every known way to make a session token, and what must come of it: served, or refused in one answer for all.

Whoever guesses learns nothing from a refusal: status, headers and body are the same to the byte, whatever was wrong.
The fixture `forge` is an API in each mode, and makes its tokens.
"""

import base64
import hashlib
import hmac
import json
import time
from dataclasses import dataclass

from jwt.algorithms import ECAlgorithm

from tests.control_api.wire import ask, request

NOW = int(time.time())


def b64(data):
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def hs256(data, key):
    return hmac.new(key, data, hashlib.sha256).digest()


@dataclass
class Forge:
    """Makes tokens for one mode; `sign` is what the issuer would sign with."""

    mode: str
    server: object
    address: tuple
    secret: str

    @property
    def kid(self):
        return self.server.keys["ES256"].kid

    @property
    def header(self):
        own = {"alg": "HS256"} if self.mode == "shared" else {"alg": "ES256", "kid": self.kid}
        return own | {"typ": "JWT"}

    @property
    def claims(self):
        return {"iss": self.server.issuer, "aud": "authenticated", "role": "authenticated", "sub": "user-1",
                "email": "you@example.test", "iat": NOW, "exp": NOW + 3600}

    def sign(self, data):
        if self.mode == "shared":
            return hs256(data, self.secret.encode())
        return ECAlgorithm(ECAlgorithm.SHA256).sign(data, self.server.keys["ES256"].private)

    def token(self, header=None, claims=None, signature=None, sign=None):
        """A token of these documents, signed as the issuer does unless told otherwise."""
        signed = f"{b64(self.header if header is None else header)}.{b64(self.claims if claims is None else claims)}"
        made = (sign or self.sign)(signed.encode()) if signature is None else signature
        return f"{signed}.{b64(made)}"

    def with_claims(self, **changes):
        return self.token(claims={name: value for name, value in (self.claims | changes).items() if value is not ...})

    def with_header(self, **changes):
        return self.token(header={name: value for name, value in (self.header | changes).items() if value is not ...})

    def text(self, document, old, new):
        """A document as text, one piece replaced: for what no JSON writer would write."""
        written = json.dumps(document)
        assert old in written
        return written.replace(old, new, 1).encode()

    async def get(self, *cookies, headers=(), path="/mail/accounts"):
        given = [*(f"Cookie: {cookie}" for cookie in cookies), *headers]
        return await ask(self.address, request("GET", path, *given))

    async def session(self, token):
        return await self.get(f"sb-access-token={token}")


async def all_refused_alike(forge, cookies):
    """Ask with each; none is served, and no answer differs from what somebody without any token gets."""
    stranger = await forge.get()
    assert stranger[0] == 401
    assert json.loads(stranger[2])["code"] == "not_authenticated"
    different = {}
    for name, cookie in cookies.items():
        status, headers, body = await forge.get(*([cookie] if isinstance(cookie, str) else cookie))
        if (status, headers | {b"date": b""}, body) != (401, stranger[1] | {b"date": b""}, stranger[2]):
            different[name] = (status, body)
    assert different == {}, different


def cookies_of(tokens):
    return {name: f"sb-access-token={token}" for name, token in tokens.items()}
