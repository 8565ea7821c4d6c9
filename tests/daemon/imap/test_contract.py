"""The private names of imapclient, imaplib and greenback that we use: this fails when a release moves one.

imapclient is pinned in pyproject.toml for their sake.
"""

import imaplib
import inspect

import greenback
import imapclient
from imapclient import IMAPClient, imap_utf7, response_parser, response_types
from imapclient.exceptions import IMAPClientError


def test_imapclient_is_the_one_this_was_written_for() -> None:
    assert imapclient.version_info[:2] == (4, 1)


def test_the_names_we_use_exist() -> None:
    parameters = inspect.signature(response_parser._convert_ENVELOPE).parameters
    assert list(parameters) == ["envelope_response", "normalise_times"]
    assert callable(response_types.BodyData.create)
    assert imap_utf7.decode(b"Entw&APw-rfe") == "Entwürfe"
    assert imap_utf7.encode("Entwürfe") == b"Entw&APw-rfe"
    assert IMAPClientError is imaplib.IMAP4.error
    assert inspect.iscoroutinefunction(greenback.with_portal_run_sync)


def test_imapclient_makes_its_imaplib_object_where_we_put_ours() -> None:
    source = inspect.getsource(IMAPClient.__init__)
    assert "self._imap = self._create_IMAP4()" in source
    assert "self._set_read_timeout()" in source
    assert "self._cached_capabilities = None" in source
    assert "if self._cached_capabilities:\n            return self._cached_capabilities" in inspect.getsource(
        IMAPClient.capabilities
    )
    assert list(inspect.signature(IMAPClient._raw_command).parameters) == ["self", "command", "args", "uid"]
    assert list(inspect.signature(IMAPClient._normalise_folder).parameters) == ["self", "folder_name"]
    assert "_normalise_folder" in inspect.getsource(IMAPClient.rename_folder)


def test_imaplib_does_its_input_and_output_by_the_methods_we_override() -> None:
    assert list(inspect.signature(imaplib.IMAP4.open).parameters) == ["self", "host", "port", "timeout"]
    line = inspect.getsource(imaplib.IMAP4._get_line)
    assert "self.readline()" in line
    response = inspect.getsource(imaplib.IMAP4._get_response)
    assert "self.read(size)" in response
    assert "return resp" in response
    assert "self._get_capabilities()" in inspect.getsource(imaplib.IMAP4._connect)
    command = inspect.getsource(imaplib.IMAP4._command)
    assert "self.send(" in command
    assert list(inspect.signature(imaplib.IMAP4._command).parameters) == ["self", "name", "args"]
