"""Fixtures by subject: each `fix_*` module says in its docstring what it offers."""

from hypothesis import HealthCheck, settings

# No test says how fast the machine is: on a busy one, or with a fresh checkout whose tables of characters are yet to be
# made, a first example takes seconds.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")

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
