"""Lists of addresses: the same on every Python, and never an address that nobody wrote."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.messages.addresses import read_addresses

ANN = ("Ann", "ann@a.test")


@pytest.mark.parametrize(("text", "pairs"), [
    ("", []),
    (" , ;,", []),
    ("ann@a.test", [("", "ann@a.test")]),
    ("Ann <ann@a.test>", [ANN]),
    ('"Ann"<ann@a.test>', [ANN]),
    ("Ann < ann@a.test >", [ANN]),
    ("ann@a.test (Ann)", [ANN]),
    ("(x) Ann (y) <ann@a.test> (z)", [ANN]),
    (r"ann@a.test (A(n\)n)) (b", [("A(n)n) b", "ann@a.test")]),
    ('"Archer, \\"Ann\\"" <ann@a.test>, bob@b.test', [('Archer, "Ann"', "ann@a.test"), ("", "bob@b.test")]),
    ('"Ann" Archer <ann@a.test>', [("Ann Archer", "ann@a.test")]),
    ("Dr. Ann [work] <ann@a.test>", [("Dr. Ann [work]", "ann@a.test")]),
    ("Team: Ann <ann@a.test>, bob@b.test; cy@c.test", [ANN, ("", "bob@b.test"), ("", "cy@c.test")]),
    ("undisclosed-recipients:;", []),
    ('"a, b"@a.test, ann@[192.0.2.1]', [("", '"a, b"@a.test'), ("", "ann@[192.0.2.1]")]),
    ("Mail Delivery System <MAILER-DAEMON>", [("Mail Delivery System", "MAILER-DAEMON")]),
    ("root", [("", "root")]),
    ("änn@bücher.test", [("", "änn@bücher.test")]),
    ("ann@a.test <bob@b.test>", [("ann@a.test", "bob@b.test")]),
])
def test_lists(text, pairs):
    assert list(read_addresses(text)) == pairs


@pytest.mark.parametrize("bad", [
    # CVE-2023-27043: one address that a lenient parser reads as another
    "alice@a.test)bob@b.test", "alice@a.test(bob@b.test", "alice@a.test<bob@b.test", "alice@a.test<bob@b.test>x",
    "alice@a.test>bob@b.test", "<alice@a.test><bob@b.test>", "<alice@a.test> bob@b.test", "alice@a.test[bob@b.test",
    "alice@a.test bob@b.test", "alice@bob@b.test", "<alice,bob@b.test>", "<@route.test:bob@b.test>", "<>", "@b.test",
    "alice@", "Ann Archer", 'Ann "Archer', "Ann <ann@a.test", "ann(x)@a.test", "a\\b@a.test",
])
def test_what_could_be_read_in_two_ways_is_left_out(bad):
    found = [email for _, email in read_addresses(bad)]
    assert "bob@b.test" not in found
    assert found in ([], ["alice@a.test"])
    assert [email for _, email in read_addresses(f"cy@c.test, {bad}")][:1] == ["cy@c.test"]


@given(st.lists(st.sampled_from([*'"<>(),:;@[]\\ .a', "\r\n ", "a@b"]), max_size=40).map("".join))
def test_an_address_stands_in_the_text_as_it_was_read(text):
    for _, email in read_addresses(text):
        assert email in text
        assert email[0] == '"' or email.count("@") <= 1


EMAIL = st.from_regex(r"[a-z]{1,5}@[a-z]{1,5}", fullmatch=True)


@given(st.lists(st.tuples(st.text("aB, <>@\"\\(", max_size=8), EMAIL), max_size=9))
def test_quoted_names_come_back(pairs):
    escape = str.maketrans({'"': '\\"', "\\": "\\\\"})
    text = ", ".join(f'"{name.translate(escape)}" <{email}>' for name, email in pairs)
    assert list(read_addresses(text)) == [(name.strip(), email) for name, email in pairs]
