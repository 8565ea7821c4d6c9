"""The guard of our four import names, which other distributions bear as well.

Installing `python-daemon`, `supervisor` or `ops` into our environment overwrites our files without a word, and
uninstalling them removes ours.  So whoever starts looks first whether the names are still ours, and says so in a
sentence instead of failing somewhere inside a stranger's code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Final

NAMES: Final = ("supervisor", "daemon", "control_api", "ops")
DISTRIBUTION: Final = "accountsd"

_TOP: Final = re.compile(rf"^({'|'.join(NAMES)})(?:/|\.py,|$)", re.MULTILINE)
"""A line of RECORD (PEP 376) or of top_level.txt that says: this name is mine."""


class ForeignPackage(Exception):
    """One of our names is somebody else's package here."""


def version() -> str:
    """Our version, or `0+unknown` in a checkout that was never installed."""
    try:
        return distribution(DISTRIBUTION).version
    except PackageNotFoundError:
        return "0+unknown"


def check_names() -> None:
    """Look whether our names are ours.

    Raises:
        ForeignPackage: a sentence that names the package and the remedy.
    """
    root = Path(__file__).resolve().parent.parent
    owners = list(_owners(distributions()))
    for name in NAMES:
        strangers = {owner for owner, owned in owners if owned == name and owner.lower() != DISTRIBUTION}
        if strangers:
            raise ForeignPackage(
                f"the distribution {', '.join(sorted(strangers))} has installed a package {name!r} over ours: "
                "give accountsd an environment of its own"
            )
        spec = find_spec(name)
        if spec is None or spec.origin is None or Path(spec.origin).resolve().parent.parent != root:
            raise ForeignPackage(
                f"the package {name!r} is not ours but {spec.origin if spec else 'missing'}: start with python -P"
            )


def _owners(installed: Iterable[Distribution]) -> Iterator[tuple[str, str]]:
    """Who has installed which of our names.

    `importlib.metadata.packages_distributions` knows it too, but builds an object for every file of the environment:
    2 MiB that stay with the process, and three times the time.
    """
    for each in installed:
        texts = (each.read_text("top_level.txt"), each.read_text("RECORD"))
        for name in {match[1] for text in texts if text for match in _TOP.finditer(text)}:
            yield each.metadata["Name"], name
