"""A store that is gone or empty beside records that tell of payments is not made anew (T32)."""

from collections.abc import Callable
from pathlib import Path

import pytest
from backup.bank import BankFolder
from builders import BANK_ID, GATEWAY_ID, LINK_KEY, MERCHANT_ID, NOW_MS, build_statement, build_terms

from paygate.bank.server import take_in_now as take_in_at_bank
from paygate.clock import Now
from paygate.files.sqlite import StoreCorrupt
from paygate.files.state_dir import StateDir
from paygate.gateway.bank_side import GatewayIdentity
from paygate.gateway.record_lines import PAYMENTS_LAYOUT
from paygate.gateway.server import take_in_now
from paygate.gateway.settings import write_identity
from paygate.gateway.sqlite_tokens import SqliteTokens
from paygate.gateway.tokens import BeginPayment, IssueToken, Token

NOW = Now(1_000_000, NOW_MS)
LOSSES = pytest.mark.parametrize(
    ("lose", "problem"), [(Path.unlink, "not there"), (lambda path: path.write_bytes(b""), "empty")]
)


@LOSSES
def test_a_bank_whose_ledger_was_lost_is_not_served(tmp_path: Path, lose: Callable[[Path], None], problem: str) -> None:
    bank = BankFolder(tmp_path / "bank")
    bank.close()
    ledger = bank.directory / "ledger.sqlite"
    ledger.unlink()
    take_in_at_bank(bank.directory)  # Without payments, as after an `init` that was killed, nothing was lost.
    bank.write_transactions(["PGBKP12026010200000001"])
    lose(ledger)
    expected = rf"ledger\.sqlite is {problem}, and TransactionID\.txt tells of 1 payments: .*'paygate-bank restore'"
    with pytest.raises(StoreCorrupt, match=expected):
        bank.open()
    assert "PGBKP12026010200000001" in (bank.directory / "TransactionID.txt").read_text()


@LOSSES
def test_a_gateway_whose_store_was_lost_is_not_served_and_its_record_stays(
    tmp_path: Path, lose: Callable[[Path], None], problem: str
) -> None:
    state = StateDir(tmp_path / "gateway")
    state.create()
    write_identity(state, GatewayIdentity(GATEWAY_ID, BANK_ID, LINK_KEY))
    path = state.path / "tokens.sqlite"
    record = state.path / PAYMENTS_LAYOUT.file_name
    refused = ("2026-01-02T00:00:00.000Z", "", "TX-1", "", "", "", "refused", "USED", "", "2026-01-02T00:00:00.000Z")
    record.write_bytes(PAYMENTS_LAYOUT.header + b"".join(line for _, line in PAYMENTS_LAYOUT.formatted([refused])))
    take_in_now(state.path)  # The record tells of a refusal only, so nothing was lost.
    store = SqliteTokens(path)
    terms = build_terms(transaction_id="TX-1")
    store.apply([IssueToken(Token("TX-1", "4711", MERCHANT_ID, "Books", terms.amount_minor, "INR", None))], NOW)
    store.apply([BeginPayment(terms, build_statement().envelope_hash)], NOW)
    store.close()
    take_in_now(state.path)
    before = record.read_bytes()
    assert terms.payment_id.hex().encode() in before
    lose(path)
    expected = rf"tokens\.sqlite is {problem}, and GatewayTransaction\.txt tells of 1 payments: .*'paygate-gateway rest"
    with pytest.raises(StoreCorrupt, match=expected):
        take_in_now(state.path)
    assert record.read_bytes() == before
