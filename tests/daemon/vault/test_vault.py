import pickle
from base64 import b64encode
from itertools import pairwise
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from daemon.vault import KeyFile, KeyRing, Sealed, Secret, Tampered, UnknownKey, Vault, wrapped_under
from daemon.vault import vault as vault_module
from daemon.vault.vault import MAX_FIELD, MAX_SECRET, NONCE, TAG

A, B = bytes(range(32)), bytes(range(32, 64))
ANN, BOB = UUID("00000000-0000-4000-8000-00000000000a"), UUID("00000000-0000-4000-8000-00000000000b")
FIELDS = {"imap_password": Secret("correct horse"), "smtp_password": Secret("battery staple")}


@pytest.fixture
def vault():
    return Vault(KeyRing({"k1": A}))


def test_what_is_sealed_opens(vault):
    sealed = vault.seal(ANN, FIELDS)
    assert set(sealed.fields) == set(FIELDS)
    for field, secret in FIELDS.items():
        assert vault.open(ANN, field, sealed.data_key, sealed.fields[field]) == secret
    assert (vault.statistics().sealed, vault.statistics().opened, vault.statistics().failed) == (1, 2, 0)


# Sealed once and for all: stored data must open for ever.  Key A, data key 0x40.., nonces 0x60.. and 0x6c...
KNOWN_DATA_KEY = bytes.fromhex(
    "01026b31606162636465666768696a6baa9ad916ff05c528345fb3603ec08f0c7624dbdad031648efbf8da3720afa9572901"
    "e66a36bfdce1b1750db419522772")
KNOWN_FIELD = bytes.fromhex("016c6d6e6f7071727374757677337cb68d2f5a5975b9e3e206193c36d977a378c1ebbb69f62a53981298")


def test_known_answer(vault, monkeypatch):
    assert vault.open(ANN, "imap_password", KNOWN_DATA_KEY, KNOWN_FIELD) == Secret("correct horse")
    stream = iter([bytes(range(0x40, 0x60)), bytes(range(0x6C, 0x78)), bytes(range(0x60, 0x6C))])
    monkeypatch.setattr(vault_module.secrets, "token_bytes", lambda size: next(stream))
    sealed = vault.seal(ANN, {"imap_password": Secret("correct horse")})
    assert (sealed.data_key, sealed.fields["imap_password"]) == (KNOWN_DATA_KEY, KNOWN_FIELD)


def test_the_known_answer_by_another_way():
    """The documented format, taken apart by hand with the cipher's lower interface."""
    def gcm(key, box, context):
        nonce, body, tag = box[:12], box[12:-16], box[-16:]
        decryptor = Cipher(algorithms.AES(key), modes.GCM(nonce, tag)).decryptor()
        decryptor.authenticate_additional_data(context)
        return decryptor.update(body) + decryptor.finalize()

    assert KNOWN_DATA_KEY[:4] == b"\x01\x02k1"
    data_key = gcm(A, KNOWN_DATA_KEY[4:], b"accountsd/data-key/\x01" + ANN.bytes + b"k1")
    assert data_key == bytes(range(0x40, 0x60))
    assert KNOWN_FIELD[0] == 1
    assert gcm(data_key, KNOWN_FIELD[1:], b"accountsd/field/\x01" + ANN.bytes + b"imap_password") == b"correct horse"


def test_nothing_sealed_is_readable_or_the_same_twice(vault):
    one, two = (vault.seal(ANN, {"a": Secret("correct horse"), "b": Secret("correct horse")}) for _ in range(2))
    blobs = [one.data_key, *one.fields.values(), two.data_key, *two.fields.values()]
    assert len(set(blobs)) == 6
    assert not any(b"horse" in blob for blob in blobs)
    assert not any(first[-NONCE:] == second[-NONCE:] for first, second in pairwise(sorted(blobs)))


def test_swapped_between_rows_it_does_not_open(vault):
    ann, bob = vault.seal(ANN, FIELDS), vault.seal(BOB, FIELDS)
    field = "imap_password"
    for account, data_key, sealed in (
        (BOB, ann.data_key, ann.fields[field]),     # the whole row under another account
        (ANN, bob.data_key, bob.fields[field]),
        (ANN, ann.data_key, bob.fields[field]),     # the field alone
        (ANN, bob.data_key, ann.fields[field]),     # the data key alone
        (BOB, bob.data_key, ann.fields[field]),
    ):
        with pytest.raises(Tampered):
            vault.open(account, field, data_key, sealed)
    assert vault.statistics().failed == 5


def test_swapped_between_fields_it_does_not_open(vault):
    sealed = vault.seal(ANN, FIELDS)
    for field, other in (
        ("imap_password", "smtp_password"), ("smtp_password", "imap_password"), ("x", "imap_password")):
        with pytest.raises(Tampered):
            vault.open(ANN, field, sealed.data_key, sealed.fields[other])


def test_an_older_version_of_the_row_does_not_mix_with_the_new(vault):
    old, new = vault.seal(ANN, FIELDS), vault.seal(ANN, FIELDS)
    with pytest.raises(Tampered):
        vault.open(ANN, "imap_password", new.data_key, old.fields["imap_password"])


def test_a_data_key_is_no_field_and_a_field_no_data_key(vault):
    sealed = vault.seal(ANN, {"a": Secret("x" * 32)})
    with pytest.raises(Tampered):
        vault.open(ANN, "a", sealed.fields["a"], sealed.data_key)


def test_every_flipped_bit_is_noticed(vault):
    sealed = vault.seal(ANN, {"a": Secret("correct horse")})
    for blob, opening in (
        (sealed.fields["a"], lambda changed: vault.open(ANN, "a", sealed.data_key, changed)),
        (sealed.data_key, lambda changed: vault.open(ANN, "a", changed, sealed.fields["a"])),
    ):
        for position in range(len(blob)):
            for bit in range(8):
                changed = bytearray(blob)
                changed[position] ^= 1 << bit
                with pytest.raises((Tampered, UnknownKey)):
                    opening(bytes(changed))


def test_every_cut_and_addition_is_noticed(vault):
    sealed = vault.seal(ANN, {"a": Secret("correct horse")})
    for end in range(len(sealed.fields["a"])):
        with pytest.raises(Tampered):
            vault.open(ANN, "a", sealed.data_key, sealed.fields["a"][:end])
    for end in range(len(sealed.data_key)):
        with pytest.raises(Tampered):
            vault.open(ANN, "a", sealed.data_key[:end], sealed.fields["a"])
    for tail in (b"\0", b"x" * 100):
        with pytest.raises(Tampered):
            vault.open(ANN, "a", sealed.data_key, sealed.fields["a"] + tail)
        with pytest.raises(Tampered):
            vault.open(ANN, "a", sealed.data_key + tail, sealed.fields["a"])


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_stored_bytes_end_in_a_named_error(data_key, sealed):
    vault = Vault(KeyRing({"k1": A}))
    with pytest.raises((Tampered, UnknownKey)):
        vault.open(ANN, "a", data_key, sealed)
    with pytest.raises((Tampered, UnknownKey)):
        vault.rewrap(ANN, data_key)


@given(st.text(max_size=200, alphabet=st.characters(codec="utf-8")), st.uuids())
def test_any_text_comes_back(text, account):
    vault = Vault(KeyRing({"k1": A}))
    sealed = vault.seal(account, {"a": Secret(text)})
    assert vault.open(account, "a", sealed.data_key, sealed.fields["a"]).reveal() == text
    assert len(sealed.fields["a"]) == 1 + NONCE + len(text.encode()) + TAG


def test_rotation_online():
    old = Vault(KeyRing({"k1": A}))
    sealed = old.seal(ANN, FIELDS)
    both = Vault(KeyRing({"k2": B, "k1": A}))
    assert both.open(ANN, "imap_password", sealed.data_key, sealed.fields["imap_password"]).reveal() == "correct horse"
    assert wrapped_under(sealed.data_key) == "k1"

    wrapped = both.rewrap(ANN, sealed.data_key)
    assert wrapped_under(wrapped) == "k2"
    assert both.rewrap(ANN, wrapped) is None
    assert both.statistics().rewrapped == 1

    new = Vault(KeyRing({"k2": B}))
    assert new.open(ANN, "smtp_password", wrapped, sealed.fields["smtp_password"]).reveal() == "battery staple"
    with pytest.raises(UnknownKey, match="k1"):
        new.open(ANN, "smtp_password", sealed.data_key, sealed.fields["smtp_password"])
    with pytest.raises(UnknownKey, match="k2"):
        old.rewrap(ANN, wrapped)


def test_rewrapping_does_not_move_a_key_to_another_account():
    sealed = Vault(KeyRing({"k1": A})).seal(ANN, FIELDS)
    with pytest.raises(Tampered):
        Vault(KeyRing({"k2": B, "k1": A})).rewrap(BOB, sealed.data_key)


def test_a_key_under_anothers_id_does_not_open():
    """The id is bound too: the same key by another name, or another key by the same name."""
    sealed = Vault(KeyRing({"k1": A})).seal(ANN, FIELDS)
    with pytest.raises(Tampered):
        Vault(KeyRing({"k1": B})).open(ANN, "imap_password", sealed.data_key, sealed.fields["imap_password"])
    renamed = sealed.data_key.replace(b"k1", b"k2")
    with pytest.raises(Tampered):
        Vault(KeyRing({"k2": A})).open(ANN, "imap_password", renamed, sealed.fields["imap_password"])


def test_a_key_file_reloaded_is_used_at_once(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"k1 {b64encode(A).decode()}\n")
    path.chmod(0o600)
    file = KeyFile(path)
    vault = Vault(file)
    sealed = vault.seal(ANN, FIELDS)
    path.write_text(f"k2 {b64encode(B).decode()}\nk1 {b64encode(A).decode()}\n")
    assert vault.rewrap(ANN, sealed.data_key) is None
    file.reload()
    assert wrapped_under(vault.rewrap(ANN, sealed.data_key)) == "k2"


def test_bounds(vault):
    vault.seal(ANN, {"a" * MAX_FIELD: Secret("x" * MAX_SECRET)})
    for fields in ({"a": Secret("x" * (MAX_SECRET + 1))}, {"": Secret("x")}, {"a" * (MAX_FIELD + 1): Secret("x")}):
        with pytest.raises(ValueError, match=r"bytes|characters"):
            vault.seal(ANN, fields)


def test_a_secret_that_is_no_text_is_not_in_the_error(vault):
    with pytest.raises(ValueError, match="Unicode") as caught:
        vault.seal(ANN, {"a": Secret("horse\ud800")})
    assert "horse" not in repr(caught.value.args)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_errors_and_values_show_nothing(vault):
    sealed = vault.seal(uuid4(), FIELDS)
    assert repr(sealed) == "Sealed(imap_password, smtp_password)"
    with pytest.raises(Tampered) as caught:
        vault.open(ANN, "imap_password", sealed.data_key, sealed.fields["imap_password"])
    assert str(caught.value) == "the field 'data key' does not open"
    assert isinstance(sealed, Sealed)
    with pytest.raises(TypeError):
        pickle.dumps(vault)
