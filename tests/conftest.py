"""Fixtures by subject: each `fix_*` module says in its docstring what it offers."""

pytest_plugins = [
    "tests.fix_dovecot",
    "tests.fix_smtp",
    "tests.fix_postgres",
]
