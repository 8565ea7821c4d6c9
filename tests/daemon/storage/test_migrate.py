"""Migrations: the plan as a pure decision, and files applied to real servers."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
import trio
from psycopg import sql

from daemon.storage import migrate as module
from daemon.storage.connection import TrioConnection
from daemon.storage.migrate import (
    MIGRATIONS,
    Applied,
    Migration,
    SchemaDamaged,
    SchemaTooNew,
    ServerUnfit,
    migrate,
    plan,
    read_migrations,
)
from tests.fix_postgres import BOTH_SERVERS, Servers

DEADLINE = 30.0
ONE = Migration(1, "one", b"CREATE TABLE one (x int)")
TWO = Migration(2, "two", b"CREATE TABLE two (x int)")


def applied(*migrations: Migration) -> list[Applied]:
    return [Applied(each.version, each.name, each.checksum) for each in migrations]


def test_the_plan_is_what_was_not_applied() -> None:
    assert plan([], [ONE, TWO]) == [ONE, TWO]
    assert plan(applied(ONE), [ONE, TWO]) == [TWO]
    assert plan(applied(ONE, TWO), [ONE, TWO]) == []
    assert plan([], []) == []


def test_a_newer_database_is_refused() -> None:
    with pytest.raises(SchemaTooNew, match="version 2, this code knows 1"):
        plan(applied(ONE, TWO), [ONE])


def test_an_edited_file_is_refused_even_when_the_database_is_newer() -> None:
    with pytest.raises(SchemaDamaged, match="0001_one"):
        plan(applied(ONE, TWO), [Migration(1, "one", b"CREATE TABLE other (x int)")])


def test_a_history_with_a_gap_is_refused() -> None:
    with pytest.raises(SchemaDamaged, match="lacks migration 0001"):
        plan(applied(TWO), [ONE, TWO])


def test_line_ends_do_not_change_a_file() -> None:
    assert Migration(1, "a", b"a\r\nb").checksum == Migration(1, "a", b"a\nb").checksum


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["0001_one.sql", "0003_three.sql"], "0002 is missing"),
        (["0002_two.sql"], "0001 is missing"),
        (["0001_one.sql", "0001_other.sql"], "0002 is missing or there twice"),
        (["0001_one.sql", "notes.sql"], "notes.sql: a migration is named"),
    ],
)
def test_files_out_of_order_are_refused(tmp_path: Path, names: list[str], told: str) -> None:
    for name in names:
        (tmp_path / name).write_text("SELECT 1")
    with pytest.raises(SchemaDamaged, match=told):
        read_migrations(tmp_path)


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "0001_one.sql").write_bytes(b" " * (module.LARGEST_FILE + 1))
    with pytest.raises(SchemaDamaged, match="larger"):
        read_migrations(tmp_path)


def test_the_projects_own_files_are_in_order() -> None:
    assert [each.version for each in read_migrations()] == list(range(1, len(list(MIGRATIONS.glob("*.sql"))) + 1))


# -- against servers ---------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "0001_one.sql").write_text("CREATE TABLE one (x int); INSERT INTO one VALUES (1), (2);")
    (tmp_path / "0002_two.sql").write_text("-- 100% plain\nCREATE TABLE two (x int);")
    return tmp_path


@pytest.fixture
def empty_dsn(postgres_dsn: str, postgres_servers: Servers, request: pytest.FixtureRequest) -> object:
    """A database in which nothing is."""
    _, server = postgres_servers.owner_of(postgres_dsn)
    name = sql.Identifier("test_migrate")
    server.execute(sql.SQL("CREATE DATABASE {}").format(name))
    yield f"host={server.socket} user=postgres dbname=test_migrate"
    server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def tables(dsn: str) -> list[str]:
    with psycopg.connect(dsn) as conn:
        rows = conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1").fetchall()
    return [row[0] for row in rows]


@BOTH_SERVERS
async def test_fresh_then_again_then_one_more(empty_dsn: str, files: Path) -> None:
    with trio.fail_after(DEADLINE):
        assert await migrate(empty_dsn, directory=files) == [1, 2]
        assert tables(empty_dsn) == ["one", "schema_migrations", "two"]
        assert await migrate(empty_dsn, directory=files) == []
        (files / "0003_three.sql").write_text("ALTER TABLE two ADD y text")
        assert await migrate(empty_dsn, directory=files) == [3]


@BOTH_SERVERS
async def test_accounts_of_the_first_schema_are_taken_along(empty_dsn: str, tmp_path: Path) -> None:
    (tmp_path / "0001_accounts_and_mail.sql").write_bytes((MIGRATIONS / "0001_accounts_and_mail.sql").read_bytes())
    with trio.fail_after(DEADLINE):
        assert await migrate(empty_dsn, directory=tmp_path) == [1]
        with psycopg.connect(empty_dsn) as conn:
            conn.execute("INSERT INTO users (id, email, email_normal, name, plan) VALUES ('ann', '', '', '', 'free')")
            conn.execute(
                "INSERT INTO accounts (id, owner_id, email, email_normal, name, imap_host, imap_port, imap_security,"
                " smtp_host, smtp_port, smtp_security, username, data_key, password_sealed, is_default)"
                " SELECT gen_random_uuid(), 'ann', n || '@test', n || '@test', '', 'imap.test', 993, 'tls',"
                " 'smtp.test', 465, 'tls', n::text, 'x', 'x', n = 1 FROM generate_series(1, 50) n"
            )
            conn.execute("INSERT INTO account_access SELECT id, owner_id, 'owner' FROM accounts")
        assert 2 in await migrate(empty_dsn)
    with psycopg.connect(empty_dsn) as conn:
        changed = "SELECT count(*), count(DISTINCT changed) FROM accounts"
        assert conn.execute(changed).fetchone() == (50, 1)
        conn.execute("UPDATE accounts SET name = 'Other', changed = '1' WHERE username = '7'")  # nobody else says when
        conn.execute("UPDATE accounts SET last_contact_at = now() WHERE username = '8'")
        own = "SELECT array_agg(username) FROM accounts WHERE changed = pg_current_xact_id()"
        assert conn.execute(own).fetchone() == (["7"],)
        conn.execute("DELETE FROM accounts WHERE username = '9'")
        told = "SELECT array_agg(user_id) FROM access_changes WHERE changed = pg_current_xact_id()"
        assert conn.execute(told).fetchone() == (["ann"],)


ACCOUNTS = (
    "INSERT INTO users (id, email, email_normal, name, plan) SELECT 'user' || o, '', 'u' || o, '', 'free'"
    " FROM generate_series(1, 4) o;"
    "INSERT INTO accounts (id, owner_id, email, email_normal, name, imap_host, imap_port,"
    " imap_security, smtp_host, smtp_port, smtp_security, username, data_key, password_sealed)"
    " SELECT gen_random_uuid(), 'user' || o, o || '-' || n, o || '-' || n, '', 'imap.test', 993, 'tls', 'smtp.test',"
    " 465, 'tls', o || '-' || n, 'x', 'x' FROM generate_series(1, 4) o, generate_series(1, 5) n;"
    "INSERT INTO account_access SELECT id, owner_id, 'owner' FROM accounts; INSERT INTO claims SELECT id FROM accounts;"
    "INSERT INTO folders (account_id, name) SELECT id, 'INBOX' FROM accounts"
)
"""Four owners with five accounts each, as the second schema has them; none is anybody's default."""
FENCED = ("SELECT FROM claims WHERE account_id = %s FOR SHARE SKIP LOCKED",)
ACCOUNT = ("UPDATE accounts SET sync_requested_at = clock_timestamp() WHERE id = %s",)
FOLDER = ("UPDATE folders SET synced_at = now() WHERE account_id = %s",)
WORKS = (
    ("SELECT FROM accounts WHERE id = %s FOR NO KEY UPDATE", *ACCOUNT),  # a request of the API
    (*FENCED, *ACCOUNT, *FOLDER),  # what a group writes, in any order
    (*FENCED, *FOLDER, *ACCOUNT),
)


async def test_the_third_is_applied_beside_a_running_fleet(empty_dsn: str, tmp_path: Path) -> None:
    for file in sorted(MIGRATIONS.glob("000[12]_*.sql")):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    await migrate(empty_dsn, directory=tmp_path)
    with psycopg.connect(empty_dsn) as conn:
        conn.execute(ACCOUNTS)
        ids = [row[0] for row in conn.execute("SELECT id FROM accounts").fetchall()]
    written = [0] * 12
    done = trio.Event()

    async def node(n: int) -> None:
        async with await TrioConnection.connect(empty_dsn, autocommit=True) as conn:
            while not done.is_set():
                async with conn.transaction():
                    for statement in WORKS[n % len(WORKS)]:
                        await conn.execute(statement, (ids[n],))
                written[n] += 1

    async def written_by_all() -> None:
        written[:] = [0] * len(written)
        while not all(written):  # noqa: ASYNC110 - what is waited for tells nobody
            await trio.sleep(0.01)

    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            for n in range(len(written)):
                nursery.start_soon(node, n)
            await written_by_all()
            applied = await migrate(empty_dsn)
            await written_by_all()
            done.set()
    assert applied[0] == 3
    with psycopg.connect(empty_dsn) as conn:
        defaults = conn.execute("SELECT owner_id FROM accounts WHERE is_default ORDER BY 1").fetchall()
    assert defaults == [("user1",), ("user2",), ("user3",), ("user4",)]


async def test_an_account_that_changes_hands_leaves_both_owners_a_default(database_dsn: str) -> None:
    with psycopg.connect(database_dsn, autocommit=True) as conn:
        conn.execute("INSERT INTO users (id, email, email_normal, name, plan) VALUES ('a', '', 'a', '', 'free')")
        conn.execute("INSERT INTO users (id, email, email_normal, name, plan) VALUES ('b', '', 'b', '', 'free')")
        conn.execute(
            "INSERT INTO accounts (id, owner_id, email, email_normal, name, imap_host, imap_port, imap_security,"
            " smtp_host, smtp_port, smtp_security, username, data_key, password_sealed, is_default)"
            " SELECT gen_random_uuid(), 'a', n || '@test', n || '@test', '', 'imap.test', 993, 'tls', 'smtp.test', 465,"
            " 'tls', n::text, 'x', 'x', n = 1 FROM generate_series(1, 2) n"
        )
        with pytest.raises(psycopg.errors.CheckViolation, match="has a default"):
            conn.execute("UPDATE accounts SET owner_id = 'b' WHERE is_default")  # the other is left
        with pytest.raises(psycopg.errors.CheckViolation, match="has a default"):
            conn.execute("UPDATE accounts SET owner_id = 'b' WHERE NOT is_default")  # their only one
        with conn.transaction():
            conn.execute("UPDATE accounts SET owner_id = 'b' WHERE is_default")
            conn.execute("UPDATE accounts SET is_default = true WHERE owner_id = 'a'")
        assert conn.execute("SELECT count(*) FROM accounts WHERE is_default").fetchone() == (2,)


async def test_no_files_make_an_empty_history(empty_dsn: str, tmp_path: Path) -> None:
    with trio.fail_after(DEADLINE):
        assert await migrate(empty_dsn, directory=tmp_path) == []


async def test_a_changed_file_is_refused_and_nothing_is_applied(empty_dsn: str, files: Path) -> None:
    with trio.fail_after(DEADLINE):
        await migrate(empty_dsn, directory=files)
        (files / "0001_one.sql").write_text("CREATE TABLE one (x bigint)")
        (files / "0003_three.sql").write_text("CREATE TABLE three (x int)")
        with pytest.raises(SchemaDamaged, match="is not the file that was applied"):
            await migrate(empty_dsn, directory=files)
        assert "three" not in tables(empty_dsn)


async def test_older_code_refuses_a_newer_database(empty_dsn: str, files: Path) -> None:
    with trio.fail_after(DEADLINE):
        await migrate(empty_dsn, directory=files)
        (files / "0002_two.sql").unlink()
        with pytest.raises(SchemaTooNew):
            await migrate(empty_dsn, directory=files)


async def test_a_failing_file_leaves_nothing_and_the_ones_before_it_stay(empty_dsn: str, files: Path) -> None:
    broken = files / "0003_three.sql"
    broken.write_text("CREATE TABLE three (x int); INSERT INTO three VALUES (1); SELECT * FROM nowhere;")
    with trio.fail_after(DEADLINE):
        with pytest.raises(psycopg.errors.UndefinedTable):
            await migrate(empty_dsn, directory=files)
        assert tables(empty_dsn) == ["one", "schema_migrations", "two"]
        broken.write_text("CREATE TABLE three (x int)")
        assert await migrate(empty_dsn, directory=files) == [3]


@pytest.mark.parametrize("text", ["CREATE TABLE x (); COMMIT; BEGIN;", "CREATE TABLE x (); COMMIT;"])
async def test_a_file_that_ends_its_transaction_is_refused(empty_dsn: str, tmp_path: Path, text: str) -> None:
    (tmp_path / "0001_one.sql").write_text(text)
    with trio.fail_after(DEADLINE), pytest.raises(SchemaDamaged, match="ends its own transaction"):
        await migrate(empty_dsn, directory=tmp_path)


async def test_two_migrators_share_the_work_and_apply_each_file_once(empty_dsn: str, files: Path) -> None:
    (files / "0001_one.sql").write_text("SELECT pg_sleep(0.3); CREATE TABLE one (x int);")
    results = []

    async def run() -> None:
        results.append(await migrate(empty_dsn, directory=files))

    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(run)
    assert sorted(version for done in results for version in done) == [1, 2]


async def test_a_table_in_use_stops_the_migration_and_not_the_fleet(
    empty_dsn: str, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCK_TIMEOUT", 0.05)
    with trio.fail_after(DEADLINE):
        await migrate(empty_dsn, directory=files)
        (files / "0003_three.sql").write_text("ALTER TABLE one ADD y int")
        with psycopg.connect(empty_dsn) as busy:
            busy.execute("SELECT * FROM one")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                await migrate(empty_dsn, directory=files)
        assert await migrate(empty_dsn, directory=files) == [3]


async def test_a_database_that_is_not_utf8_is_refused(
    postgres_servers: Servers, postgres_dsn: str, files: Path
) -> None:
    _, server = postgres_servers.owner_of(postgres_dsn)
    name = sql.Identifier("test_latin1")
    server.execute(
        sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'").format(name)
    )
    try:
        with trio.fail_after(DEADLINE), pytest.raises(ServerUnfit):
            await migrate(f"host={server.socket} user=postgres dbname=test_latin1", directory=files)
    finally:
        server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
