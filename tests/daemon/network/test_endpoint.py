import pytest

from daemon.network import Endpoint, InvalidHost, Security, canonical_host, default_security


@pytest.mark.parametrize(("given", "canonical"), [
    ("imap.example.com", "imap.example.com"),
    ("IMAP.Example.COM", "imap.example.com"),
    ("localhost", "localhost"),
    ("mail1.example.com", "mail1.example.com"),
    ("4you.example.com", "4you.example.com"),
    ("a" * 63 + ".example.com", "a" * 63 + ".example.com"),
    ("bücher.example", "xn--bcher-kva.example"),
    ("BÜCHER.example", "xn--bcher-kva.example"),
    ("faß.de", "xn--fa-hia.de"),
    ("例え。jp", "xn--r8jz45g.jp"),
    ("xn--bcher-kva.example", "xn--bcher-kva.example"),
    ("192.0.2.1", "192.0.2.1"),
    ("2001:db8::1", "2001:db8::1"),
    ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
    ("::ffff:127.0.0.1", "::ffff:7f00:1"),
    ("0:0:0:0:0:FFFF:0:1", "::ffff:0:1"),
    ("::ffff:0.0.0.0", "::ffff:0:0"),
])
def test_one_form_of_a_host(given, canonical):
    assert canonical_host(given) == canonical
    assert canonical_host(canonical) == canonical


@pytest.mark.parametrize("text", [
    "", ".", "..", "a..b", ".example.com", "example.com.", "localhost.", "a" * 64 + ".com", "a." * 127 + "com",
    # what getaddrinfo takes for 127.0.0.1
    "127.1", "127.0.1", "0177.0.0.1", "2130706433", "0x7f000001", "0x7f.1", "0X7F.0.0.1", "127.0.0.0x1", "0", "0x",
    "127.0.0.01", "127.0.0.1.", "1.2.3.4.5", "256.0.0.1", "foo.0", "foo.0x10",
    # the same in other scripts, and other dots
    "１２７.0.0.1", "①②⑦.⓪.⓪.①", "127。0。0。1", "localhost\u3002", "l\u00adocalhost\x00",
    # not hosts at all
    "a b", "a_b.example.com", "-a.example.com", "a-.example.com", "a/b", "a?b", "a#b", "a%b", "a\\b", "a,b", "*",
    "user@example.com", "user:pw@example.com", "example.com:25", "[::1]", "[::1]:25",
    "::1%lo", "fe80::1%eth0", "::1/64", "example.com\r\n", "example.com\r\nRCPT TO:<x>", "example.com\n",
    "example.com\0", "\0", "example.com\t",
    " example.com", "http://example.com", "xn--\N{LATIN SMALL LETTER SHARP S}", "\ud800.example.com",
    "\u202eexample.com",
])
def test_whatever_can_be_read_in_two_ways_is_refused(text):
    with pytest.raises(InvalidHost) as refusal:
        canonical_host(text)
    assert len(text) < 4 or text not in str(refusal.value)


def test_an_endless_host_is_refused_before_it_costs_anything():
    with pytest.raises(InvalidHost):
        canonical_host("\N{LATIN SMALL LETTER U WITH DIAERESIS}" * 1_000_000)


def test_an_endpoint_holds_a_canonical_host_and_a_port():
    endpoint = Endpoint("IMAP.Example.com", 993, Security.TLS)
    assert endpoint == Endpoint("imap.example.com", 993, Security("tls"))
    assert Endpoint("a.example", 143, "starttls").security is Security.STARTTLS
    for port in (0, -1, 65536):
        with pytest.raises(ValueError, match="port"):
            Endpoint("a.example", port, Security.TLS)
    with pytest.raises(InvalidHost):
        Endpoint("127.1", 993, Security.TLS)
    with pytest.raises(ValueError, match="none"):
        Endpoint("a.example", 993, "none")


def test_what_a_port_means_by_itself():
    assert [default_security(port) for port in (993, 465, 143, 587, 25, 2525, 12345)] == [
        Security.TLS, Security.TLS, *[Security.STARTTLS] * 4, Security.TLS]
