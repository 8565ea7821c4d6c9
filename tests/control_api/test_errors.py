"""The error table: total, in the envelope, and without a word too many."""

import math
from dataclasses import fields

import pytest
import trio
from werkzeug.exceptions import MethodNotAllowed, NotFound, RequestEntityTooLarge, default_exceptions

import control_api.errors as table
from control_api.claims import TokenRefused
from control_api.errors import InvalidBody, refusal_for
from control_api.jwks import KeysUnavailable
from daemon.account import views
from daemon.account.caller_rates import CallerRates
from daemon.account.views import AlreadyConnected, CampaignsActive, QuotaReached, Service, VerificationFailed
from daemon.errors import Fault, FaultKind
from daemon.identity.rates import Allowance, Rate, RateExceeded
from daemon.settings import RateSettings
from daemon.sharing.rules import AccountNotFound

STATUSES = {400, 401, 403, 404, 405, 408, 409, 413, 415, 429, 500, 503}


def check(refusal):
    body = refusal.envelope()
    assert refusal.status in STATUSES
    assert body["success"] is False
    assert body["error"].endswith((".", "!", "?"))
    assert body["code"].replace("_", "").isalnum()
    assert ("Retry-After" in refusal.headers) == ("retryAfter" in body) == (refusal.status in {429, 503})
    return refusal


@pytest.mark.parametrize("service", Service)
@pytest.mark.parametrize("kind", FaultKind)
def test_every_fault_of_a_verification_has_a_code_of_the_contract(service, kind):
    refusal = check(refusal_for(VerificationFailed(service, Fault(kind, "A reason."))))
    own = {FaultKind.AUTH_FAILED: "auth_failed", FaultKind.TLS_FAILED: "tls_failed"}.get(kind, "connect_failed")
    expected = {
        FaultKind.HOST_NOT_ALLOWED: (400, "host_not_allowed"),
        FaultKind.PASSWORD_UNSUPPORTED: (400, "password_login_unsupported"),
        FaultKind.DATABASE_AWAY: (503, "not_ready"),
    }.get(kind, (400, f"{service}_{own}"))
    assert (refusal.status, refusal.code) == expected


@pytest.mark.parametrize("kind", FaultKind)
def test_every_bare_fault_says_when_to_come_back(kind):
    refusal = check(refusal_for(Fault(kind, "A reason.", retry_after=7.2)))
    assert refusal.status == (429 if kind is FaultKind.THROTTLED else 503)
    assert refusal.headers["Retry-After"] == "8"


@pytest.mark.parametrize("seconds", [1e300, math.inf, 0.0, -5.0])
def test_the_pause_stays_within_reason(seconds):
    refusal = refusal_for(Fault(FaultKind.THROTTLED, "Slowly.", retry_after=seconds))
    assert 1 <= int(refusal.headers["Retry-After"]) <= 3600


@pytest.mark.parametrize(("rate", "sentence"), [
    ("connect.user", "You have tried to connect too often; try again in {}."),
    ("connect.host", "Too many have tried to connect at this host; try again in {}."),
    ("connect.own_mailbox", "You have tried this mailbox too often; try again in {}."),
    ("connect.mailbox", "This mailbox has been tried too often; try again in {}."),
    ("change.user", "You have changed too much in a short time; try again in {}."),
    ("invite.user", "You have sent too many invitations; try again in {}."),
    ("another", "That was done too often; try again in {}."),
])
@pytest.mark.parametrize(("seconds", "told", "lasting"), [
    (0.2, 1, "1 second"), (1.01, 2, "2 seconds"), (60.0, 60, "60 seconds"), (60.2, 61, "2 minutes"),
    (3600.0, 3600, "60 minutes"), (3600.5, 3601, "2 hours"), (86399.5, 86400, "24 hours"),
])
def test_a_rate_says_what_was_too_often_and_for_how_long(rate, sentence, seconds, told, lasting):
    """As it is: a pause of ours that was cut to an hour would send callers back for the same answer."""
    allowance = Allowance(Rate(rate, 50, 86400.0), 0, 1_800_000_000, seconds)
    refusal = check(refusal_for(RateExceeded(allowance)))
    assert refusal.sentence == sentence.format(lasting)
    assert (refusal.headers["Retry-After"], refusal.envelope()["retryAfter"]) == (str(told), told)
    assert refusal.headers["X-RateLimit-Remaining"] == "0"


def test_every_rate_has_words_of_its_own():
    rates = CallerRates.of(**RateSettings().model_dump())
    assert {getattr(rates, each.name).name for each in fields(rates)} == set(table._OFTEN)


def test_what_conflicts_says_with_what():
    assert refusal_for(AlreadyConnected()).sentence == "This email address or mailbox is already connected."
    assert "campaigns of yours are active: complete them first" in refusal_for(CampaignsActive()).sentence


def test_every_named_exception_of_the_daemon_and_of_ours_is_in_the_table():
    arguments = {"QuotaReached": ("free", 1), "VerificationFailed": (Service.IMAP, Fault(FaultKind.LOST, "Gone.")),
                 "InvalidBody": ({}, []), "InvalidQuery": ("before", "Not so."), "TokenRefused": ("expired",)}
    named = [one for module in (views, table) for one in vars(module).values()
             if isinstance(one, type) and issubclass(one, Exception)
             and one.__module__ in {views.__name__, table.__name__}]
    assert len(named) >= 12
    for one in [*named, TokenRefused, KeysUnavailable]:
        refusal = check(refusal_for(one(*arguments.get(one.__name__, ()))))
        assert refusal.status != 500, one


@pytest.mark.parametrize("code", default_exceptions)
def test_every_http_exception_has_an_answer(code):
    refusal = check(refusal_for(default_exceptions[code]()))
    assert refusal.status in {code, 500}


def test_the_quota_is_told_as_the_contract_says():
    body = refusal_for(QuotaReached("starter", 2)).envelope()
    assert body["code"] == "plan_limit_exceeded"
    assert body["upgrade"] == {"feature": "accounts", "current_plan": {"slug": "starter"}}
    assert "2 connected accounts" in body["error"]
    assert "1 connected account." in refusal_for(QuotaReached("free", 1)).sentence


def test_method_not_allowed_names_the_methods():
    assert refusal_for(MethodNotAllowed(["POST", "GET"])).headers == {"Allow": "GET, POST"}


@pytest.mark.parametrize("bug", [
    RuntimeError("password=hunter2"), KeyError("hunter2"), trio.TooSlowError(), ValueError(),
])
def test_a_bug_is_500_and_tells_nothing(bug):
    refusal = check(refusal_for(bug))
    assert refusal.status == 500
    assert "hunter2" not in str(refusal.envelope())


def test_groups():
    assert refusal_for(ExceptionGroup("", [ExceptionGroup("", [AccountNotFound()])])).status == 404
    assert refusal_for(ExceptionGroup("", [AlreadyConnected(), RuntimeError()])).status == 500
    assert refusal_for(ExceptionGroup("", [NotFound()])).status == 404
    assert refusal_for(RequestEntityTooLarge()).status == 413


def test_a_long_reason_is_cut():
    refusal = refusal_for(VerificationFailed(Service.SMTP, Fault(FaultKind.LOST, "x" * 10_000)))
    assert len(refusal.envelope()["error"]) == 400


def test_validation_details():
    body = refusal_for(InvalidBody({"email": ["wrong"]}, ["also"])).envelope()
    assert body["details"] == {"fieldErrors": {"email": ["wrong"]}, "formErrors": ["also"]}
