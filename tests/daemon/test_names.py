"""The guard of our four import names."""

import importlib.util
from importlib.machinery import ModuleSpec
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


@pytest.mark.parametrize("name", NAMES)
def test_a_stranger_who_installed_over_us_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(names, "packages_distributions", lambda: {name: [DISTRIBUTION, "python-stranger"]})
    with pytest.raises(ForeignPackage, match=f"python-stranger.*{name}"):
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
