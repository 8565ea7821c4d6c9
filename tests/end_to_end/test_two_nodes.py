"""Two daemons on one database: takeover within the claim's expiry plus 10 s, the load shared, no message twice."""

from tests.end_to_end.two_nodes import TwoNodes
from tests.fix_daemon import MailServers, StartDaemon, connect, eventually

ACCOUNTS = 40
CLAIM_TTL = 3.0

FLEET = {"claim_ttl": CLAIM_TTL, "starting": 20, "starting_per_host": 20}
NODE = {"fleet": FLEET, "plans.free": {"accounts": 1000}}


def test_one_is_killed_and_comes_back(start_daemon: StartDaemon, mail: MailServers, new_user: str) -> None:
    one, other = (start_daemon(*mail.ports, **NODE) for _ in range(2))
    users = [f"n{number}-{new_user}" for number in range(ACCOUNTS)]
    figures = TwoNodes(one, other, mail, users).run(patience=CLAIM_TTL + 10.0)
    assert sorted(figures.shared_first.values()) == [ACCOUNTS // 2] * 2
    assert sorted(figures.shared_again.values()) == [ACCOUNTS // 2] * 2
    # The figure the design promises: the claims' expiry and ten seconds more.
    assert figures.taken_over < CLAIM_TTL + 10.0
    assert (one.stop(), other.stop()) == (0, 0)


def test_started_again_it_is_the_same_node(start_daemon: StartDaemon, mail: MailServers, new_user: str) -> None:
    """A claim of half a minute would have to expire, were the daemon a new node after kill -9."""
    daemon = start_daemon(*mail.ports)
    with daemon.client(new_user) as http:
        account_id = connect(http, mail.mailbox(new_user))
        daemon.wait_synced(http, account_id)
    daemon.kill()
    before = daemon.query("SELECT owner FROM claims")
    since = daemon.query("SELECT now()")[0][0]
    daemon.start()
    eventually(lambda: daemon.query("SELECT 1 FROM accounts WHERE last_synced_at > %s", since), 10.0)
    assert daemon.query("SELECT owner FROM claims") == before


def test_what_one_node_is_asked_another_does(start_daemon: StartDaemon, mail: MailServers, new_user: str) -> None:
    one, other = (start_daemon(*mail.ports, **NODE) for _ in range(2))
    with one.client(new_user) as http:
        ids = [connect(http, mail.mailbox(f"{number}-{new_user}")) for number in range(2)]
        eventually(lambda: len(set(one.query("SELECT owner FROM claims"))) == 2)
        for account_id in ids:
            one.wait_synced(http, account_id)
            assert http.post("/mail/sync", json={"account_id": account_id}).json()["status"] == "synced"
            assert http.delete(f"/mail/accounts/{account_id}").status_code == 200
        eventually(lambda: one.query("SELECT DISTINCT state FROM accounts") == [("stopped",)])
    assert (one.stop(), other.stop()) == (0, 0)
