"""Users and what their plans allow."""

import pytest

from daemon.identity import Plans, User, users_store
from daemon.identity.users import normalise_email
from daemon.storage.database import Database
from tests.stored import one


@pytest.mark.parametrize(
    ("email", "normal"),
    [(" You@Example.COM ", "you@example.com"), ("STRASSE@x", "strasse@x"), ("straße@x", "strasse@x")],
)
def test_addresses_are_compared_folded(email: str, normal: str) -> None:
    assert normalise_email(email) == normal


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
