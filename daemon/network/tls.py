"""TLS to mail servers: one context for all connections, the handshake, and what a failed one means.

TLS 1.2 and later only (RFC 8996), the certificate must verify for the host that the user named (RFC 8314 section 3).
A wrong certificate is a standing fact: the account is parked until a person looks.  A connection lost in the handshake
is the network's mood: it is tried again.
"""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Final

import trio

from daemon.errors import Disposition, Fault, FaultKind

from .stream import TLSSocket

HANDSHAKE: Final = 15.0
"""Seconds for one handshake: two or three round trips and one signature; slower is as good as silent."""

# OpenSSL's X509_V_ERR_*, from openssl/x509_vfy.h; the ssl module has no names for them.
_WRONG_NAME: Final = frozenset({62, 64})
_EXPIRED: Final = 10
_NOT_YET: Final = 9
_SELF_SIGNED: Final = 18

_NO_COMMON_PROTOCOL: Final = frozenset({
    "UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "NO_PROTOCOLS_AVAILABLE", "NO_SHARED_CIPHER",
    "SSLV3_ALERT_HANDSHAKE_FAILURE", "TLSV1_ALERT_INSUFFICIENT_SECURITY", "DH_KEY_TOO_SMALL",
    "UNSAFE_LEGACY_RENEGOTIATION_DISABLED", "BAD_SIGNATURE_TYPE", "WRONG_SIGNATURE_TYPE",
})  # fmt: skip
_NOT_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"})


def client_context(ca_file: Path | None = None) -> ssl.SSLContext:
    """The context to share: the system's authorities and, where given, those in *ca_file* (PEM) besides.

    Raises OSError or ssl.SSLError for a file that cannot be used.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is not None:
        context.load_verify_locations(cafile=ca_file)
    return context


async def handshake(sock: socket.socket, host: str, context: ssl.SSLContext) -> TLSSocket:
    """Encrypt a connected socket and verify the server as *host*; the socket is closed when that fails.

    Raises Fault(TLS_FAILED) with the disposition of `judge_handshake`.
    """
    # Nothing is sent before the stream waits for it, so that every failure comes out of the same place.
    try:
        stream = TLSSocket(context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False))
    except OSError as exc:
        sock.close()
        raise judge_handshake(exc) from exc
    except BaseException:
        sock.close()
        raise
    try:
        with trio.fail_after(HANDSHAKE):
            await stream.do_handshake()
    except trio.TooSlowError:
        await _close(stream)
        raise Fault(FaultKind.TLS_FAILED, "The server did not finish the TLS handshake in time.") from None
    except OSError as exc:
        await _close(stream)
        raise judge_handshake(exc) from exc
    except BaseException:
        await _close(stream)
        raise
    return stream


def judge_handshake(exc: OSError) -> Fault:
    """What a failed handshake means, in our words; only facts of the server's configuration park."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return _parked(_certificate_sentence(exc.verify_code))
    if isinstance(exc, ssl.SSLError):
        reason = getattr(exc, "reason", None)  # absent where OpenSSL named none
        if reason in _NO_COMMON_PROTOCOL:
            return _parked("The server offers only outdated encryption; TLS 1.2 or later is required.")
        if reason in _NOT_TLS:
            return _parked("The server does not speak TLS at this port.")
    return Fault(FaultKind.TLS_FAILED, "The connection was lost in the TLS handshake.")


def _certificate_sentence(verify_code: int) -> str:
    if verify_code in _WRONG_NAME:
        return "The server's certificate is for another host name."
    if verify_code == _EXPIRED:
        return "The server's certificate has expired."
    if verify_code == _NOT_YET:
        return "The server's certificate is not valid yet."
    if verify_code == _SELF_SIGNED:
        return "The server's certificate is self-signed."
    return "The server's certificate is not issued by a trusted authority."


def _parked(sentence: str) -> Fault:
    return Fault(FaultKind.TLS_FAILED, sentence, disposition=Disposition.PARK)


async def _close(stream: TLSSocket) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await stream.aclose()
