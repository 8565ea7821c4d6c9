"""Sending at real servers: what became of each recipient."""

import pytest
import trio

from daemon.errors import Fault, FaultKind
from daemon.network import Endpoint, Security
from daemon.smtp import Patience, Verdict, open_submission
from daemon.vault.secret import Secret
from ops.testservers.smtp import SmtpOptions
from tests.daemon.network.loopback import dialer_to

from .servers import BIG, BOB, EVE, MESSAGE, USER, parts


def opened(server, ca_file, *, security=Security.TLS, user=USER, **options):
    port = server.tls_port if security is Security.TLS else server.starttls_port
    dialer, endpoint = dialer_to(port, ca_file=ca_file), Endpoint(server.host, port, security)
    return open_submission(dialer, endpoint, user, Secret(server.password), **options)


@pytest.mark.parametrize("security", Security)
async def test_a_message_arrives_at_aiosmtpd(security, smtp_server, ca_file, new_user):
    message = b"Subject: dots\r\n\r\n.\r\n..two\r\n.end\r\nbare\nlf\r\n"
    async with opened(smtp_server, ca_file, security=security) as submission:
        result = await submission.send(USER, [new_user], message)
    assert result.verdict is Verdict.ACCEPTED
    assert result.accepted == (new_user,)
    assert (result.reply.code, result.reply.enhanced) == (250, "2.0.0")
    (mail,) = smtp_server.mails_to(new_user)
    assert mail.content == message.replace(b"bare\nlf", b"bare\r\nlf")
    assert (mail.sender, mail.user, mail.tls) == (USER, USER, True)


@pytest.mark.parametrize("security", Security)
async def test_a_message_passes_through_dovecot(security, submission, ca_file, new_user):
    async with opened(submission, ca_file, security=security, user=new_user) as sender:
        result = await sender.send(new_user, [new_user], MESSAGE)
        assert result.verdict is Verdict.ACCEPTED
        refused = await sender.send(new_user, ["say-550-5.1.1@example.test", new_user], MESSAGE)
        assert (refused.accepted, list(refused.refused)) == ((new_user,), ["say-550-5.1.1@example.test"])
    await trio.to_thread.run_sync(submission.relay.wait_for_mail_to, new_user, 2)


async def test_one_connection_takes_many(smtp_server, ca_file, new_user):
    async with opened(smtp_server, ca_file) as submission:
        for _ in range(5):
            assert (await submission.send(USER, [new_user], MESSAGE)).verdict is Verdict.ACCEPTED
        await submission.check()
        statistics = submission.statistics()
    assert (statistics.messages, statistics.accepted) == (5, 5)
    assert statistics.bytes_sent > 5 * len(MESSAGE)
    mails = smtp_server.mails_to(new_user)
    assert len(mails) == 5
    assert len({mail.connection for mail in mails}) == 1


async def test_each_recipient_has_its_own_fate(smtp_server, ca_file, new_user):
    gone, later, bad = "say-550-5.1.1@example.test", "say-450-4.2.1@example.test", "no address"
    async with opened(smtp_server, ca_file) as submission:
        result = await submission.send(USER, [gone, new_user, later, bad, new_user], MESSAGE)
        assert result.verdict is Verdict.ACCEPTED
        assert result.accepted == (new_user,)
        assert {one: (reply.code, reply.enhanced) for one, reply in result.refused.items()} == {
            gone: (550, "5.1.1"), bad: (553, "5.1.3")}
        assert [reply.local for reply in result.refused.values()].count(True) == 1
        assert {one: reply.code for one, reply in result.deferred.items()} == {later: 450}
        assert "as you asked" in result.refused[gone].text
        assert (await submission.send(USER, [new_user], MESSAGE)).verdict is Verdict.ACCEPTED
    assert [mail.recipients for mail in smtp_server.mails_to(new_user)] == [(new_user,)] * 2


@pytest.mark.parametrize(("sender", "recipients", "verdict"), [
    (USER, ["say-550-5.1.1@example.test", "say-553@example.test"], Verdict.REFUSED),
    (USER, ["say-550-5.1.1@example.test", "say-450-4.2.1@example.test"], Verdict.DEFERRED),
    (USER, ["data-554-5.7.1@example.test"], Verdict.REFUSED),
    (USER, ["data-452-4.3.1@example.test"], Verdict.DEFERRED),
    ("say-550-5.7.60@example.test", [BOB], Verdict.REFUSED),
    ("say-450-4.7.1@example.test", [BOB, EVE], Verdict.DEFERRED),
    ("no sender", [BOB], Verdict.REFUSED),
    (USER, ["no recipient"], Verdict.REFUSED),
    # permanent by its code, and yet for later
    (USER, ["data-550-5.4.5@example.test"], Verdict.DEFERRED),
])
async def test_nobody_takes_it_and_the_connection_goes_on(sender, recipients, verdict, smtp_server, ca_file, new_user):
    async with opened(smtp_server, ca_file) as submission:
        result = await submission.send(sender, recipients, MESSAGE)
        assert result.verdict is verdict
        assert result.accepted == ()
        assert parts(result) == sorted(recipients)
        assert submission.usable
        assert (await submission.send(USER, [new_user], MESSAGE)).verdict is Verdict.ACCEPTED


async def test_a_limit_is_told_apart_from_a_refusal(smtp_server, ca_file):
    async with opened(smtp_server, ca_file) as submission:
        limited = await submission.send(USER, ["data-550-5.4.5@example.test"], MESSAGE)
        assert limited.fault.kind is FaultKind.THROTTLED
        assert (await submission.send(USER, ["data-554-5.7.1@example.test"], MESSAGE)).fault is None


@pytest.mark.parametrize("fate", ["hang", "drop", "lost"])
async def test_silence_after_the_message_is_unknown(fate, smtp_server, ca_file, new_user):
    """`hang` and `drop` took the message, `lost` did not: from here they look the same."""
    recipients = [f"{fate}@example.test", new_user]
    async with opened(smtp_server, ca_file, patience=Patience(final=1.0)) as submission:
        result = await submission.send(USER, [*recipients, "say-550@example.test"], MESSAGE)
        assert result.verdict is Verdict.UNKNOWN
        assert result.unknown == tuple(recipients)
        assert list(result.refused) == ["say-550@example.test"]
        assert result.accepted == ()
        assert result.reply is None
        assert result.fault.kind is FaultKind.LOST
        assert submission.in_doubt
        assert not submission.usable
        with pytest.raises(Fault) as caught:
            await submission.send(USER, [new_user], MESSAGE)
        assert caught.value.kind is FaultKind.LOST
    assert len(smtp_server.mails_to(new_user)) == (0 if fate == "lost" else 1)


async def test_cancelled_after_the_message_is_in_doubt(smtp_server, ca_file, new_user):
    async with opened(smtp_server, ca_file) as submission:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(submission.send, USER, ["hang@example.test", new_user], MESSAGE)
            await trio.to_thread.run_sync(smtp_server.wait_for_mail_to, new_user)
            nursery.cancel_scope.cancel()
        assert nursery.cancel_scope.cancelled_caught
        assert submission.in_doubt
        assert not submission.usable


async def test_a_large_message_arrives_whole(smtp_server, ca_file, new_user):
    async with opened(smtp_server, ca_file) as submission:
        result = await submission.send(USER, [new_user], BIG)
    assert result.verdict is Verdict.ACCEPTED
    assert smtp_server.mails_to(new_user)[0].content == BIG


@pytest.mark.parametrize("smtp_server", [SmtpOptions(size_limit=10_000)], indirect=True)
async def test_a_message_beyond_the_announced_size_is_not_sent(smtp_server, ca_file, new_user):
    async with opened(smtp_server, ca_file) as submission:
        assert submission.size_limit == 10_000
        result = await submission.send(USER, [new_user], MESSAGE + b"x" * 10_000)
        assert result.verdict is Verdict.REFUSED
        assert result.refused[new_user].local
        assert (await submission.send(USER, [new_user], MESSAGE)).verdict is Verdict.ACCEPTED


async def test_international_addresses(smtp_server, ca_file):
    recipient = "žofie@example.test"
    async with opened(smtp_server, ca_file) as submission:
        message = "Subject: ü\r\n\r\nö".encode()
        result = await submission.send("jürgen@example.test", [recipient, "bob@bücher.example"], message)
    assert result.accepted == (recipient, "bob@bücher.example")
    (mail,) = smtp_server.mails_to(recipient)
    assert mail.sender == "jürgen@example.test"
    assert mail.recipients == (recipient, "bob@xn--bcher-kva.example")


@pytest.mark.parametrize("smtp_server", [SmtpOptions(smtputf8=False)], indirect=True)
async def test_international_addresses_where_they_are_not_taken(smtp_server, ca_file, new_user):
    async with opened(smtp_server, ca_file) as submission:
        result = await submission.send(USER, ["žofie@example.test", new_user], MESSAGE)
        assert (result.accepted, list(result.refused)) == ((new_user,), ["žofie@example.test"])
        result = await submission.send("jürgen@example.test", [new_user], MESSAGE)
        assert (result.verdict, result.refused[new_user].enhanced) == (Verdict.REFUSED, "5.6.7")


async def test_the_null_sender(smtp_server, ca_file, new_user):
    async with opened(smtp_server, ca_file) as submission:
        assert (await submission.send("", [new_user], MESSAGE)).verdict is Verdict.ACCEPTED
    assert smtp_server.mails_to(new_user)[0].sender == "<>"  # as aiosmtpd writes it


async def test_a_message_needs_a_recipient(smtp_server, ca_file):
    async with opened(smtp_server, ca_file) as submission:
        with pytest.raises(ValueError, match="recipient"):
            await submission.send(USER, [], MESSAGE)


async def test_a_server_that_went_while_idle_is_noticed(private_smtp_server, ca_file):
    async with opened(private_smtp_server, ca_file) as submission:
        private_smtp_server.stop()
        with pytest.raises(Fault) as caught:
            await submission.check()
        assert caught.value.kind is FaultKind.LOST
        assert not submission.usable
