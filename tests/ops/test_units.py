"""The systemd unit: what systemd itself says of it, and that the daemon lives with what it forbids."""

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

from daemon import __main__ as composition
from daemon.settings import _CREDENTIALS
from ops.doctor import DESCRIPTORS_EACH, DESCRIPTORS_REST

ROOT = Path(__file__).parent.parent.parent
UNIT = ROOT / "systemd/accountsd.service"
EXPOSURE = 20
"""Tenths of a point that `systemd-analyze security` may find: it is 12."""

_PR_SET_MDWE, _REFUSE_EXEC_GAIN = 65, 1


def directives() -> dict[str, dict[str, list[str]]]:
    """Sections, keys, and all their values in order, as systemd.syntax(7) has them."""
    sections: dict[str, dict[str, list[str]]] = {}
    section: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if not line.strip() or line.startswith(("#", ";")):
            continue
        if header := re.fullmatch(r"\[(\w+)\]", line):
            section = sections.setdefault(header[1], {})
            continue
        key, equals, value = line.partition("=")
        assert equals, f"not a directive: {line}"
        section.setdefault(key, []).append(value)
    return sections


def test_it_waits_longer_than_the_daemon_may_take():
    service = directives()["Service"]
    assert service["Type"] == ["notify"]
    assert float(service["TimeoutStopSec"][0]) > composition.HARD_LIMIT
    assert service["RestartPreventExitStatus"] == [str(composition.WRONG_SETTINGS)]
    assert int(service["LimitNOFILE"][0]) >= 10_000 * DESCRIPTORS_EACH + DESCRIPTORS_REST


def test_the_credentials_it_offers_are_those_the_daemon_reads():
    offered = set(re.findall(r"^#LoadCredential=([\w-]+):", UNIT.read_text(), re.MULTILINE))
    assert offered == {*_CREDENTIALS, "storage-dsn"}
    told = set(re.findall(r"^\| `([\w-]+)` \|", (ROOT / "systemd/README.md").read_text(), re.MULTILINE))
    assert told == offered


def test_systemd_accepts_it(tmp_path: Path):
    program = shutil.which("systemd-analyze")
    if program is None:     # another system: what `directives` asserts of the syntax is all that can be said
        assert set(directives()) == {"Unit", "Service", "Install"}
        return
    copy = tmp_path / "accountsd.service"
    # On the machine at hand there is neither the program nor, perhaps, the user.
    text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", UNIT.read_text(), flags=re.MULTILINE)
    copy.write_text(text)
    answer = subprocess.run([program, "verify", str(copy)], capture_output=True, text=True, timeout=60)
    complaints = [line for line in answer.stderr.splitlines() if "accountsd.service" in line]
    assert complaints == []
    answer = subprocess.run(
        [program, "security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", str(copy)],
        capture_output=True, text=True, timeout=60,
    )
    assert answer.returncode == 0, answer.stdout[-2000:]


def _deny_write_execute() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_MDWE, _REFUSE_EXEC_GAIN, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_MDWE")


def _kernel_denies_write_execute() -> bool:
    """Whether this kernel can do by prctl(2) what MemoryDenyWriteExecute does by a system call filter (Linux 6.3)."""
    child = os.fork()
    if child == 0:
        try:
            _deny_write_execute()
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_daemon_and_its_database_run_where_memory_is_never_writable_and_executable(tmp_path: Path):
    assert directives()["Service"]["MemoryDenyWriteExecute"] == ["yes"]
    deny = _deny_write_execute if _kernel_denies_write_execute() else None
    tmp_path.chmod(0o711)
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path), "ACCOUNTSD_STORAGE__DIRECTORY": str(tmp_path / "state"),
        "ACCOUNTSD_API__BIND": "127.0.0.1:0", "ACCOUNTSD_OPERATIONS__BIND": "127.0.0.1:0",
    }
    for directory in tmp_path.parents:      # the embedded database's own user must be able to pass
        if directory.stat().st_uid == os.getuid() and directory.is_relative_to("/tmp") and directory != Path("/tmp"):
            directory.chmod(directory.stat().st_mode | 0o011)
    with (tmp_path / "log").open("wb") as log, (tmp_path / "out").open("wb") as out:
        daemon = subprocess.Popen(
            [sys.executable, "-P", "-m", "daemon"], cwd=ROOT, env=environment, stdout=out, stderr=log,
            preexec_fn=deny, start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 60
        ready = False
        while not ready:
            assert daemon.poll() is None, (tmp_path / "log").read_text()[-3000:]
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()[-3000:]
            if found := re.search(r"operations +(http://\S+)/metrics", (tmp_path / "out").read_text()):
                ready = httpx.get(f"{found[1]}/health/ready", timeout=10).status_code == 200
            time.sleep(0.05)
    finally:
        daemon.send_signal(signal.SIGTERM)
        code = daemon.wait(100)
    assert code == 0
