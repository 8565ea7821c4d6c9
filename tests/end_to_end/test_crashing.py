"""kill -9 in the middle of a first sync, and what comes while nobody looks: nothing is lost, nothing is there twice."""

from ops.testservers.mail import messages, seeds
from tests.end_to_end.comparing import assert_equal, wait_stored
from tests.fix_daemon import MailServers, StartDaemon, connect

MESSAGES = 3000


def test_killed_in_the_first_sync(start_daemon: StartDaemon, mail: MailServers, new_user: str) -> None:
    mail.imap.seed(new_user, seeds(MESSAGES, seed=21))
    daemon = start_daemon(*mail.ports, sync={"window": 50})
    with daemon.client(new_user) as http:
        account_id = connect(http, mail.mailbox(new_user))
    for stored in (200, 900):
        wait_stored(daemon, account_id, stored)
        daemon.kill()
        (count,) = daemon.query("SELECT count(*) FROM messages WHERE account_id = %s", account_id)
        assert stored <= count[0] < MESSAGES, "it was to be killed half way"
        daemon.start()
    with daemon.client(new_user) as http:
        daemon.wait_synced(http, account_id)
        assert_equal(daemon, account_id, mail.imap, new_user)
        (folder,) = http.get(f"/mail/accounts/{account_id}").json()["account"]["folders"]
        assert (folder["messages_done"], folder["complete"]) == (MESSAGES, True)

    assert daemon.stop() == 0
    uids = mail.imap.uids(new_user)
    mail.imap.flag(new_user, uids[100:200], "\\Flagged")
    mail.imap.expunge(new_user, uids[300:400])
    mail.imap.seed(new_user, messages(100, seed=22))
    daemon.start()
    wait_stored(daemon, account_id, MESSAGES + 100)
    with daemon.client(new_user) as http:
        daemon.wait_synced(http, account_id)
    received = "SELECT count(*) FROM events WHERE type = 'email.received' AND account_id = %s"
    assert daemon.query(received, account_id) == [(100,)]
    assert_equal(daemon, account_id, mail.imap, new_user)
