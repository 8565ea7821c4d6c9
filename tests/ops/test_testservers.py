"""The test servers themselves: a fixture that lies would make every test that uses it worthless."""

import imaplib

import pytest

from ops.testservers.dovecot import Dovecot, DovecotOptions
from ops.testservers.mailbox import CommandRefused, Seed


def test_a_seeded_mailbox_reads_back_as_it_was_given(dovecot, mail_user):
    body = b"Subject: one\r\n\r\nhello\r\n"
    dovecot.seed(mail_user.name, [Seed(body, (r"\Seen",), 1_600_000_000.0), b"Subject: two\r\n\r\n"])
    stored = dovecot.dump(mail_user.name)
    assert list(stored) == [1, 2]
    assert stored[1].flags == {r"\Seen"}
    assert stored[1].size == len(body)


def test_what_another_client_does(dovecot, mail_user):
    dovecot.seed(mail_user.name, [b"Subject: %d\r\n\r\n" % n for n in range(10)])
    dovecot.flag(mail_user.name, [1, 2], r"\Flagged")
    dovecot.flag(mail_user.name, [2], r"\Flagged", remove=True)
    dovecot.expunge(mail_user.name, [3, 4, 5, 9])
    dovecot.move(mail_user.name, [6], "Archive")
    assert dovecot.uids(mail_user.name) == [1, 2, 7, 8, 10]
    assert dovecot.uids(mail_user.name, "Archive") == [1]
    assert [uid for uid, message in dovecot.dump(mail_user.name).items() if r"\Flagged" in message.flags] == [1]


def test_delivered_means_there(dovecot, mail_user):
    dovecot.deliver(mail_user.name, b"Subject: now\r\n\r\n")
    assert dovecot.uids(mail_user.name) == [1]


def test_a_wrong_password_is_refused_and_a_user_can_be_locked_out(private_dovecot):
    def login(password):
        client = imaplib.IMAP4_SSL(
            "localhost", private_dovecot.imaps_port, ssl_context=private_dovecot.authority.client_context())
        try:
            return client.login("ann", password)[0]
        finally:
            client.shutdown()

    assert login(private_dovecot.password) == "OK"
    with pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
        login("wrong")
    private_dovecot.refuse("ann")
    with pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
        login(private_dovecot.password)
    private_dovecot.accept("ann")
    assert login(private_dovecot.password) == "OK"


def test_started_again_it_has_the_same_ports_and_mail(private_dovecot):
    private_dovecot.deliver("ann", b"Subject: kept\r\n\r\n")
    ports = private_dovecot.ports
    private_dovecot.restart()
    assert private_dovecot.ports == ports
    assert private_dovecot.uids("ann") == [1]


@pytest.mark.parametrize("dovecot", [DovecotOptions(without=frozenset({"QRESYNC", "CONDSTORE"}))], indirect=True)
def test_capabilities_can_be_left_out(dovecot, mail_user):
    with dovecot.client(mail_user.name) as client:
        announced = client.capability()[1][0].split()
    assert b"QRESYNC" not in announced
    assert b"CONDSTORE" not in announced
    assert b"IDLE" in announced


def test_a_capability_it_never_had_cannot_be_left_out():
    dovecot = Dovecot(DovecotOptions(without=frozenset({"XFROBNICATE"})))
    try:
        with pytest.raises(ValueError, match="XFROBNICATE"):
            dovecot.start()
    finally:
        dovecot.close()


def test_a_refused_append_is_an_error(dovecot, mail_user):
    with pytest.raises(CommandRefused):
        dovecot.seed(mail_user.name, [b"Subject: x\r\n\r\n"], folder="a//b")
