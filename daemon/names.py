"""The guard of our four import names, which other distributions bear as well.

Installing `python-daemon`, `supervisor` or `ops` into our environment overwrites our files without a word, and
uninstalling them removes ours.  So whoever starts looks first whether the names are still ours, and says so in a
sentence instead of failing somewhere inside a stranger's code.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Final

NAMES: Final = ("supervisor", "daemon", "control_api", "ops")
DISTRIBUTION: Final = "accountsd"


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
    owners = packages_distributions()
    for name in NAMES:
        strangers = {owner for owner in owners.get(name, ()) if owner.lower() != DISTRIBUTION}
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
