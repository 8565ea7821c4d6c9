"""The test servers themselves: a fixture that lies would make every test that uses it worthless."""

import email
import email.policy
import imaplib
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ops.testservers.dovecot import Dovecot, DovecotOptions
from ops.testservers.mail import messages, seeds
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


def test_clones_are_equal_and_apart(private_dovecot):
    dovecot = private_dovecot
    dovecot.seed("original", [b"Subject: %d\r\n\r\n" % n for n in range(3)])
    dovecot.clone("original", ["one", "other"])
    dovecot.deliver("one", b"Subject: hers alone\r\n\r\n")
    dovecot.expunge("original", [1])
    assert dovecot.uids("one") == [1, 2, 3, 4]
    assert dovecot.uids("other") == [1, 2, 3]
    assert dovecot.dump("other")[2] == dovecot.dump("original")[2]


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


@pytest.mark.parametrize("lifetime", [3600, -60])
def test_access_tokens_are_judged(dovecot, lifetime):
    said = f"user=ann\x01auth=Bearer {dovecot.oauth2_token('ann', lifetime=lifetime)}\x01\x01".encode()
    client = imaplib.IMAP4_SSL("localhost", dovecot.imaps_port, ssl_context=dovecot.authority.client_context())
    try:
        if lifetime > 0:
            assert client.authenticate("XOAUTH2", lambda _: said)[0] == "OK"
        else:
            with pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
                client.authenticate("XOAUTH2", lambda challenge: b"" if challenge else said)
    finally:
        client.shutdown()


def test_no_login_without_tls_from_elsewhere(dovecot):
    client = imaplib.IMAP4(dovecot.strict_host, dovecot.imap_port)
    try:
        assert "LOGINDISABLED" in client.capabilities
        with pytest.raises(imaplib.IMAP4.error, match="PRIVACYREQUIRED"):
            client.login("ann", dovecot.password)
        client.starttls(ssl_context=dovecot.authority.client_context())
        assert client.login("ann", dovecot.password)[0] == "OK"
    finally:
        client.shutdown()


def test_a_server_dies_with_who_started_it(tmp_path):
    script = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from ops.testservers.dovecot import Dovecot
dovecot = Dovecot()
dovecot.start()
print(dovecot.pid, dovecot.base, flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-P", "-c", script], stdout=subprocess.PIPE, check=False)
    assert done.returncode == -9
    pid, base = done.stdout.decode().split()
    deadline = time.monotonic() + 10
    while (group_runs(int(pid)) or Path(base).exists()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not group_runs(int(pid))
    assert not Path(base).exists()


def group_runs(group):
    return any(os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
               for process in psutil.Process().children())


def test_a_folder_made_anew_has_another_uidvalidity(dovecot, mail_user):
    dovecot.seed(mail_user.name, [b"Subject: x\r\n\r\n"], folder="Work")
    for _ in range(3):      # within the same second, too
        dovecot.recreate(mail_user.name, "Work")
    assert dovecot.uids(mail_user.name, "Work") == []


def test_messages_are_well_formed_and_the_same_for_the_same_seed():
    made = list(seeds(300, seed=7))
    assert [each.content for each in made[:50]] == list(messages(50, seed=7)) != list(messages(50, seed=8))
    charsets, replies = set(), 0
    for each in made:
        parsed = email.message_from_bytes(each.content, policy=email.policy.default)
        assert not parsed.defects
        assert parsed["Message-ID"]
        assert parsed["From"].addresses
        replies += "In-Reply-To" in parsed
        for part in parsed.walk():
            assert not part.defects
            if not part.is_multipart():
                part.get_content()
                charsets.add(part.get_content_charset())
    assert {"utf-8", "us-ascii", "iso-8859-1", "koi8-r", "iso-2022-jp"} <= charsets
    assert replies > 50


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
