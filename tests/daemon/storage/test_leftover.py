"""Who holds a data directory, judged from what the kernel shows; whole servers are in test_embedded."""

from __future__ import annotations

import os
from pathlib import Path

from daemon.storage import leftover
from daemon.storage.leftover import postmaster_of


def test_a_process_that_hides_its_directory_is_judged_by_its_command(tmp_path: Path) -> None:
    data, process = tmp_path / "data", tmp_path / "proc"
    data.mkdir()
    process.mkdir()
    for command, verdict in {
        f"/usr/bin/postgres\0-D\0{data}\0": True,
        "postgres: checkpointer \0": None,
        f"/usr/bin/vi\0{data}\0": False,
        "": False,
    }.items():
        (process / "cmdline").write_text(command)
        assert leftover._by_command(process, data) is verdict


def test_a_link_or_a_pipe_in_the_servers_directory_leads_nowhere(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "postmaster.pid")
    assert postmaster_of(tmp_path) is None
    (tmp_path / "postmaster.pid").unlink()
    (tmp_path / "secret").write_text("123\n")
    (tmp_path / "postmaster.pid").symlink_to(tmp_path / "secret")
    assert postmaster_of(tmp_path) is None
