"""Fixtures by subject: each `fix_*` module says in its docstring what it offers."""

# In this order: pytest must load a plugin before another one imports it.
pytest_plugins = [
    "tests.fix_leaks",
    "tests.fix_dovecot",
    "tests.fix_smtp",
    "tests.fix_postgres",
    "tests.fix_proxy",
    "tests.fix_scripted_imap",
    "tests.fix_jwks",
    "tests.fix_daemon",
]
