"""What the campaign of sharing does to the database behind the daemon's back: time passes, and it passes slowly."""

from __future__ import annotations

from typing import Final

import psycopg

SLOWLY: Final = """
CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_sleep(random() * 0.01);
    RETURN coalesce(NEW, OLD);
END
$$;
CREATE TRIGGER slowly BEFORE INSERT OR UPDATE OR DELETE ON invitations FOR EACH ROW EXECUTE FUNCTION slowly();
CREATE TRIGGER slowly BEFORE INSERT OR UPDATE OR DELETE ON account_access FOR EACH ROW EXECUTE FUNCTION slowly();
CREATE TRIGGER slowly BEFORE UPDATE OF name, is_default, desired ON accounts FOR EACH ROW EXECUTE FUNCTION slowly();
CREATE TRIGGER slowly BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION slowly();
"""
"""Requests at the same time take turns within a millisecond; with every write up to 10 ms late they really meet."""


def slow_down(conninfo: str) -> None:
    """Let every write that sharing makes take its time, from now on."""
    with psycopg.connect(conninfo) as conn:
        conn.execute(SLOWLY)


def expire(conninfo: str, invitation: str) -> None:
    """Move an invitation into the past: its time is over."""
    with psycopg.connect(conninfo) as conn:
        conn.execute(
            "UPDATE invitations SET created_at = now() - interval '32 d', expires_at = now() WHERE id = %s",
            (invitation,),
        )
