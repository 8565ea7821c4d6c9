import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.errors import Disposition, Fault, FaultKind
from daemon.smtp.faults import Phase, is_throttling, judge, no_login_offered, speaks_of_us, starttls_not_offered
from daemon.smtp.replies import reply

PARK, RETRY = Disposition.PARK, Disposition.RETRY


@pytest.mark.parametrize(("code", "text", "kind", "disposition"), [
    (535, "5.7.8 Username and Password not accepted.", FaultKind.AUTH_FAILED, PARK),
    (535, "Authentication failed", FaultKind.AUTH_FAILED, PARK),
    (535, "5.7.3 Authentication unsuccessful", FaultKind.AUTH_FAILED, PARK),
    (535, "5.7.139 Authentication unsuccessful, the user credentials were incorrect.", FaultKind.AUTH_FAILED, PARK),
    (550, "5.7.8 bad credentials", FaultKind.AUTH_FAILED, PARK),
    (432, "4.7.12 A password transition is needed", FaultKind.AUTH_FAILED, PARK),
    (550, "5.7.1 Your address is listed", FaultKind.AUTH_FAILED, RETRY),
    (530, "5.7.0 Authentication required", FaultKind.AUTH_FAILED, RETRY),
    (535, "5.7.139 Authentication unsuccessful, basic authentication is disabled.",
     FaultKind.PASSWORD_UNSUPPORTED, PARK),
    (535, "5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant.",
     FaultKind.PASSWORD_UNSUPPORTED, PARK),
    (550, "5.7.30 Basic authentication is not supported for Client Submission", FaultKind.PASSWORD_UNSUPPORTED, PARK),
    (534, "5.7.9 Application-specific password required.", FaultKind.PASSWORD_UNSUPPORTED, PARK),
    (534, "5.7.14 Please log in via your web browser", FaultKind.PASSWORD_UNSUPPORTED, PARK),
    (538, "5.7.11 Encryption required", FaultKind.PASSWORD_UNSUPPORTED, PARK),
    (504, "5.5.4 Unrecognized authentication type", FaultKind.PASSWORD_UNSUPPORTED, PARK),
    (454, "4.7.0 Temporary authentication failure", FaultKind.UNAVAILABLE, RETRY),
    (454, "4.7.0 Too many login attempts, please try again later.", FaultKind.THROTTLED, RETRY),
    (421, "4.7.0 Try again later, closing connection.", FaultKind.UNAVAILABLE, RETRY),
    (421, "4.7.66 rate limit exceeded", FaultKind.THROTTLED, RETRY),
    (432, "4.3.2 Concurrent connections limit exceeded", FaultKind.THROTTLED, RETRY),
    (250, "what?", FaultKind.PROTOCOL, RETRY),
    (334, "more?", FaultKind.PROTOCOL, RETRY),
])
def test_logins(code, text, kind, disposition):
    fault = judge(reply(code, text), Phase.AUTH)
    assert (fault.kind, fault.disposition) == (kind, disposition)


@pytest.mark.parametrize(("code", "text", "kind"), [
    (421, "4.3.2 Service not available", FaultKind.THROTTLED),
    (421, "4.7.0 Too many concurrent SMTP connections", FaultKind.THROTTLED),
    (421, "closing down", FaultKind.UNAVAILABLE),
    (450, "greylisted", FaultKind.UNAVAILABLE),
    (554, "5.7.1 no service", FaultKind.CONNECT_FAILED),
    (250, "hello?", FaultKind.CONNECT_FAILED),
])
@pytest.mark.parametrize("phase", [Phase.GREETING, Phase.EHLO])
def test_greetings(code, text, kind, phase):
    fault = judge(reply(code, text), phase)
    assert (fault.kind, fault.disposition) == (kind, RETRY)


@pytest.mark.parametrize(("phase", "code", "text", "kind"), [
    (Phase.RECIPIENT, 550, "5.1.1 no such user", FaultKind.REFUSED),
    (Phase.RECIPIENT, 450, "4.2.1 The user is receiving mail too fast: too many", FaultKind.REFUSED),
    (Phase.RECIPIENT, 451, "4.7.1 Greylisting in action", FaultKind.REFUSED),
    (Phase.RECIPIENT, 452, "4.5.3 Too many recipients", FaultKind.REFUSED),
    (Phase.RECIPIENT, 552, "5.2.2 mailbox full, quota exceeded", FaultKind.REFUSED),
    (Phase.DATA, 554, "5.7.1 spam", FaultKind.REFUSED),
    (Phase.DATA, 552, "5.3.4 message too large", FaultKind.REFUSED),
    (Phase.SENDER, 550, "5.7.60 Client does not have permissions to send as this sender", FaultKind.REFUSED),
    (Phase.RECIPIENT, 550, "5.4.5 Daily user sending limit exceeded.", FaultKind.THROTTLED),
    (Phase.DATA, 550, "5.4.5 Daily SMTP relay sending limit exceeded for this user.", FaultKind.THROTTLED),
    (Phase.DATA, 554, "5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException", FaultKind.THROTTLED),
    (Phase.DATA, 432, "4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded", FaultKind.THROTTLED),
    (Phase.SENDER, 450, "4.2.1 Sending rate limit exceeded", FaultKind.THROTTLED),
    (Phase.SENDER, 421, "4.7.28 unusual rate", FaultKind.THROTTLED),
    (Phase.SENDER, 421, "4.4.2 timeout", FaultKind.UNAVAILABLE),
    (Phase.DATA, 451, "4.3.0 queue file write error", FaultKind.UNAVAILABLE),
    (Phase.SENDER, 454, "4.7.0 TLS not available", FaultKind.UNAVAILABLE),
    (Phase.SENDER, 530, "5.7.0 Authentication required", FaultKind.AUTH_FAILED),
    (Phase.SENDER, 550, "5.7.30 Basic authentication is not supported", FaultKind.PASSWORD_UNSUPPORTED),
    (Phase.DATA, 250, "?", FaultKind.PROTOCOL),
])
def test_transactions(phase, code, text, kind):
    assert judge(reply(code, text), phase).kind is kind
    assert speaks_of_us(reply(code, text), phase) == (kind is not FaultKind.REFUSED)


def test_a_permanent_limit_is_for_later():
    assert is_throttling(reply(550, "5.4.5 Daily user sending limit exceeded."), Phase.DATA)
    assert not is_throttling(reply(550, "5.5.3 Too many recipients"), Phase.DATA)


def test_encryption():
    for code in (454, 501, 502, 250):
        fault = judge(reply(code, "no"), Phase.STARTTLS)
        assert (fault.kind, fault.disposition) == (FaultKind.TLS_FAILED, RETRY)
    assert starttls_not_offered().kind is FaultKind.TLS_FAILED


def test_no_password_mechanism():
    for offered in (frozenset(), frozenset({"xoauth2", "oauthbearer"})):
        fault = no_login_offered(offered)
        assert (fault.kind, fault.disposition) == (FaultKind.PASSWORD_UNSUPPORTED, PARK)


@given(st.integers(200, 599), st.text(max_size=80), st.sampled_from(Phase))
def test_the_table_is_total_and_repeats_no_word_of_the_server(code, text, phase):
    fault = judge(reply(code, f"canary-{text}"), phase)
    assert isinstance(fault, Fault)
    assert "canary" not in fault.reason
    assert fault.reason in {judge(reply(other, words), phase).reason for other in range(200, 600) for words in (
        "", "too many", "basic authentication", "5.4.5 x")}
