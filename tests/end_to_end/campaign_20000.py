"""By hand: a large mailbox syncs completely; then changes while the daemon is stopped; each time compared with a dump.

    python -m tests.end_to_end.campaign_20000 --messages 20000 --changes 500
"""

import argparse
import time

import httpx

from ops.testservers.mail import messages, seeds
from tests.end_to_end.comparing import assert_equal, on_server, wait_stored
from tests.end_to_end.stage import Stage, say, stage
from tests.fix_daemon import DaemonProcess, connect, eventually

USER = "large@example.test"
PATIENCE = 600.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--changes", type=int, default=500, help="new, flagged and expunged, each so many")
    arguments = parser.parse_args()
    with stage() as scene:
        scene.mail.imap.seed(USER, seeds(arguments.messages, seed=1))
        daemon = scene.daemon()
        with daemon.client(USER) as http:
            account_id = connect(http, scene.mail.mailbox(USER))
            begun = time.monotonic()
            seconds = wait_first(daemon, http, account_id, begun)
        megabytes = sum(m.size for m in on_server(scene.mail.imap, USER).values()) / 1e6
        rate = arguments.messages / seconds
        say(f"first sync: {arguments.messages} messages, {megabytes:.0f} MB in {seconds:.1f} s ({rate:.0f} a second)")
        compare(daemon, account_id, scene)

        assert daemon.stop() == 0
        change(scene, arguments.changes)
        begun = time.monotonic()
        daemon.start()
        wait_stored(daemon, account_id, arguments.messages + arguments.changes, PATIENCE)
        with daemon.client(USER) as http:
            daemon.wait_synced(http, account_id, PATIENCE)
        seconds = time.monotonic() - begun
        say(f"{arguments.changes} new, flagged and expunged while stopped: synced {seconds:.1f} s after the start")
        compare(daemon, account_id, scene)
        say(f"ended with {daemon.stop()}")


def wait_first(daemon: DaemonProcess, http: httpx.Client, account_id: str, begun: float) -> float:
    """Seconds until the first sync was complete, telling the progress the API shows."""
    shown = 0

    def complete() -> bool:
        nonlocal shown
        folders = http.get(f"/mail/accounts/{account_id}").json()["account"]["folders"]
        if folders and folders[0]["messages_done"] >= shown + 5000:
            shown = folders[0]["messages_done"]
            say(f"  {shown} of {folders[0]['messages_total']} after {time.monotonic() - begun:.1f} s")
        return daemon.status(http, account_id) == "synced"

    eventually(complete, PATIENCE, 0.2)
    return time.monotonic() - begun


def change(scene: Stage, count: int) -> None:
    """What other clients do meanwhile."""
    server = scene.mail.imap
    uids = server.uids(USER)
    server.flag(USER, uids[1000 : 1000 + count], "\\Flagged")
    server.expunge(USER, uids[5000 : 5000 + count])
    server.seed(USER, messages(count, seed=2))


def compare(daemon: DaemonProcess, account_id: str, scene: Stage) -> None:
    """AssertionError unless the store equals the server."""
    assert_equal(daemon, account_id, scene.mail.imap, USER)
    count = len(on_server(scene.mail.imap, USER))
    say(f"the store equals a plain dump: UIDs, flags, sizes and SHA-256 of {count} messages")


if __name__ == "__main__":
    main()
