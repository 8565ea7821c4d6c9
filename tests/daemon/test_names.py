"""The guard of our four import names."""

import importlib.util
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path

import pytest

from daemon import names
from daemon.names import DISTRIBUTION, NAMES, ForeignPackage, check_names, version


def test_the_names_are_ours() -> None:
    check_names()


def test_the_version_is_the_distributions() -> None:
    assert version()[0].isdigit()


def test_a_checkout_that_was_never_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "DISTRIBUTION", "no-such-distribution")
    assert version() == "0+unknown"


def installed(directory: Path, files: dict[str, str]) -> list[Distribution]:
    """Our own distribution, and a stranger whose metadata has these files."""
    metadata = directory / "python_stranger-1.dist-info"
    metadata.mkdir()
    for name, text in {"METADATA": "Metadata-Version: 2.1\nName: python-stranger\n", **files}.items():
        (metadata / name).write_text(text)
    return [distribution(DISTRIBUTION), PathDistribution(metadata)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "files",
    [
        {"RECORD": "other/a.py,sha256=x,1\n{name}/__init__.py,sha256=y,2\n"},
        {"RECORD": "{name}.py,sha256=y,2\n"},
        {"RECORD": "other.py,,\n", "top_level.txt": "other\n{name}\n"},
    ],
)
def test_a_stranger_who_installed_over_us_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, files: dict[str, str]
) -> None:
    found = installed(tmp_path, {file: text.format(name=name) for file, text in files.items()})
    monkeypatch.setattr(names, "distributions", lambda: found)
    with pytest.raises(ForeignPackage, match=f"python-stranger.*{name}"):
        check_names()


def test_a_package_within_another_is_no_stranger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    record = "".join(f"other/{name}/__init__.py,,\n{name}_tools/__init__.py,,\n{name}s.py,,\n" for name in NAMES)
    found = installed(tmp_path, {"RECORD": record, "top_level.txt": "other\nopsy\n"})
    monkeypatch.setattr(names, "distributions", lambda: found)
    check_names()


@pytest.mark.parametrize("name", NAMES)
def test_another_package_on_the_path_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    elsewhere = tmp_path / name / "__init__.py"
    elsewhere.touch()
    real = importlib.util.find_spec

    def find(asked: str) -> ModuleSpec | None:
        return importlib.util.spec_from_file_location(asked, elsewhere) if asked == name else real(asked)

    monkeypatch.setattr(names, "find_spec", find)
    with pytest.raises(ForeignPackage, match=name):
        check_names()
    monkeypatch.setattr(names, "find_spec", lambda asked: None if asked == name else real(asked))
    with pytest.raises(ForeignPackage, match="missing"):
        check_names()
