"""What a token claims, its shape, and the cookie it comes in: served, or refused, over HTTP in both modes.

`test_token_matrix` has algorithms, signatures, headers and keys; `forge` makes them all.
"""

import base64
import json

from control_api.tokens import MAX_TOKEN
from tests.control_api.forge import NOW, all_refused_alike, b64, cookies_of


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
