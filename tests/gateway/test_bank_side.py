"""The gateway's link to the bank: whom it takes for the bank, what troubles it, the key list that it brings."""

from pathlib import Path

import pytest
from builders import BANK_ID, GATEWAY_ID, build_signed_key_list
from failing_disk import FailingDisk
from gateway.world import Client, World

from paygate.codec.codes import KeysStatus
from paygate.codec.errors import ErrorCode
from paygate.codec.messages import BankKeys, BankKeysQuery
from paygate.gateway.bank_side import KEY_LIST_REFRESH_MS
from paygate.gateway.bank_trouble import refusal_text


@pytest.mark.pg("PG-LNK-5")
def test_another_bank_than_configured_is_left(tmp_path: Path, disk: FailingDisk) -> None:
    world = World(tmp_path, disk)
    world.connect_bank(bank_id="EVIL")
    assert not world.core.bank.is_open
    assert not world.bank.is_connected
    assert world.core.bank.trouble.startswith(f"the bank there is EVIL, not {BANK_ID}; ")
    assert "--bank-id EVIL" in world.core.bank.trouble
    assert world.core.bank_is_wanted
    assert world.bank.keys_query_count == 0
    world.store.close()


def test_a_bank_that_does_not_know_our_key_is_named_as_the_trouble(tmp_path: Path, disk: FailingDisk) -> None:
    world = World(tmp_path, disk)
    world.connect_bank(link_key=b"another key of thirty-two bytes.")
    assert not world.core.bank.is_open
    assert "bad_mac" in world.core.bank.trouble
    assert "link.key" in world.core.bank.trouble
    assert "paygate-bank add-gateway" in world.core.bank.trouble
    assert GATEWAY_ID not in world.core.bank.trouble
    # The next trouble takes the place of the last one.
    world.connect_bank()
    assert (world.core.bank.is_open, world.core.bank.trouble) == (True, "")
    world.cut(world.bank)
    assert world.core.bank.trouble == "reset by peer"
    world.store.close()


def test_a_trouble_with_the_bank_is_told_once_until_it_changes(tmp_path: Path, disk: FailingDisk) -> None:
    world = World(tmp_path, disk)
    for _ in range(3):
        world.connect_bank(link_key=b"another key of thirty-two bytes.")
    for _ in range(3):
        world.connect_bank(bank_id="EVIL")
    assert [text.split(": ")[1][:9] for text in world.logged()] == ["peer says", "the bank "]
    world.connect_bank()
    for _ in range(2):
        world.cut(world.bank)
        world.connect_bank()
    troubles = [text for text in world.logged() if text.startswith("no link")]
    assert troubles[2:] == [f"no link to bank {BANK_ID}: reset by peer"] * 2
    world.store.close()


@pytest.mark.parametrize(
    ("code", "mend"),
    [(ErrorCode.BAD_MAC, "link.key"), (ErrorCode.UNKNOWN_PARTY, "add-gateway"), (ErrorCode.IDLE_TIMEOUT, "")],
)
def test_a_trouble_says_what_mends_it(code: ErrorCode, mend: str) -> None:
    text = refusal_text("what the bank said", code)
    assert text.startswith("what the bank said")
    assert mend in text
    assert (text == "what the bank said") is not bool(mend)


@pytest.mark.parametrize("size", [1, 10])
def test_garbage_from_the_bank_closes_the_link_and_the_payment_is_resolved_on_the_next(world: World, size: int) -> None:
    world.connect_client().pay()
    world.on_its_way.append((world.bank.link_id, b"\0" * 20 * size))
    world.settle()
    assert world.core.bank_is_wanted
    world.connect_bank()
    world.advance(0)
    assert len(world.bank.resolves) == 1


def test_an_idle_link_to_the_bank_is_tested_and_stays(world: World) -> None:
    world.advance(600_000)
    assert world.core.bank.is_open
    assert world.bank.is_connected


@pytest.mark.pg("PG-TIM-4")
def test_a_silent_bank_is_given_up(world: World) -> None:
    world.connect_client().pay()
    bank = world.bank
    bank.receive = lambda data: None  # type: ignore[method-assign]  # its machine is gone, its socket is not
    world.advance(30_000)
    assert bank.close_reason == "protocol: idle timeout"
    assert world.core.bank_is_wanted


# -- the key list ------------------------------------------------------------------------------------------


def ask_keys(client: Client, bank_id: str = BANK_ID) -> BankKeys:
    question = client.ask(BankKeysQuery(bank_id))
    client.world.settle()
    answer = client.told(question)
    assert isinstance(answer, BankKeys)
    return answer


@pytest.mark.pg("PG-KEY-1", "PG-KEY-2")
def test_the_key_list_is_relayed_byte_for_byte_and_kept_while_the_bank_is_away(world: World) -> None:
    client = world.connect_client()
    expected = BankKeys(KeysStatus.AVAILABLE, build_signed_key_list())
    assert ask_keys(client) == expected
    world.cut(world.bank)
    assert ask_keys(client) == expected
    assert ask_keys(client, "OTHER") == BankKeys(KeysStatus.UNKNOWN_BANK, b"")


def test_there_is_no_key_list_before_the_bank_gave_one(world: World) -> None:
    world.restart()
    assert ask_keys(world.connect_client()) == BankKeys(KeysStatus.UNAVAILABLE, b"")


@pytest.mark.pg("PG-KEY-1")
def test_the_key_list_is_asked_for_again(world: World) -> None:
    assert world.bank.keys_query_count == 1
    world.bank.key_list = build_signed_key_list(serial=8)
    assert KEY_LIST_REFRESH_MS == 60_000
    world.advance(KEY_LIST_REFRESH_MS)
    assert world.bank.keys_query_count == 2
    assert ask_keys(world.connect_client()).signed_key_list == build_signed_key_list(serial=8)
    # A bank that has none to give takes nothing away.
    world.bank.key_list = b""
    world.advance(KEY_LIST_REFRESH_MS)
    assert ask_keys(world.connect_client()).signed_key_list == build_signed_key_list(serial=8)
