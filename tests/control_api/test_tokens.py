"""Session tokens in both modes, against keys that are real and attacks that are known."""

import base64
import hashlib
import hmac
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from control_api.claims import TokenRefused
from control_api.jwks import PublishedKeys, fetcher
from control_api.keys import BadKeySet, read_key_set
from control_api.tokens import MAX_TOKEN, SharedSecret, TokenVerifier, verifier_from
from daemon.settings import Settings
from daemon.vault.secret import Secret

SECRET = "a session secret of at least thirty-two bytes"


def encode(value):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def hmac_signed(header, payload, key):
    signed = f"{encode(header)}.{encode(payload)}"
    return f"{signed}.{encode(hmac.new(key, signed.encode(), hashlib.sha256).digest())}"


@pytest.fixture
def published(jwks_server):
    return TokenVerifier(PublishedKeys(fetcher(jwks_server.url, None)), jwks_server.issuer, "free")


@pytest.fixture
def shared(jwks_server):
    return TokenVerifier(SharedSecret(Secret(SECRET)), jwks_server.issuer, "free")


async def refused(verifier, token, reason=None):
    with pytest.raises(TokenRefused) as caught:
        await verifier.verify(token)
    assert reason is None or caught.value.reason == reason
    assert not token or token not in str(caught.value)


@pytest.mark.parametrize("alg", ["ES256", "RS256"])
async def test_published_keys_verify(published, jwks_server, alg):
    user = await published.verify(jwks_server.make_token(alg=alg, sub="user-1", app_metadata={"plan": "pro"}))
    assert (user.id, user.plan) == ("user-1", "pro")
    assert jwks_server.requests == 1


async def test_a_shared_secret_verifies(shared, jwks_server):
    assert (await shared.verify(jwks_server.make_token(alg="HS256", key=SECRET, sub="user-1"))).id == "user-1"


async def test_modes_never_fall_back(published, shared, jwks_server):
    await refused(published, jwks_server.make_token(alg="HS256"), "algorithm")
    for alg in ("ES256", "RS256"):
        await refused(shared, jwks_server.make_token(alg=alg), "algorithm")
    assert jwks_server.requests == 0


async def test_a_public_key_is_no_hmac_secret(published, shared, jwks_server):
    key = jwks_server.keys["RS256"]
    for form in (serialization.PublicFormat.SubjectPublicKeyInfo, serialization.PublicFormat.PKCS1):
        pem = key.private.public_key().public_bytes(serialization.Encoding.PEM, form)
        payload = jwt.decode(jwks_server.make_token(), options={"verify_signature": False})
        token = hmac_signed({"alg": "HS256", "kid": key.kid, "typ": "JWT"}, payload, pem)
        await refused(published, token, "algorithm")
        await refused(shared, token, "signature")


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", ""])
async def test_none_is_no_algorithm(published, shared, jwks_server, alg):
    payload = jwt.decode(jwks_server.make_token(), options={"verify_signature": False})
    kid = jwks_server.keys["ES256"].kid
    for verifier in (published, shared):
        for signature in ("", "AA"):
            await refused(verifier, f"{encode({'alg': alg, 'kid': kid})}.{encode(payload)}.{signature}")


async def test_the_keys_own_algorithm_is_required(published, jwks_server):
    rsa, curve = jwks_server.keys["RS256"], jwks_server.keys["ES256"]
    await refused(published, jwks_server.make_token(alg="RS256", headers={"kid": curve.kid}), "algorithm_of_key")
    payload = jwt.decode(jwks_server.make_token(), options={"verify_signature": False})
    for alg in ("RS384", "RS512", "PS256"):
        await refused(published, jwt.encode(payload, rsa.private, algorithm=alg, headers={"kid": rsa.kid}), "algorithm")


async def test_kid_must_be_there_and_known(published, jwks_server):
    await refused(published, jwks_server.make_token(headers={"kid": "stranger"}), "unknown_key")
    payload = jwt.decode(jwks_server.make_token(), options={"verify_signature": False})
    await refused(published, jwt.encode(payload, jwks_server.keys["ES256"].private, algorithm="ES256"), "unknown_key")


async def test_another_keys_signature(published, shared, jwks_server):
    mine = jwks_server.keys["ES256"]
    jwks_server.rotate()
    await refused(published, jwks_server.make_token(headers={"kid": mine.kid}), "unknown_key")
    forged = jwks_server.make_token(key=mine, headers={"kid": jwks_server.keys["ES256"].kid})
    await refused(published, forged)
    await refused(shared, jwks_server.make_token(alg="HS256", key=SECRET + "!"), "signature")


async def test_a_token_cannot_bring_its_own_key(published, jwks_server):
    mine = jwks_server.keys["ES256"]
    jwks_server.rotate()
    for header in ({"jwk": mine.public_jwk()}, {"jku": "http://evil.example/jwks"}, {"x5u": "http://evil.example"}):
        await refused(published, jwks_server.make_token(key=mine, headers=header), "unknown_key")


@pytest.mark.parametrize("header", [{"crit": ["exp"]}, {"b64": False}, {"kid": 7}, {"kid": "x" * 300}, {"alg": None}])
async def test_headers_with_more_than_we_know(published, jwks_server, header):
    token = jwks_server.make_token()
    given = json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "==")) | header
    await refused(published, ".".join([encode(given), *token.split(".")[1:]]), "header")


@pytest.mark.parametrize(("claims", "reason"), [
    ({"exp": int(time.time()) - 3600}, "expired"), ({"nbf": int(time.time()) + 3600}, "not_yet_valid"),
    ({"iss": "https://other"}, "issuer"), ({"iss": "supabase", "role": "anon"}, "issuer"), ({"role": "anon"}, "role"),
    ({"role": "service_role"}, "role"), ({"aud": "anon"}, "audience"), ({"sub": None}, "subject"),
    ({"exp": None}, "expiry_missing"),
])
async def test_signed_but_no_session(published, shared, jwks_server, claims, reason):
    await refused(published, jwks_server.make_token(**claims), reason)
    await refused(shared, jwks_server.make_token(alg="HS256", key=SECRET, **claims), reason)


@pytest.mark.parametrize("token", [
    "", ".", "..", "a.b", "a.b.c.d", "a b.c.d", "ä.b.c", '"a.b.c"', "a.b.c\n", "a=.b.c", "a" * 100_000,
    "a.b." + "c" * MAX_TOKEN,
    encode(b"[" * 1400) + ".e30.AA", encode(b"{" * 20) + ".e30.AA", encode(b"\xff") + ".e30.AA", encode([]) + ".e30.AA",
    encode({"alg": ["HS256"]}) + ".e30.AA", "A.e30.AA", encode({"alg": "HS256", "x": "y" * 3000}) + ".e30.AA",
])
async def test_malformed(published, shared, jwks_server, token):
    await refused(published, token)
    await refused(shared, token)
    assert jwks_server.requests == 0


@pytest.mark.parametrize("payload", [b"[]", b"null", b"{", b"\xff\xfe", b"[" * 3000, b'{"exp": 1' + b"0" * 5000 + b"}"])
async def test_signed_nonsense(shared, payload):
    await refused(shared, hmac_signed({"alg": "HS256"}, payload, SECRET.encode()))


def test_settings_choose_the_mode(jwks_server):
    with pytest.raises(ValueError, match="needs a session secret"):
        verifier_from(Settings(), None)
    with pytest.raises(ValueError, match="32 bytes"):
        verifier_from(Settings(), Secret("short"))
    auth = {"mode": "jwks", "issuer": jwks_server.issuer}
    verifier_from(Settings.model_validate({"auth": auth}), None)


async def test_the_jwks_url_follows_from_the_issuer(jwks_server):
    settings = Settings.model_validate({"auth": {"mode": "jwks", "issuer": jwks_server.issuer}})
    assert (await verifier_from(settings, Secret(SECRET)).verify(jwks_server.make_token(sub="u"))).id == "u"
    await refused(verifier_from(settings, Secret(SECRET)), jwks_server.make_token(alg="HS256", key=SECRET), "algorithm")


def test_only_sound_public_signature_keys_are_read(jwks_server):
    rsa, curve = (jwks_server.keys[alg].public_jwk() for alg in ("RS256", "ES256"))
    unusable = [
        {"kty": "oct", "k": encode(b"x" * 32), "alg": "HS256", "kid": "symmetric"},
        rsa | {"kid": "private", "d": "AQAB"}, rsa | {"kid": "enc", "use": "enc"},
        rsa | {"kid": "sign", "key_ops": ["sign"]},
        rsa | {"kid": "no-alg", "alg": None}, rsa | {"kid": "wrong-alg", "alg": "HS256"},
        rsa | {"kid": "ps", "alg": "PS256"},
        rsa | {"kid": "tiny", "n": encode(b"\xff" * 64)}, rsa | {"kid": "huge", "n": encode(b"\xff" * 20_000)},
        rsa | {"kid": "no-n", "n": None}, rsa | {"kid": ""}, rsa | {"kid": 7}, rsa | {"kid": "x" * 300},
        curve | {"kid": "curve", "crv": "P-384"}, curve | {"kid": "point", "x": encode(b"\1" * 32)},
        curve | {"kid": "as-rsa", "alg": "RS256"},
        {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "alg": "EdDSA", "x": "AA"},
        rsa | {"kid": "twice"}, curve | {"kid": "twice"}, "text", None, {}, [],
    ]
    keys = read_key_set(json.dumps({"keys": [*unusable, rsa, curve]}).encode())
    assert {kid: key.algorithm for kid, key in keys.items()} == {rsa["kid"]: "RS256", curve["kid"]: "ES256"}
    assert "RSAPublicKey" not in repr(keys)


@pytest.mark.parametrize("document", [
    b"", b"[]", b"{}", b"null", b'{"keys": {}}', b"<html>", b"\xff", b"[" * 100_000,
    json.dumps({"keys": [{}] * 65}).encode(),
])
def test_no_key_sets(document):
    with pytest.raises(BadKeySet):
        read_key_set(document)
