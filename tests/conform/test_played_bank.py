"""The bank that the kit plays: its keys, what it decides by itself, and how the program announces it."""

import json
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
from builders import build_terms
from conform.gateway_bench import ReservedPort

from paygate.cli import ExitCode
from paygate.codec.codes import KemId, TransferOutcome
from paygate.codec.seal import (
    NotOpened,
    envelope_hash,
    match_receipt,
    seal_credentials,
    verify_key_list,
    verify_receipt,
)
from paygate.conform.bank_keys import CHEAP_PASSWORD_KEY, DAY_MS, VALID_BEFORE_MS, PlayedBankKeys
from paygate.conform.world import KeyFiles, read_world

PROGRAM = [sys.executable, "-P", "-m", "paygate.conform"]
NOW_MS = 1_795_000_000_000
TIMEOUT_S = 60
KEYS = PlayedBankKeys("CONFORMBANK", "CONF", bytes(range(32)))


def test_the_key_list_verifies_and_has_both_suites() -> None:
    signed = KEYS.sign(KEYS.key_list(NOW_MS))
    for at_ms in (NOW_MS, NOW_MS - VALID_BEFORE_MS, NOW_MS + DAY_MS - 1):
        key_list = verify_key_list(signed, KEYS.root_public_key, "CONFORMBANK", at_ms)
    assert {key.kem_id for key in key_list.suite_keys} == set(KemId)
    assert key_list.password_key == CHEAP_PASSWORD_KEY
    assert KEYS.read(signed) == key_list
    # A later run's list is a later one to a client that has seen this.
    assert KEYS.key_list(NOW_MS + 1).serial > key_list.serial


def test_the_same_seed_makes_the_same_bank_and_another_another() -> None:
    same = PlayedBankKeys("CONFORMBANK", "CONF", bytes(range(32)))
    other = PlayedBankKeys("CONFORMBANK", "CONF", bytes(32))
    assert same.sign(same.key_list(NOW_MS)) == KEYS.sign(KEYS.key_list(NOW_MS))
    assert other.root_public_key != KEYS.root_public_key
    assert KEYS.suite_key(KemId.X25519, "second") != KEYS.suite_key(KemId.X25519)


@pytest.mark.parametrize("kem_id", KemId)
def test_it_opens_what_is_sealed_for_it(kem_id: KemId) -> None:
    terms = build_terms(bank_id="CONFORMBANK")
    suite_key = KEYS.suite_key(kem_id)
    envelope = seal_credentials(suite_key, terms, "asha", b"k" * 32, b"n" * 16)
    assert KEYS.open(suite_key.key_id, terms, envelope).user_id == "asha"
    with pytest.raises(NotOpened):
        KEYS.open(suite_key.key_id, build_terms(bank_id="CONFORMBANK", amount_minor=1), envelope)
    with pytest.raises(NotOpened):
        KEYS.open(bytes(8), terms, envelope)


def test_receipts_of_one_tree_verify_each() -> None:
    terms = build_terms(bank_id="CONFORMBANK")
    utrs = list(islice(KEYS.utrs(NOW_MS), 3))
    statements = [KEYS.statement(terms, envelope_hash(b"x"), TransferOutcome.POSTED, NOW_MS, utr=utr) for utr in utrs]
    for statement, receipt in zip(statements, KEYS.receipts(*statements), strict=True):
        found = verify_receipt(receipt, KEYS.key_list(NOW_MS))
        assert found == statement
        match_receipt(found, terms, envelope_hash(b"x"))
    assert len(set(utrs)) == 3


def made_world(directory: Path) -> Path:
    command = [*PROGRAM, "world", str(directory), "--played-bank"]
    subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_S)
    return directory / "world.json"


def test_a_world_with_a_played_bank_holds_its_keys(tmp_path: Path) -> None:
    path = made_world(tmp_path / "world")
    world = read_world(path, KeyFiles())
    assert world.root_public_key == PlayedBankKeys.of(world).root_public_key
    assert world.second_gateway is not None
    assert world.gateway.link_key != world.second_gateway.link_key
    # What a client pins, and what a gateway is set up with.
    pinned = (tmp_path / "world" / "bank-root.pub").read_text().split()
    assert pinned == [world.bank_id, world.root_public_key.hex()]
    assert bytes.fromhex((tmp_path / "world" / "gateway.key").read_text()) == world.gateway.link_key
    assert json.loads(path.read_bytes())["expired_tokens"]


def test_the_program_says_where_it_plays_the_bank(tmp_path: Path) -> None:
    world = made_world(tmp_path / "world")
    command = [*PROGRAM, "gateway", "127.0.0.1:9", "--world", str(world), "--bank-listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as popen:
        assert popen.stderr is not None
        line = popen.stderr.readline()
        popen.kill()
    found = re.fullmatch(
        r"paygate-conform: playing bank CONFORMBANK at 127\.0\.0\.1:(\d+), waiting for the gateway\n", line
    )
    assert found is not None, line
    assert int(found[1]) > 0


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    world = made_world(tmp_path / "world")
    port = ReservedPort()
    port.listen()
    command = [*PROGRAM, "gateway", "127.0.0.1:9", "--world", str(world), "--bank-listen", f"127.0.0.1:{port.port}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    port.close()
    assert done.returncode == ExitCode.NO_CONNECTION
    assert f"cannot listen on 127.0.0.1:{port.port}" in done.stderr
