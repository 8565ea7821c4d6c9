"""What the README shows of the code is what the code says."""

import re
from enum import Enum
from pathlib import Path

import pytest

from daemon.account.states import TRANSITIONS, Event, State
from daemon.settings import Settings
from ops import diagrams, settings_table
from ops.diagrams import DIAGRAMS, NoDiagram, put_into, reduced, shown_in

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", DIAGRAMS)
def test_the_readme_shows_what_the_code_says(name: str) -> None:
    shown = shown_in(README, name)
    assert shown == DIAGRAMS[name](), f"bring it up to date: accountsctl diagram {name} --into README.md"


def test_the_life_of_an_account_is_its_transition_table_and_nothing_else() -> None:
    """Read the picture back into a table."""
    read: dict[tuple[str, str], str] = {}
    everything = {state.value for state in State}
    for source, target, events in re.findall(r"^    (\w+) --> (\w+): (.+)$", DIAGRAMS["states"](), re.MULTILINE):
        if source.startswith("any_state"):
            sources = everything - set(source.removeprefix("any_state").replace("_but_", " ").split())
        else:
            sources = {source}
        for each in sources:
            for event in events.split(", "):
                assert (each, event) not in read, "an arrow that another one says already"
                read[each, event] = target
    assert read == {(state.value, event.value): target.value for (state, event), target in TRANSITIONS.items()}


@pytest.mark.parametrize("kind", [State, Event])
def test_every_state_and_event_is_explained(kind: type[Enum]) -> None:
    drawn = DIAGRAMS["states"]()
    for member in kind:
        assert re.search(rf"^\| `{member.value}` \| \S.{{10,}} \|$", drawn, re.MULTILINE), member


def test_the_house_has_every_package_and_its_arrows_go_one_way() -> None:
    drawn = DIAGRAMS["house"]()
    packages = {str(path.parent.relative_to(ROOT)) for path in ROOT.glob("daemon/*/__init__.py")}
    assert packages <= set(re.findall(r"^\| `(\S+)/` \| \S", drawn, re.MULTILINE))
    arrows = re.findall(r"^    (\w+) --> (\w+)$", drawn, re.MULTILINE)
    order = ["ops", "control_api", "daemon", "supervisor"]
    tops = [tuple("daemon" if end.startswith("daemon_") else end for end in arrow) for arrow in arrows]
    backwards = [arrow for arrow in tops if order.index(arrow[0]) > order.index(arrow[1])]
    # The composition root is the one file of the daemon that may see the API.
    assert backwards == [("daemon", "control_api")] * arrows.count(("daemon__main", "control_api"))


def test_the_arrows_are_those_of_the_imports() -> None:
    graph = diagrams._imports()
    assert "daemon/storage" in graph["daemon/events"]
    assert graph["supervisor"] == set()
    assert not any("ops" in targets for targets in graph.values())


def test_what_follows_from_other_arrows_is_left_out() -> None:
    graph = {"a": {"b", "c", "d"}, "b": {"c"}, "c": {"d"}, "d": set()}
    assert reduced(graph) == {"a": {"b"}, "b": {"c"}, "c": {"d"}, "d": set()}
    assert reduced({"a": {"b", "c"}, "b": set(), "c": set()}) == {"a": {"b", "c"}, "b": set(), "c": set()}


def test_the_table_has_every_setting_with_words() -> None:
    keys = {key for key, _, words in settings_table.rows() if len(words) > 10}
    declared = {
        f"{section}.{name}" for section, field in Settings.model_fields.items() if section != "plans"
        for name in field.annotation.model_fields
    }
    assert keys == declared | {"plans.<slug>.accounts"}
    assert f"`{Settings().api.bind}`" in settings_table.table()


def test_a_picture_is_put_between_its_own_markers_only() -> None:
    document = "a\n<!-- diagram x -->\nold\n<!-- /diagram -->\nb\n<!-- diagram y -->\nkept\n<!-- /diagram -->\n"
    changed = put_into(document, "x", r"new \1" + "\n")
    assert changed == document.replace("old", r"new \1")
    assert shown_in(changed, "y") == "kept\n"
    with pytest.raises(NoDiagram, match="<!-- diagram z -->"):
        put_into(document, "z", "")


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#:]+)\)", README))
def test_the_readme_links_to_what_exists(target: str) -> None:
    assert (ROOT / target).exists()


def test_the_readme_names_the_make_targets_that_there_are() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = README + (ROOT / "CONTRIBUTING.md").read_text() + (ROOT / "systemd/README.md").read_text()
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE)) <= targets


def test_the_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION" in text
    assert all(f"\n   {number}. " in text for number in range(1, 10))
    assert "limitations under the License." in text
