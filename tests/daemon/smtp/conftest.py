"""The certificate of the scripted servers."""

import ssl

import pytest


@pytest.fixture(scope="session")
def server_context(authority, tmp_path_factory) -> ssl.SSLContext:
    return authority.issue().server_context(tmp_path_factory.mktemp("scripted"))
