"""What makes claims a session: every rule at its edge."""

import math

import pytest

from control_api.claims import LEEWAY, TokenRefused, user_from_claims
from daemon.identity import User

NOW = 1_800_000_000.0
GOOD = {"iss": "https://issuer", "aud": "authenticated", "role": "authenticated", "sub": "user-1", "exp": NOW + 60,
        "email": "you@example.com"}


def judge(**claims):
    claims = {name: value for name, value in (GOOD | claims).items() if value is not ...}
    return user_from_claims(claims, issuer="https://issuer", now=NOW, default_plan="free")


def test_a_good_session():
    assert judge() == User("user-1", "you@example.com", "you@example.com", "free")


@pytest.mark.parametrize(("claims", "reason"), [
    ({"exp": ...}, "expiry_missing"), ({"exp": None}, "expiry_missing"), ({"exp": True}, "expiry_missing"),
    ({"exp": str(NOW + 60)}, "expiry_missing"), ({"exp": math.nan}, "expiry_missing"),
    ({"exp": math.inf}, "expiry_missing"), ({"exp": 10**400}, "expiry_missing"),
    ({"exp": NOW - LEEWAY}, "expired"), ({"exp": 0}, "expired"), ({"exp": -(10**300)}, "expired"),
    ({"nbf": NOW + LEEWAY + 1}, "not_yet_valid"), ({"nbf": "soon"}, "not_yet_valid"), ({"nbf": None}, "not_yet_valid"),
    ({"iss": "https://issuer/"}, "issuer"), ({"iss": "https://ISSUER"}, "issuer"), ({"iss": ...}, "issuer"),
    ({"iss": ["https://issuer"]}, "issuer"),
    ({"aud": "anon"}, "audience"), ({"aud": []}, "audience"), ({"aud": ...}, "audience"),
    ({"aud": "authenticated "}, "audience"), ({"aud": {"authenticated": 1}}, "audience"),
    ({"aud": ["x"] * 16 + ["authenticated"]}, "audience"),
    ({"role": "anon"}, "role"), ({"role": "service_role"}, "role"), ({"role": ...}, "role"),
    ({"role": ["authenticated"]}, "role"),
    ({"sub": ""}, "subject"), ({"sub": ...}, "subject"), ({"sub": 7}, "subject"), ({"sub": "x" * 256}, "subject"),
    ({"sub": "a\0b"}, "subject"), ({"sub": "a\ud800"}, "subject"), ({"sub": "a\nb"}, "subject"),
    ({"sub": "/a"}, "subject"),
])
def test_refused(claims, reason):
    with pytest.raises(TokenRefused) as caught:
        judge(**claims)
    assert caught.value.reason == reason


@pytest.mark.parametrize("claims", [
    {"exp": NOW - LEEWAY + 1}, {"nbf": NOW + LEEWAY}, {"aud": ["other", "authenticated"]}, {"sub": "x" * 255},
    {"exp": 10**300},
])
def test_just_accepted(claims):
    judge(**claims)


def test_the_email_is_the_tokens_own_never_the_users_writing():
    user = judge(email=..., user_metadata={"email": "admin@example.com", "plan": "pro", "email_verified": True})
    assert (user.email, user.plan) == ("", "free")


@pytest.mark.parametrize("email", [7, "a\nb@example.com", "x" * 255, None])
def test_an_unusable_email_is_none(email):
    assert judge(email=email).email == ""


@pytest.mark.parametrize(("metadata", "plan"), [
    ({"plan": "pro"}, "pro"), ({"plan": "Pro"}, "free"), ({"plan": ""}, "free"), ({"plan": ["pro"]}, "free"),
    ({"plan": "x" * 64}, "free"), ({"plan": "pro\n"}, "free"), ("pro", "free"), (None, "free"),
])
def test_the_plan_is_the_applications(metadata, plan):
    assert judge(app_metadata=metadata).plan == plan


@pytest.mark.parametrize(("metadata", "name"), [
    ({"full_name": "Ada Lovelace"}, "Ada Lovelace"), ({"name": "Ada"}, "Ada"),
    ({"full_name": " A\r\nB\u202e "}, "AB"), ({"full_name": "\0\n"}, "you@example.com"),
    ({"full_name": 3}, "you@example.com"),
    ({"full_name": "x" * 10_000}, "x" * 200), ([], "you@example.com"),
])
def test_the_name_is_only_a_name(metadata, name):
    assert judge(user_metadata=metadata).name == name
