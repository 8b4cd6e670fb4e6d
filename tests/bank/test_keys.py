"""Keys on disk: what init makes, rotation, retirement, link keys, loose modes."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from bank_books import IDENTITY
from builders import BANK_ID, DAY_MS, NOW_MS

from paygate.bank.keys import (
    KEY_LIST_VALID_MS,
    add_gateway,
    check_root_key,
    find_link_key,
    gateway_ids,
    load_identity,
    load_key_list,
    load_pepper,
    load_receipt_key,
    load_sealing_keys,
    load_signed_key_list,
    make_keys,
    retire_key,
    root_key_line,
    rotate_keys,
)
from paygate.bank.ledger import BankIdentity
from paygate.cli import ExitCode, PaygateExit
from paygate.codec import limits
from paygate.codec.codes import KemId
from paygate.codec.seal import BadKeyList, choose_suite_key, key_id_of, verify_key_list
from paygate.files.state_dir import StateDir, StateError


@pytest.fixture
def state(tmp_path: Path) -> Path:
    directory = tmp_path / "bank"
    make_keys(directory, IDENTITY, NOW_MS)
    return directory


def root_public_key(state: Path) -> bytes:
    bank_id, public_hex = root_key_line(state).split()
    assert bank_id == BANK_ID
    return bytes.fromhex(public_hex)


def test_init_makes_a_key_list_that_clients_can_verify(state: Path) -> None:
    key_list = verify_key_list(load_signed_key_list(state), root_public_key(state), BANK_ID, NOW_MS)
    assert key_list.serial == 1
    assert key_list.valid_until_ms == NOW_MS + KEY_LIST_VALID_MS
    assert choose_suite_key(key_list).kem_id is KemId.MLKEM768_X25519
    assert {key.kem_id for key in key_list.suite_keys} == set(KemId)
    receipt_public = load_receipt_key(state).public_key().public_bytes_raw()
    assert [key.receipt_key_id for key in key_list.receipt_keys] == [key_id_of(receipt_public)]
    assert load_sealing_keys(state).keys() == {key.key_id for key in key_list.suite_keys}
    assert len(load_pepper(state)) == 32
    assert load_identity(state) == IDENTITY


@pytest.mark.pg("PG-KEY-6")
def test_a_client_as_slow_as_a_payment_may_be_can_use_a_new_list(state: Path) -> None:
    slow_ms = NOW_MS - limits.AUTHORISED_AT_SKEW_MS_MAX
    verify_key_list(load_signed_key_list(state), root_public_key(state), BANK_ID, slow_ms)
    with pytest.raises(BadKeyList):
        verify_key_list(load_signed_key_list(state), root_public_key(state), BANK_ID, slow_ms - 1)


def test_everything_is_private(state: Path) -> None:
    for path in state.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_the_server_needs_no_root_key(state: Path) -> None:
    (state / "root.key").unlink()
    load_signed_key_list(state)
    load_receipt_key(state)
    root_key_line(state)
    check_root_key(state)
    with pytest.raises(StateError, match=r"root\.key"):
        rotate_keys(state, NOW_MS)


def test_a_second_bank_in_one_directory_is_refused(state: Path) -> None:
    before = root_key_line(state)
    with pytest.raises(StateError, match="already"):
        make_keys(state, IDENTITY, NOW_MS)
    assert root_key_line(state) == before


@pytest.mark.parametrize(
    ("identity", "option"),
    [
        (BankIdentity("../x", "PGBK", "INR"), "--bank-id"),
        (BankIdentity("BANK1", "pgbk", "INR"), "--bank-code"),
        (BankIdentity("BANK1", "PGBK", "rupees"), "--currency"),
    ],
)
def test_an_identity_that_can_not_be_is_refused(tmp_path: Path, identity: BankIdentity, option: str) -> None:
    with pytest.raises(PaygateExit, match=option) as refused:
        make_keys(tmp_path / "bank", identity, NOW_MS)
    assert refused.value.code is ExitCode.USAGE
    assert not (tmp_path / "bank").exists()


@pytest.mark.parametrize("content", ["", "{}", '{"bank_id": "B", "bank_code": 7, "currency": "INR"}', "[1]"])
def test_a_damaged_identity_is_told(state: Path, content: str) -> None:
    (state / "bank.json").write_text(content)
    with pytest.raises(StateError, match=r"bank\.json"):
        load_identity(state)


def test_no_bank_there_is_told_with_what_mends_it(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="paygate-bank init"):
        load_identity(tmp_path)


# -- rotation --------------------------------------------------------------------------------------------


@pytest.mark.pg("PG-KEY-6", "PG-KEY-7")
def test_rotation_puts_new_keys_first_and_keeps_the_old_ones(state: Path) -> None:
    old = load_key_list(state)
    new = rotate_keys(state, NOW_MS + DAY_MS)
    assert new == verify_key_list(load_signed_key_list(state), root_public_key(state), BANK_ID, NOW_MS, serial_min=2)
    assert new.suite_keys[2:] == old.suite_keys
    assert choose_suite_key(new) not in old.suite_keys
    assert new.valid_until_ms == NOW_MS + DAY_MS + KEY_LIST_VALID_MS
    assert load_sealing_keys(state).keys() == {key.key_id for key in new.suite_keys}
    with pytest.raises(BadKeyList, match="older"):
        verify_key_list(load_signed_key_list(state), root_public_key(state), BANK_ID, NOW_MS, serial_min=3)


@pytest.mark.pg("PG-KEY-6")
def test_a_retired_key_is_off_the_list_and_destroyed(state: Path) -> None:
    old = load_key_list(state)
    rotate_keys(state, NOW_MS)
    for key in old.suite_keys:
        new = retire_key(state, key.key_id, NOW_MS)
    assert new.serial == 4
    assert load_sealing_keys(state).keys() == {key.key_id for key in new.suite_keys}
    assert not {key.key_id for key in old.suite_keys} & load_sealing_keys(state).keys()


def test_a_key_whose_retirement_was_killed_half_way_is_destroyed_by_the_same_command(state: Path) -> None:
    (old, _) = load_key_list(state).suite_keys
    (name,) = [path.name for path in (state / "decoder").glob(f"{old.key_id.hex()}.*")]
    secret = (state / "decoder" / name).read_bytes()
    rotate_keys(state, NOW_MS)
    serial = retire_key(state, old.key_id, NOW_MS).serial
    # As a kill leaves it: the list is signed without the key, whose file is still there.
    (state / "decoder" / name).write_bytes(secret)
    assert retire_key(state, old.key_id, NOW_MS).serial == serial
    assert not (state / "decoder" / name).exists()
    with pytest.raises(StateError, match="has no key"):
        retire_key(state, old.key_id, NOW_MS)


def test_a_key_that_is_retired_while_keys_are_loaded_is_left_out(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, kept = (key.key_id for key in load_key_list(state).suite_keys)
    rotate_keys(state, NOW_MS)
    real = StateDir.read_secret

    def read_secret(self: StateDir, name: str) -> bytes:
        if name.startswith(old.hex()):
            monkeypatch.setattr(StateDir, "read_secret", real)
            retire_key(state, old, NOW_MS)
        return real(self, name)

    monkeypatch.setattr(StateDir, "read_secret", read_secret)
    keys = load_sealing_keys(state).keys()
    assert (old in keys, kept in keys, len(keys)) == (False, True, 3)


def test_the_last_key_of_a_suite_and_an_unknown_one_are_not_retired(state: Path) -> None:
    (key, _) = load_key_list(state).suite_keys
    with pytest.raises(StateError, match="rotate first"):
        retire_key(state, key.key_id, NOW_MS)
    with pytest.raises(StateError, match="has no key"):
        retire_key(state, bytes(8), NOW_MS)
    assert load_key_list(state).serial == 1


def test_a_full_key_list_is_told_with_what_mends_it(state: Path) -> None:
    for _ in range(limits.SUITE_KEY_COUNT_MAX // 2 - 1):
        rotate_keys(state, NOW_MS)
    with pytest.raises(StateError, match="retire"):
        rotate_keys(state, NOW_MS)
    assert len(load_sealing_keys(state)) == limits.SUITE_KEY_COUNT_MAX


def test_a_rotation_under_a_clock_set_back_shortens_nothing(state: Path) -> None:
    new = rotate_keys(state, NOW_MS - 10 * DAY_MS)
    assert new.valid_from_ms == NOW_MS - 10 * DAY_MS - limits.AUTHORISED_AT_SKEW_MS_MAX
    assert new.valid_until_ms == NOW_MS + KEY_LIST_VALID_MS


# -- secrets ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "load"),
    [("receipt.key", load_receipt_key), ("decoder/pepper.key", load_pepper), ("root.key", check_root_key)],
    ids=["receipt", "pepper", "root"],
)
def test_a_loose_secret_is_refused_with_the_command_that_mends_it(
    state: Path, name: str, load: Callable[[Path], object]
) -> None:
    (state / name).chmod(0o640)
    with pytest.raises(StateError, match="chmod 600"):
        load(state)


@pytest.mark.parametrize("content", [b"", b"xyz", b"00" * 31, b"\xff" * 64])
def test_a_damaged_secret_is_told_and_not_shown(state: Path, content: bytes) -> None:
    (state / "receipt.key").write_bytes(content)
    with pytest.raises(StateError, match=r"receipt\.key does not hold") as refused:
        load_receipt_key(state)
    assert content.hex() not in str(refused.value) or not content


def test_a_sealing_key_under_another_keys_name_is_refused(state: Path) -> None:
    name = next((state / "decoder").glob("*.x25519.key"))
    name.rename(name.with_name(f"{'0' * 16}.x25519.key"))
    with pytest.raises(StateError, match="does not hold the key"):
        load_sealing_keys(state)


# -- gateways --------------------------------------------------------------------------------------------


def test_a_gateway_gets_the_key_that_the_bank_finds_at_hello(state: Path, tmp_path: Path) -> None:
    assert find_link_key(state, "GW1") is None
    add_gateway(state, "GW1", tmp_path / "gw.key")
    copy = tmp_path / "gw.key"
    assert bytes.fromhex(copy.read_text().strip()) == find_link_key(state, "GW1")
    assert copy.stat().st_mode & 0o777 == 0o600
    assert gateway_ids(state) == ["GW1"]
    with pytest.raises(StateError, match="has a key already"):
        add_gateway(state, "GW1", tmp_path / "other.key")
    assert not (tmp_path / "other.key").exists()


def test_a_copy_that_can_not_be_written_adds_no_gateway(state: Path, tmp_path: Path) -> None:
    with pytest.raises(StateError):
        add_gateway(state, "GW1", tmp_path / "missing" / "gw.key")
    assert gateway_ids(state) == []


@pytest.mark.parametrize("gateway_id", ["../receipt", "..", "", "a/b", ".hidden", "x" * 33])
def test_a_gateway_id_can_not_lead_out_of_its_folder(state: Path, tmp_path: Path, gateway_id: str) -> None:
    assert find_link_key(state, gateway_id) is None
    with pytest.raises(PaygateExit, match="gateway ID"):
        add_gateway(state, gateway_id, tmp_path / "gw.key")


def test_a_loose_link_key_is_refused(state: Path, tmp_path: Path) -> None:
    add_gateway(state, "GW1", tmp_path / "gw.key")
    (state / "gateways" / "GW1.key").chmod(0o644)
    with pytest.raises(StateError, match="chmod 600"):
        find_link_key(state, "GW1")


def test_a_link_key_that_can_not_be_looked_at_is_no_stranger_and_ends_no_bank(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_path: Path) -> bool:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "exists", broken)
    with pytest.raises(StateError, match=r"could not look at .*GW1\.key: Input/output error"):
        find_link_key(state, "GW1")


def test_the_identity_file_is_for_people(state: Path) -> None:
    identity = json.loads((state / "bank.json").read_bytes())
    assert identity == {"bank_id": "BANK1", "bank_code": "PGBK", "currency": "INR"}


@pytest.mark.parametrize("text", ["", "garbage", "OTHER " + "ab" * 32, "{bank_id} abcd"])
def test_a_damaged_public_root_is_not_shown(state: Path, text: str) -> None:
    bank_id = load_identity(state).bank_id
    (state / "root.pub").write_text(text.format(bank_id=bank_id), encoding="ascii")
    with pytest.raises(StateError, match=r"root\.pub: expected .* 64 hexadecimal digits"):
        root_key_line(state)


def test_a_key_that_cannot_be_kept_leaves_no_copy_behind(state: Path, tmp_path: Path) -> None:
    copy = tmp_path / "link.key"
    (state / "gateways").rename(state / "elsewhere")
    with pytest.raises(StateError):
        add_gateway(state, "GW9", copy)
    assert not copy.exists()
    (state / "elsewhere").rename(state / "gateways")
    add_gateway(state, "GW9", copy)
    with pytest.raises(PaygateExit, match="--key-out"):
        add_gateway(state, "GW10", tmp_path)
