"""The documentation page as a person sees it: rendered by a real browser, from our own server, with nothing else asked.

Chromium renders the page from a real listener on loopback; its own rules apply, the page's content security policy too.
"""

import os
import shutil
import subprocess
import tempfile
from functools import partial
from pathlib import Path

import pytest
import trio

from control_api.app import create_app
from control_api.server import serve_api
from daemon.settings import Settings
from daemon.vault.secret import Secret
from tests.control_api.conftest import SECRET
from tests.control_api.memory_service import MemoryService

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
    "--virtual-time-budget=10000",
)


def rendered(url: str, picture: Path) -> str:
    """The page's document after its scripts have run; a picture of it beside."""
    browser = shutil.which("chromium")
    assert browser is not None, "the set-up installs chromium"
    with tempfile.TemporaryDirectory(prefix="chromium-") as home:
        command = [browser, *FLAGS, f"--user-data-dir={home}"]
        environ = {**os.environ, "HOME": home}
        run = partial(subprocess.run, capture_output=True, text=True, check=True, timeout=90, env=environ, cwd=home)
        run([*command, f"--screenshot={picture}", "--window-size=1200,2400", url])
        return str(run([*command, "--dump-dom", url]).stdout)


@pytest.mark.slow
async def test_the_page_shows_every_operation(nursery: trio.Nursery, tmp_path: Path) -> None:
    app = create_app(Settings(), MemoryService(), Secret(SECRET))
    host, port = await nursery.start(partial(serve_api, app, "127.0.0.1:0"))
    page = await trio.to_thread.run_sync(rendered, f"http://{host}:{port}/mail/docs", tmp_path / "docs.png")
    for path in ("/mail/accounts", "/mail/accounts/{account_id}", "/mail/sync"):
        assert path in page
    for word in ("sync_status", "imap_auth_failed", "plan_limit_exceeded"):
        assert word in page
    assert (tmp_path / "docs.png").stat().st_size > 10_000
    nursery.cancel_scope.cancel()
