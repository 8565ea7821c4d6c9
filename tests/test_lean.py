"""What the daemon must not bring into memory at its start: each cost megabytes for nothing once."""

import subprocess
import sys

import pytest

from ops.bench.child import environment

UNWANTED = frozenset({
    # drawing for a terminal
    "rich", "pygments", "colorama",
    # HTTP clients: only a daemon with published keys has one
    "httpx", "httpcore", "anyio", "requests", "urllib3",
    # greenlets: only while a rare IMAP command runs
    "greenlet", "greenback",
    # what builds, tests and operates
    "setuptools", "pkg_resources", "pip", "pytest", "hypothesis", "unittest", "psutil", "trustme", "ops", "tests",
    # other ways to do what we do otherwise
    "sqlite3", "xml", "lxml", "numpy", "uvloop", "aioquic",
})  # fmt: skip

_ASK = """
import json, sys
import daemon.__main__ as root
root.check_names()
settings = root.load(None)
root.logs.set_up("info", "json")
print(json.dumps(sorted(sys.modules)))
"""


def imported(program: str, *options: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-P", *options, "-c", program], capture_output=True, text=True, check=True, env=environment()
    )
    return set(eval(done.stdout))  # a list of names of our own making


def test_nothing_heavy_is_imported_at_the_start():
    assert not {name for name in imported(_ASK) if name in UNWANTED or name.partition(".")[0] in UNWANTED}


@pytest.mark.parametrize("name", ["rich.console", "greenlet"])
def test_what_was_hidden_can_be_imported_afterwards(name):
    assert name in imported(f"import json, sys, daemon, {name}; print(json.dumps(sorted(sys.modules)))")


def test_what_was_there_before_stays():
    found = imported("import json, sys, rich, daemon; assert sys.modules['rich'] is rich; print(sorted(sys.modules))")
    assert "rich" in found
    assert "structlog" in found
