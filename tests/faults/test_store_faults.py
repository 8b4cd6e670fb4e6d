"""Faults below both stores: a seeded sample of two stories, and bugs that a sample must find."""

import contextlib
from collections.abc import Iterator

import apsw
import pytest
from faults.store_faults import ERRORS, STORES, run_campaign

import paygate.bank.sqlite_ledger
import paygate.gateway.token_tables
from paygate.files.sqlite import StoreError, StoreFull, transaction

FAULT_COUNT = 60
SECONDS_MAX = 60
MODULES = (paygate.bank.sqlite_ledger, paygate.gateway.token_tables)


def test_the_stores_hold_what_they_answered_whatever_their_disk_fails_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = run_campaign(seed=1, count=FAULT_COUNT, seconds=SECONDS_MAX, seed_count=1)
    assert outcome.failures == [], capsys.readouterr().out
    assert {store for store, _, _ in outcome.counts} == set(STORES)
    assert {kind for _, kind, _ in outcome.counts} <= set(ERRORS)


def put_in(monkeypatch: pytest.MonkeyPatch, forgiven: type[StoreError]) -> None:
    """The mutant takes a transaction that failed for one that is on disk."""

    @contextlib.contextmanager
    def forgiving(connection: apsw.Connection) -> Iterator[None]:
        with contextlib.suppress(forgiven), transaction(connection):
            yield

    for module in MODULES:
        monkeypatch.setattr(module, "transaction", forgiving)


@pytest.mark.parametrize(
    ("forgiven", "case"),
    [(StoreFull, "stores/gateway/1/{}/full/once"), (StoreError, "stores/gateway/1/{}/IOERR_WRITE/once")],
)
def test_a_store_that_answers_without_having_written_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], forgiven: type[StoreError], case: str
) -> None:
    put_in(monkeypatch, forgiven)
    for number in range(100, 104):
        run_campaign(seed=1, count=None, seconds=SECONDS_MAX, only=case.format(number))
    told = capsys.readouterr().out
    assert "FAILED stores/gateway/1/10" in told
    assert "Broken: after its step the store holds" in told
