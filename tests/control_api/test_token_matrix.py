"""Tokens whose algorithm, signature, header or key is not the issuer's: refused, over HTTP in both modes.

`test_token_claims_matrix` has their claims and how they are sent; `forge` makes them.
"""

import base64
import json

import trio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from tests.control_api.conftest import SECRET
from tests.control_api.forge import all_refused_alike, b64, cookies_of, hs256

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256's group (FIPS 186-4 D.1.2.3)


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
