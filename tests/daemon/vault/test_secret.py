import copy
import io
import json
import logging
import pickle
import pprint
import traceback

import pytest
import structlog

from daemon.vault import Secret

PLAIN = "correct horse"


@pytest.fixture
def secret():
    return Secret(PLAIN)


def test_reveal_gives_it_out(secret):
    assert secret.reveal() == PLAIN


def test_no_way_of_printing_shows_it(secret):
    percent, braces = "%s %r", "{0} {0!r}"
    ways = [str(secret), repr(secret), f"{secret}", f"{secret!r:>40}", f"{secret:>40}", percent % (secret, secret),
            braces.format(secret), pprint.pformat({"a": [secret]}), repr([secret]), ascii(secret)]
    assert not any("horse" in text for text in ways)


def test_no_log_shows_it(secret):
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logging.getLogger("vault.test").addHandler(handler)
    logging.getLogger("vault.test").warning("%s %r", secret, {"password": secret})
    for renderer in (structlog.processors.JSONRenderer(), structlog.dev.ConsoleRenderer(),
                     structlog.processors.KeyValueRenderer()):
        stream.write(str(renderer(None, "info", {"event": "x", "password": secret})))
    logging.getLogger("vault.test").removeHandler(handler)
    assert "horse" not in stream.getvalue()
    assert "<secret>" in stream.getvalue()


def test_no_traceback_shows_it(secret):
    def fails(password):
        raise RuntimeError(f"cannot use {password}")

    try:
        fails(secret)
    except RuntimeError as exc:
        shown = "".join(traceback.TracebackException.from_exception(exc, capture_locals=True).format())
    assert "cannot use <secret>" in shown
    frames = shown.split("fails(secret)")[-1]
    assert "horse" not in frames


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_is_not_pickled(secret, protocol):
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps({"a": secret}, protocol)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, json.dumps, vars, hash, len, iter, bytes])
def test_nor_copied_or_taken_apart(secret, copied):
    with pytest.raises(TypeError) as caught:
        copied(secret)
    assert "horse" not in str(caught.value)


def test_equal_by_value_and_to_secrets_only(secret):
    assert secret == Secret(PLAIN)
    assert secret != Secret("wrong horse")
    assert secret != PLAIN
    assert Secret("ü") == Secret("ü")
