"""Users and what their plans allow."""

import pytest

from daemon.identity import Plans, User, users_store
from daemon.identity.users import normalise_email
from daemon.storage.database import Database
from tests.stored import one


@pytest.mark.parametrize(
    ("email", "normal"),
    [
        (" You@Example.COM ", "you@example.com"),
        ("a@B\u00fccher.example", "a@xn--bcher-kva.example"),
        ("a@XN--BCHER-KVA.example", "a@xn--bcher-kva.example"),
        ("a@B\u00fccher\u3002example", "a@xn--bcher-kva.example"),  # the ideographic full stop
        ("A@not a host", "a@not a host"),
        ("", ""),
    ],
)
def test_addresses_are_compared_normalised(email: str, normal: str) -> None:
    assert normalise_email(email) == normal


@pytest.mark.parametrize(
    ("one", "other"),
    [("mi\u212ae@x.example", "mike@x.example"), ("stra\u00dfe@x", "strasse@x"), ("\ufb00@x", "ff@x"),
     ("\uff41nn@x", "ann@x"), ("\u0131@x", "i@x"), ("\u017f@x", "s@x")],
)  # fmt: skip
def test_mailboxes_that_differ_are_told_apart(one: str, other: str) -> None:
    """Whoever confirms one of them must not get what somebody gave to the other."""
    assert normalise_email(one) != normalise_email(other)


def test_plans() -> None:
    plans = Plans({"free": 1, "pro": 10}, "free")
    assert plans.limits("pro").accounts == 10
    unknown = plans.limits("gold")
    assert (unknown.slug, unknown.accounts) == ("gold", 1), "one that is not configured has the default's limits"
    assert Plans({}, "free").limits("pro").accounts is None
    assert Plans({"pro": 10}, "free").limits("gold").accounts is None


async def test_who_called_is_stored_as_the_last_token_said(db: Database) -> None:
    for email, plan in (("Old@example.test", "free"), ("New@example.test", "pro")):
        user = User("sub", email, "Name", plan)
        await db.run(lambda conn, user=user: users_store.remember(conn, user))
    assert await one(db, "SELECT count(*) FROM users") == 1
    assert await one(db, "SELECT email || ' ' || email_normal || ' ' || plan FROM users") == (
        "New@example.test new@example.test pro"
    )
