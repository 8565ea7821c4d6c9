"""What the kernel does for a silent connection.

Keepalive notices a dead path after 120 + 4 x 30 = 240 s of silence, and keeps most NAT entries alive; TCP_USER_TIMEOUT
says the same for data that nobody acknowledges (RFC 5482), where keepalive does not run.  240 s is below the shortest
IDLE renewal, so that a connection never looks alive when it is not.
"""

from __future__ import annotations

import socket
from typing import Final

IDLE: Final = 120
"""Seconds of silence before the first probe; the shortest NAT time-outs seen in practice are about as long."""
INTERVAL: Final = 30
"""Seconds between probes."""
PROBES: Final = 4
"""Unanswered probes that end the connection."""
USER_TIMEOUT: Final = (IDLE + INTERVAL * PROBES) * 1000
"""Milliseconds that sent data may stay unacknowledged."""


def keep_alive(sock: socket.socket) -> bool:
    """Set it on a connected TCP socket, and send small commands at once; False if the connection is gone already."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            (socket.TCP_KEEPIDLE, IDLE),
            (socket.TCP_KEEPINTVL, INTERVAL),
            (socket.TCP_KEEPCNT, PROBES),
            (socket.TCP_USER_TIMEOUT, USER_TIMEOUT),
            (socket.TCP_NODELAY, 1),
        ):
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
    except OSError:
        return False
    return True
