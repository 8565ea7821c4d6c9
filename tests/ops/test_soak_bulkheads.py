"""Bad hosts beside healthy ones, and a provider that throttles: the campaigns work, and see what is wrong."""

import socket
from collections import Counter
from collections.abc import Iterator

import pytest

from ops.soak.bulkheads import _quantiles
from ops.soak.bulkheads_expected import EXPECTED, KINDS, kind_of, mixture
from ops.soak.bulkheads_states import _judged
from ops.soak.campaign import Options, Report
from ops.soak.pushes import HELD, Pushes
from ops.soak.throttling import _judge
from ops.testservers.dovecot import Dovecot
from ops.testservers.hostile import Hostile
from ops.testservers.tls import Authority


def test_the_mixture_has_each_kind_by_its_share_and_every_behaviour():
    kinds = Counter(kind_of(behaviour) for behaviour in mixture(300))
    assert kinds == {"dead": 100, "deaf": 100, "flooding": 50, "lying": 50}
    assert set(mixture(300)) == {behaviour for names in KINDS.values() for behaviour in names}
    assert len(KINDS["flooding"]) >= 10
    assert len(KINDS["lying"]) >= 10
    assert len(mixture(18)) == 18


def test_of_every_behaviour_it_is_known_what_must_be_said():
    assert EXPECTED.keys() == {behaviour for names in KINDS.values() for behaviour in names}


@pytest.mark.parametrize(("behaviour", "states", "codes", "hurried", "found"), [
    ("dead", {"connecting", "retrying"}, {"connect_failed"}, False, 0),
    ("dead", {"connecting", "retrying"}, {"auth_failed"}, False, 1),
    ("dead", {"connecting"}, set(), False, 1),
    ("dead", {"connecting"}, set(), True, 0),
    ("dead", {"watching", "parked"}, {"connect_failed"}, False, 2),
    ("sizes", {"watching"}, set(), False, 0),
    ("uidvalidity", {"parked"}, {"protocol_violation"}, False, 0),
])  # fmt: skip
def test_untrue_words_of_an_account_are_seen(
    behaviour: str, states: set[str], codes: set[str], hurried: bool, found: int
):
    assert len(_judged(behaviour, EXPECTED[behaviour], states, codes, hurried)) == found


def test_quantiles_are_of_what_was_counted_between_two_scrapes():
    name = "m_bucket"
    bounds = ("0.1", "1.0", "+Inf")
    before = {f'{name}{{le="{bound}"}}': 100.0 for bound in bounds}
    after = dict(zip(before, (103.0, 110.0, 110.0), strict=True))
    assert _quantiles(before, after, name) == {"p50": 1.0, "p95": 1.0, "longest": 1.0}


def test_pushes_are_told_for_a_span_without_the_servers_own_delay():
    pushes = Pushes.__new__(Pushes)
    pushes._taken = {"a": 1.0, "b": 1.5, "c": 2.0, "later": 9.0}
    pushes._seen = {"a": 1.0 + HELD + 0.01, "b": 1.5 + HELD + 0.03, "later": 9.9}
    assert pushes.between(0.0, 5.0) == {"delivered": 3, "lost": 1, "p50": 30.0, "p95": 30.0, "longest": 30.0}
    assert pushes.between(5.0, 6.0) == {"delivered": 0, "lost": 0}


def test_a_client_that_hammers_a_provider_is_seen():
    options = Options(seed=0, minutes=0, accounts=100, points=0, quick=False)
    paced, hammering = Report(), Report()
    _judge(paced, options, 10.0, 12.0, {"attempts_by_second": [30] + [9] * 12, "ended": {"let in": 110}})
    _judge(hammering, options, 10.0, None, {"attempts_by_second": [90] * 30, "ended": {"let in": 100, "bye": 2600}})
    assert paced.problems == []
    assert len(hammering.problems) == 3


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Hostile, Authority]]:
    authority = Authority()
    with Dovecot(authority=authority) as dovecot:
        gate = {"backend": dovecot.imap_port, "rate": 2.0}
        with Hostile(["exists", "dropped", "dead", "deaf_tls"], authority=authority, gate=gate) as hostile:
            yield hostile, authority


def _said(authority: Authority, host: str, port: int, size: int) -> bytes:
    with (
        socket.create_connection((host, port), timeout=10) as raw,
        authority.client_context().wrap_socket(raw, server_hostname=host) as tls,
    ):
        data = b""
        while len(data) < size and (more := tls.recv(4096)):
            data += more
        return data


def test_hosts_do_what_their_names_say(hosts: tuple[Hostile, Authority]):
    hostile, authority = hosts
    by_name = {behaviour: (host, port) for behaviour, host, port in hostile.hosts}
    assert _said(authority, *by_name["exists"], 10).startswith(b"* OK [CAPABILITY ")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(by_name["dead"], timeout=10)
    with pytest.raises(TimeoutError):
        socket.create_connection(by_name["dropped"], timeout=0.3)
    with socket.create_connection(by_name["deaf_tls"], timeout=0.3) as deaf, pytest.raises(TimeoutError):
        deaf.recv(1)


def test_the_gate_lets_so_many_in_and_turns_the_others_away_in_every_way(hosts: tuple[Hostile, Authority]):
    hostile, authority = hosts
    said = []
    for _ in range(8):
        try:
            said.append(_said(authority, "localhost", hostile.gate_port, 10))
        except OSError:
            said.append(b"closed")
    assert any(words.startswith(b"* OK [CAPABILITY IMAP4rev1 SASL-IR LOGIN-REFERRALS") for words in said), "Dovecot"
    seen = hostile.seen()["gate"]
    assert sum(seen["attempts_by_second"]) == sum(seen["ended"].values()) == 8
    assert {"let in", "bye", "unavailable", "limit", "closed"} == seen["ended"].keys()
