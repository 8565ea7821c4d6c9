"""The campaign of stops: what it looks at is seen, and a short one finds nothing."""

import struct
from pathlib import Path

from ops.soak.stops_watch import Systemd, readiness, repairs, shut_down_in_order


def test_the_control_file_tells_how_the_database_ended(tmp_path: Path):
    (tmp_path / "global").mkdir()
    for state, in_order in ((1, True), (6, False)):  # DB_SHUTDOWNED, DB_IN_PRODUCTION
        control = struct.pack("=QIII", 7_000_000_000, 1800, 202506291, state) + bytes(8000)
        (tmp_path / "global/pg_control").write_bytes(control)
        assert shut_down_in_order(tmp_path) is in_order


def test_repairs_are_found_in_a_log():
    quiet = '{"event": "embedded.ready"}\n{"event": "fleet.left", "accounts": 7}\n'
    assert repairs(quiet) == []
    assert repairs(quiet + '{"event": "embedded.leftover_found"}\n') == ['{"event": "embedded.leftover_found"}']
    assert len(repairs('{"text": "database system was not properly shut down"}\n' * 9)) == 5


def test_nobody_is_ready_where_nobody_listens():
    assert readiness("") == (0, {})
    assert readiness("  operations  http://127.0.0.1:1/metrics\n") == (0, {})


def test_what_systemd_is_told_is_heard(tmp_path: Path):
    from daemon.telemetry.systemd import Notifier

    systemd = Systemd(tmp_path / "notify")
    Notifier({"NOTIFY_SOCKET": str(systemd.path)}).tell(READY=1, STATUS="Waiting")
    assert systemd.read() == ["READY=1", "STATUS=Waiting"]
    systemd.close()
    assert not systemd.path.exists()
