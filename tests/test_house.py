"""The house rules that no linter knows: our import names, what files may say, their size, and the locks."""

import ast
import importlib.metadata
import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("daemon", "supervisor", "control_api", "ops")
MAX_LINES = 350
"""Above it a file wants a seam: what can be read in one sitting."""

# In two pieces each, for this file is searched too.
FORBIDDEN = [
    re.compile(head + re.escape(tail)) for head, tail in (
        (r"\bpy", "pi.org"), (r"python", "hosted.org"), (r"\bnpm", "js.org"), (r"\bnpm", "js.com"),
        (r"\bdeb\.", "debian.org"), (r"\bsecurity\.", "debian.org"), (r"\bproxy\.", "golang.org"),
        (r"(?<![\w.])/wo", "rk/"), (r"/home/", "user/"), (r"/root/\.", "pyenv"),
    )
]
IGNORED = {".git", ".venv", "__pycache__", "build", "dist"}


def committed_files() -> list[Path]:
    """The repository's files; without git (an unpacked archive) all that are not generated."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        return [
            path for path in ROOT.rglob("*")
            if path.is_file() and not any(p in IGNORED or p.endswith(("_cache", ".egg-info")) for p in path.parts)
        ]
    return [path for name in listed.decode().split("\0") if name and (path := ROOT / name).is_file()]


def modules() -> list[Path]:
    return [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]


def packages() -> list[Path]:
    return sorted({path.parent for path in modules()})


@pytest.mark.parametrize("name", PACKAGES)
def test_our_names_are_ours(name):
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin == str(ROOT / name / "__init__.py")
    owners = set(importlib.metadata.packages_distributions().get(name, ()))
    assert owners <= {"accountsd"}, f"another distribution in this environment brings a package {name!r}"


def test_no_file_names_a_registry_or_somebodys_directory():
    found = []
    for path in committed_files():
        text = path.read_bytes().decode(errors="replace")
        found += [f"{path.relative_to(ROOT)}: {hit[0]}" for needle in FORBIDDEN if (hit := needle.search(text))]
    assert found == []


def test_files_are_of_a_size_to_be_read():
    counted = {path: len(path.read_text().splitlines()) for path in [*modules(), *(ROOT / "tests").rglob("*.py")]}
    assert {str(path.relative_to(ROOT)): lines for path, lines in counted.items() if lines > MAX_LINES} == {}


def test_every_package_has_a_map():
    missing = []
    for package in packages():
        init = package / "__init__.py"
        map_ = ast.get_docstring(ast.parse(init.read_text())) if init.exists() else None
        name = package.relative_to(ROOT)
        if not map_:
            missing.append(f"{name} has no docstring")
            continue
        inner = {path.name for path in packages() if path.parent == package}
        rooms = sorted(room for room in inner | {path.stem for path in package.glob("*.py")} if room[0] != "_")
        missing += [f"{name} does not speak of {room}" for room in rooms if not re.search(rf"\b{room}\b", map_)]
    assert not missing, "\n".join(missing)


def locked(lock: str) -> list[str]:
    """The requirements of a lock, each with its hashes on one line."""
    text = (ROOT / "requirements" / lock).read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("lock", ["run.lock", "dev.lock"])
def test_every_locked_requirement_has_its_hashes(lock):
    shape = re.compile(r"[a-z0-9-]+(\[[a-z,]+\])?==\S+ .*--hash=sha256:[0-9a-f]{64}")
    requirements = locked(lock)
    assert len(requirements) > 20
    assert [line for line in requirements if not shape.match(line)] == []


def test_the_locks_agree():
    pins = {line.split()[0] for line in locked("dev.lock")}
    assert {line.split()[0] for line in locked("run.lock")} <= pins


def test_make_offers_what_the_readers_are_told():
    offered = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"setup", "demo", "run", "test", "lint", "bench", "soak", "lock", "help"} <= offered
