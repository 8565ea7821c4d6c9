"""Who may do what, in words and in numbers, from declarations alone."""

import pytest

from control_api.access import KINDS, Unknown, cases, for_whom, status
from daemon.sharing.rules import Act, Reply, Standing
from ops.access_table import DECLARED, read, row_name, rows, table

WORDS = {
    "listAccounts": "For everybody who is signed in.",
    "getAccount": "For the account's owner, admins and members.",
    "changeAccount": "For the account's owner and admins. With new credentials: for the account's owner."
    " With `is_default`: for the account's owner.",
    "revokeShare": "For the account's owner. One's own: for the account's admins and members.",
    "declineInvitation": "For the one who was invited.",
}


@pytest.mark.parametrize("name", WORDS)
def test_the_words(name):
    (operation,) = (each for each in DECLARED if each.name == name)
    assert for_whom(operation) == WORDS[name]


async def test_the_document_says_so(document):
    published = {each["operationId"]: each for path in document.document["paths"].values() for each in path.values()}
    assert set(published) == {operation.name for operation in DECLARED}
    for operation in DECLARED:
        told = published[operation.name]["description"]
        assert told == f"{operation.description} {for_whom(operation)}".strip()


@pytest.mark.parametrize("wanted", [None, *Act, *Reply])
def test_nobody_without_a_session_is_told_more_than_that(wanted):
    assert {status(wanted, kind) for kind in Unknown} == {401}
    assert {status(wanted, kind) for kind in Standing} <= {200, 403, 404}


@pytest.mark.parametrize("wanted", Act)
@pytest.mark.parametrize("kind", [kind for kind in Standing if kind.access is None])
def test_whoever_has_no_part_finds_no_account(wanted, kind):
    assert status(wanted, kind) == 404


def test_the_table_is_read_as_it_was_drawn():
    again = read(table())
    assert all(set(cells) == set(KINDS) for cells in again.values())
    assert {name: [cells[kind] for kind in KINDS] for name, cells in again.items()} == dict(rows())
    names = [row_name(operation, case) for operation in DECLARED for case, _ in cases(operation)]
    assert len(names) == len(set(names)) == len(list(rows())) - 1
