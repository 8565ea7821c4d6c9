"""Every known way to make a session token, over HTTP in both modes: served, or refused in one answer for all.

Whoever guesses learns nothing from a refusal: status, headers and body are the same to the byte, whatever was wrong.
"""

import base64
import hashlib
import hmac
import json
import time
from dataclasses import dataclass

import pytest
import trio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from control_api.app import ControlApi
from control_api.jwks import PublishedKeys, fetcher
from control_api.server import Listener
from control_api.tokens import MAX_TOKEN, SharedSecret, TokenVerifier
from daemon.settings import Settings
from daemon.vault.secret import Secret
from tests.control_api.wire import ask, request

SECRET = "a session secret of at least thirty-two bytes"
NOW = int(time.time())
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256's group (FIPS 186-4 D.1.2.3)


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
            return hs256(data, SECRET.encode())
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


@pytest.fixture(params=["published", "shared"])
async def forge(request, jwks_server, service, nursery):
    if request.param == "shared":
        keys = SharedSecret(Secret(SECRET))
    else:
        keys = PublishedKeys(fetcher(jwks_server.url, None))
    app = ControlApi(Settings(), service, TokenVerifier(keys, jwks_server.issuer, "free"))
    listener = Listener(app, "127.0.0.1:0", grace=0.5, head_timeout=5.0, send_timeout=5.0)
    address = await nursery.start(lambda task_status: listener.serve(task_status=task_status))
    made = Forge(request.param, jwks_server, address)
    assert (await made.session(made.token()))[0] == 200
    yield made
    assert (await made.session(made.token()))[0] == 200, "the attacks did something to who is signed in"
    nursery.cancel_scope.cancel()


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
    assert different == {}


def cookies_of(tokens):
    return {name: f"sb-access-token={token}" for name, token in tokens.items()}


async def test_claims_that_are_no_session(forge):
    change, text, claims = forge.with_claims, forge.text, forge.claims
    exp = f'"exp": {claims["exp"]}'
    tokens = {
        "expired": change(exp=NOW - 60), "no exp": change(exp=...), "exp as text": change(exp=str(NOW + 3600)),
        "exp null": change(exp=None), "exp true": change(exp=True), "exp list": change(exp=[NOW + 3600]),
        "exp huge": forge.token(claims=text(claims, exp, '"exp": 1e400')),
        "exp of many digits": forge.token(claims=text(claims, exp, '"exp": 1' + "0" * 5000)),
        "exp NaN": forge.token(claims=text(claims, exp, '"exp": NaN')),
        "exp Infinity": forge.token(claims=text(claims, exp, '"exp": Infinity')),
        "NaN elsewhere": forge.token(claims=text(claims, exp, exp + ', "x": NaN')),
        "future nbf": change(nbf=NOW + 3600), "nbf as text": change(nbf=str(NOW)), "nbf null": change(nbf=None),
        "wrong iss": change(iss="https://evil.example.test"), "no iss": change(iss=...),
        "iss list": change(iss=[claims["iss"]]), "iss with a slash": change(iss=claims["iss"] + "/"),
        "iss null": change(iss=None), "iss of the local mode": change(iss="accountsd"),
        "wrong aud": change(aud="anon"), "no aud": change(aud=...), "aud list without": change(aud=["a", "b"]),
        "aud empty list": change(aud=[]), "aud within a list": change(aud=[["authenticated"]]),
        "aud object": change(aud={"authenticated": True}), "aud prefix": change(aud="authenticated2"),
        "anon": change(role="anon"), "service_role": change(role="service_role"), "no role": change(role=...),
        "role list": change(role=["authenticated"]), "role of the user's own": change(
            role=..., user_metadata={"role": "authenticated"}, app_metadata={"role": "authenticated"}),
        "no sub": change(sub=...), "empty sub": change(sub=""), "sub too long": change(sub="x" * 256),
        "sub NUL": change(sub="user-1\0"), "sub number": change(sub=1), "sub list": change(sub=["user-1"]),
        "sub line break": change(sub="user-1\n"), "sub surrogate": change(sub="user-\ud800"),
        "sub twice": forge.token(claims=text(claims, '"sub"', '"sub": "admin", "sub"')),
        "exp twice": forge.token(claims=text(claims, exp, f'"exp": 1, {exp}')),
        "twice within": forge.token(claims=text(claims, exp, exp + ', "app_metadata": {"plan": "a", "plan": "b"}')),
        "UTF-16": forge.token(claims=json.dumps(claims).encode("utf-16")),
        "byte order mark": forge.token(claims=b"\xef\xbb\xbf" + json.dumps(claims).encode()),
        "not UTF-8": forge.token(claims=text(claims, "user-1", "user-1").replace(b"user-1", b"user-\xff")),
        "array": forge.token(claims=[claims]), "text": forge.token(claims="authenticated"),
        "nested": forge.token(claims=json.dumps(claims)), "not JSON": forge.token(claims=b"{'sub': 'user-1'}"),
        "deep": forge.token(claims=b"[" * 3000), "behind": forge.token(claims=json.dumps(claims).encode() + b"{}"),
    }  # fmt: skip
    await all_refused_alike(forge, cookies_of(tokens))


async def test_claims_that_are_one(forge):
    change = forge.with_claims
    for token in (
        change(aud=["other", "authenticated"]), change(aud=["authenticated"]), change(exp=NOW + 0.5 + 3600),
        change(exp=10**300), change(nbf=NOW + 5), change(iat=NOW + 86400), change(iat=...), change(sub="x" * 255),
        change(email=...), change(user_metadata={"role": "anon", "sub": "admin"}), change(extra={"exp": 1}),
    ):  # fmt: skip
        assert (await forge.session(token))[0] == 200


def public_forms(key):
    """A public key in every form that a confused verifier might take for a secret."""
    pem, der = serialization.Encoding.PEM, serialization.Encoding.DER
    formats = [serialization.PublicFormat.SubjectPublicKeyInfo]
    if isinstance(key, rsa.RSAPublicKey):
        formats.append(serialization.PublicFormat.PKCS1)
    forms = [key.public_bytes(encoding, form) for encoding in (pem, der) for form in formats]
    jwk = (RSAAlgorithm if isinstance(key, rsa.RSAPublicKey) else ECAlgorithm).to_jwk(key).encode()
    return [*forms, forms[0].strip(), jwk, b"", b"\0" * 32]


async def test_algorithms(forge):
    tokens = {}
    for alg in ("none", "None", "NONE", "nOnE", "", " none", "none\0", "HS256 ", "hs256", "es256"):
        for signature in (b"", b"\0", b"\0" * 32, b"\0" * 64):
            tokens[f"{alg!r}, {len(signature)} bytes"] = forge.token(forge.header | {"alg": alg}, signature=signature)
        signed = tokens[f"{alg!r}, 0 bytes"]
        tokens[f"{alg!r}, signed"] = forge.with_header(alg=alg)
        tokens[f"{alg!r}, no third part"] = signed.removesuffix(".")
    for key in forge.server.keys.values():
        for number, form in enumerate(public_forms(key.private.public_key())):
            for kid in (key.kid, ...):
                header = {"alg": "HS256", "typ": "JWT"} | ({} if kid is ... else {"kid": kid})
                confused = forge.token(header, sign=lambda data, form=form: hs256(data, form))
                tokens[f"HS256 with the public {key.alg} key, form {number}, {kid}"] = confused
    for alg in ("HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "ES384", "ES512", "ES256K", "EdDSA", "RSA-OAEP"):
        tokens[f"{alg}, signed by the right key"] = forge.with_header(alg=alg)
    for alg in (None, 7, ["ES256"], {"alg": "ES256"}, True, ...):
        tokens[f"alg {alg!r}"] = forge.with_header(alg=alg)
    # Each mode's good signature in the other's clothes: there is no way from one to the other.
    mine, hers = forge.server.keys["ES256"], {"alg": "ES256", "typ": "JWT", "kid": forge.kid}
    if forge.mode == "shared":
        tokens["the published key"] = forge.token(
            hers, sign=lambda data: ECAlgorithm(ECAlgorithm.SHA256).sign(data, mine.private))
    else:
        tokens["the secret"] = forge.token({"alg": "HS256"}, sign=lambda data: hs256(data, SECRET.encode()))
        tokens["the secret, alg of the key"] = forge.token(hers, sign=lambda data: hs256(data, SECRET.encode()))
    await all_refused_alike(forge, cookies_of(tokens))
    assert forge.server.requests == (1 if forge.mode == "published" else 0)


async def test_signatures(forge):
    good = forge.token()
    head, body, signature = good.split(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    tokens = {
        f"{size} zeros": forge.token(signature=b"\0" * size) for size in (1, 31, 32, 33, 63, 64, 65, 96, 132, 256, 512)
    } | {
        "DER of zeros": forge.token(signature=bytes.fromhex("3006020100020100")),
        "the group's order": forge.token(signature=ORDER.to_bytes(32, "big") * 2),
        "all ones": forge.token(signature=b"\xff" * 64), "r of zero": forge.token(signature=b"\0" * 32 + raw[32:]),
        "cut": forge.token(signature=raw[:-1]), "longer": forge.token(signature=raw + b"\0"),
        "another token's": f"{head}.{b64(forge.claims | {'sub': 'admin'})}.{signature}",
        "another header's": f"{b64(forge.header | {'x': 1})}.{body}.{signature}",
        "one bit": f"{head}.{body}.{b64(bytes([raw[0] ^ 1]) + raw[1:])}",
        "none": f"{head}.{body}.", "the claims'": f"{head}.{body}.{body}",
    }  # fmt: skip
    if forge.mode == "published":
        mine = {
            "P-256, a stranger's": (ec.generate_private_key(ec.SECP256R1()), ECAlgorithm.SHA256),
            "P-384": (ec.generate_private_key(ec.SECP384R1()), ECAlgorithm.SHA384),
            "P-521": (ec.generate_private_key(ec.SECP521R1()), ECAlgorithm.SHA512),
            "secp256k1": (ec.generate_private_key(ec.SECP256K1()), ECAlgorithm.SHA256),
        }
        for name, (key, digest) in mine.items():
            tokens[name] = forge.token(sign=lambda data, key=key, digest=digest: ECAlgorithm(digest).sign(data, key))
        tokens["RSA key"] = forge.token(
            sign=lambda data: RSAAlgorithm(RSAAlgorithm.SHA256).sign(data, forge.server.keys["RS256"].private))
        rs256 = forge.header | {"alg": "RS256", "kid": forge.server.keys["RS256"].kid}
        for size in (0, 1, 255, 256, 257):
            tokens[f"RSA, {size} zeros"] = forge.token(rs256, signature=b"\0" * size)
        stranger = rsa.generate_private_key(65537, 2048)
        tokens["RSA, a stranger's"] = forge.token(
            rs256, sign=lambda data: RSAAlgorithm(RSAAlgorithm.SHA256).sign(data, stranger))
    else:
        for size in (0, 16, 31):
            tokens[f"HMAC, {size} bytes of it"] = forge.token(signature=raw[:size])
        tokens["an empty secret"] = forge.token(sign=lambda data: hs256(data, b""))
    await all_refused_alike(forge, cookies_of(tokens))


async def test_headers(forge):
    change, text, header = forge.with_header, forge.text, forge.header
    alg = f'"alg": "{header["alg"]}"'
    tokens = {
        "crit": change(crit=["exp"]), "crit empty": change(crit=[]), "crit null": change(crit=None),
        "b64 false": change(b64=False, crit=["b64"]), "b64 alone": change(b64=False), "b64 true": change(b64=True),
        "alg twice": forge.token(header=text(header, '"alg"', '"alg": "none", "alg"')),
        "alg twice, none last": forge.token(header=text(header, alg, f'{alg}, "alg": "none"')),
        "typ twice": forge.token(header=text(header, '"typ"', '"typ": "JWT", "typ"')),
        "NaN": forge.token(header=text(header, alg, f'{alg}, "x": NaN')),
        "UTF-16": forge.token(header=json.dumps(header).encode("utf-16")),
        "byte order mark": forge.token(header=b"\xef\xbb\xbf" + json.dumps(header).encode()),
        "array": forge.token(header=[header]), "text": forge.token(header="JWT"), "long": change(x="y" * 3000),
        "deep": forge.token(header=b'{"x":' + b"[" * 1200),
        "kid number": change(kid=7), "kid null": change(kid=None), "kid list": change(kid=["x"]),
        "kid object": change(kid={}), "kid true": change(kid=True), "kid long": change(kid="x" * 257),
    }  # fmt: skip
    await all_refused_alike(forge, cookies_of(tokens))


async def test_a_header_chooses_no_key_and_names_no_address(forge, nursery):
    """Keys and addresses in a header are not looked at: nobody is asked for them, and none of them verifies."""
    heard = 0

    async def trap(stream):
        nonlocal heard
        heard += 1
        await stream.aclose()

    listeners = await nursery.start(trio.serve_tcp, trap, 0)
    url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/jwks.json"
    own = ec.generate_private_key(ec.SECP256R1())
    jwk = json.loads(ECAlgorithm.to_jwk(own.public_key()))
    tokens = {}
    for kid in (forge.kid, "mine", ...):
        for name, more in {
            "jwk": {"jwk": jwk | {"kid": "mine", "alg": "ES256"}}, "jku": {"jku": url}, "x5u": {"x5u": url},
            "x5c": {"x5c": ["MIIB"]}, "kid url": {"kid": url}, "iss": {"iss": url},
            "all": {"jwk": jwk, "jku": url, "x5u": url},
        }.items():  # fmt: skip
            header = {"alg": "ES256", "typ": "JWT", **({} if kid is ... else {"kid": kid}), **more}
            tokens[f"{name}, {kid}"] = forge.token(
                header, sign=lambda data: ECAlgorithm(ECAlgorithm.SHA256).sign(data, own))
            header |= {"alg": "HS256", "jwk": {"kty": "oct", "k": b64(b"k" * 32)}}
            tokens[f"{name}, {kid}, k"] = forge.token(header, sign=lambda data: hs256(data, b"k" * 32))
    await all_refused_alike(forge, cookies_of(tokens))
    assert heard == 0


async def test_names_of_keys(forge):
    """A name is looked up and nothing else; where there is one secret it means nothing."""
    names = [
        "", " ", forge.kid + " ", forge.kid.upper(), forge.kid[:-1], "../../../../dev/null", "/proc/self/environ",
        "' OR '1'='1", "x' UNION SELECT 'key'--", "|id", "$(id)", "http://127.0.0.1/", "\0", "é", "\ud83d\ude00", "0",
        "null", "__class__", "x" * 256,
    ]  # fmt: skip
    tokens = {repr(name): forge.with_header(kid=name) for name in names}
    tokens["none"] = forge.with_header(kid=...)
    if forge.mode == "shared":
        assert {(await forge.session(token))[0] for token in tokens.values()} == {200}
        return
    await all_refused_alike(forge, cookies_of(tokens))
    assert forge.server.requests == 1


async def test_shapes_and_cookies(forge):
    good = forge.token()
    head, body, signature = good.split(".")
    tokens = {
        "five parts": ".".join([b64({"alg": "dir", "enc": "A256GCM"}), "", b64(b"iv"), b64(b"text"), b64(b"tag")]),
        "five good parts": f"{head}.{body}.{signature}.{body}.{signature}", "four parts": f"{good}.x",
        "two parts": f"{head}.{body}", "one part": head, "dots": "..", "padded": f"{head}=.{body}==.{signature}=",
        "spaces": f"{head} .{body}.{signature}", "quoted": f'"{good}"', "in brackets": f"[{good}]",
        "Bearer": f"Bearer {good}",
        "percent": good.replace(".", "%2E"), "base64-": "base64-" + base64.b64encode(good.encode()).decode(),
        "JSON": '{"payload":"' + body + '"}', "not ASCII": good + "é", "long": f"{head}.{'A' * MAX_TOKEN}.{signature}",
        "plus": f"{head}.{body}.+/{signature[2:]}", "comma": f"{good},{good}",
    }  # fmt: skip
    session = f"sb-access-token={good}"
    cookies = cookies_of(tokens) | {
        "twice": f"{session}; {session}", "twice, other first": f"sb-access-token=x; {session}",
        "twice, other last": f"{session}; sb-access-token=x", "twice, empty": f"sb-access-token=; {session}",
        "two headers": [session, session], "two headers, other": ["sb-access-token=x", session],
        "with spaces": f"sb-access-token = x; {session}", "upper case": f"SB-ACCESS-TOKEN={good}",
        "prefix": f"__Host-{session}", "suffix": f"sb-access-token.0={good}", "no value": "sb-access-token",
        "in quotes": f'x="; {session}"', "after a comma": f"x=y, {session}", "empty": "sb-access-token=",
        "$Version": f"$Version=1, {session}",
    }  # fmt: skip
    await all_refused_alike(forge, cookies)
    for cookie in (
        session, f"a=b;{session};c", f"a=b; {session} ; c=d", f"\t{session}\t", f"sb-access-token; {session}",
        f";;{session};;",
        f"SB-ACCESS-TOKEN=x; {session}", f"sb-access-token-2=x; {session}", f'x="{session[:15]}"; {session}',
    ):  # fmt: skip
        assert (await forge.get(cookie))[0] == 200, cookie
    assert (await forge.get("a=b", session))[0] == 200
    assert (await forge.get(headers=[f"Authorization: Bearer {good}"]))[0] == 401
    assert (await forge.get(path=f"/mail/accounts?access_token={good}&sb-access-token={good}"))[0] == 401


async def test_a_token_of_100_kilobytes_is_not_even_held(forge):
    status, headers, body = await forge.session("x" * 100_000)
    assert status == 431
    assert headers[b"connection"] == b"close"
    assert json.loads(body)["code"] == "headers_too_large"
