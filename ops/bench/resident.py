"""What the daemon occupies with no account to run, its database not counted, beside its libraries alone.

In megabytes of 10^6 bytes: the resident set as the system counts it, of which a quarter is shared libraries' code.
"""

from __future__ import annotations

import os
import sys
from typing import Final

import trio

from ops.soak.daemon_process import DaemonProcess
from ops.testservers.process import free_ports

from .child import environment, until
from .result import Row, Say

START_WITHIN: Final = 60.0
SETTLE: Final = 3.0
"""Seconds after the database answered: the listeners and three rounds of the fleet."""

MEGABYTE: Final = 10**6

_LIBRARIES: Final = (
    "import trio, psycopg, quart_trio, hypercorn.trio, pydantic, structlog, imapclient, aiosmtplib, cryptography, jwt,"
    " dns.asyncresolver, httpx, prometheus_client; print(open('/proc/self/statm').read().split()[1])"
)


async def measure(*, quick: bool, say: Say) -> list[Row]:
    """Megabytes of the daemon's process."""
    say("the daemon without accounts")
    libraries = await trio.run_process(
        [sys.executable, "-P", "-c", _LIBRARIES], capture_stdout=True, env=environment()
    )
    pages = int(libraries.stdout)
    [port] = free_ports(1)
    daemon = DaemonProcess(port=port, ca=None)
    try:
        await trio.to_thread.run_sync(daemon.start)
        with trio.fail_after(START_WITHIN):
            await until(lambda: daemon.announced)
        await trio.sleep(0.5 if quick else SETTLE)
        sample = daemon.sample(0.0)
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(daemon.stop)
            await trio.to_thread.run_sync(daemon.close)
    if sample is None:
        raise RuntimeError("the daemon ended by itself")
    beside = "its libraries, imported"
    alone = pages * os.sysconf("SC_PAGE_SIZE") / MEGABYTE
    value = sample.rss_mib * 2**20 / MEGABYTE
    return [Row("resident", "daemon with no account", value, "MB", alone, beside, ("<=", 90.0))]
