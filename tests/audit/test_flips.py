"""No flipped bit that changes what a store says is served, and each is found (T32)."""

import random
from pathlib import Path

import pytest
from audit.flips import AUDITED, HARMLESS, STARTS, STORES, Flips, dumped, opened, run, sample, used_images
from bank_books import IDENTITY
from builders import RECEIPT_KEY

from paygate.bank.sqlite_ledger import SqliteLedger
from paygate.cli import ExitCode
from paygate.files.sqlite import StoreError
from paygate.gateway.sqlite_tokens import SqliteTokens

SEED = 32
FLIP_COUNT = 1_500
OPENED_COUNT = 60


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return used_images(tmp_path_factory.mktemp("used"))


@pytest.mark.parametrize("store", STORES)
def test_whatever_a_flipped_bit_changes_is_refused_at_start(images: dict[str, bytes], store: str) -> None:
    image = images[store]
    flips = run(Flips(store, image), sample(image, FLIP_COUNT, random.Random(SEED)))
    assert flips.unnoticed == [], f"byte and bit; seed {SEED}"
    assert sum(flips.counts.values()) == FLIP_COUNT == sum(flips.counts[k] for k in (STARTS, AUDITED, HARMLESS))
    assert flips.counts[STARTS] > FLIP_COUNT // 2
    tables = {row[0] for row in dumped(opened(image))} - {"index", "table", "trigger", "versions"}
    assert tables <= flips.named | {"bank or sqlite_schema"}, "each table's rows were hit, and named"


def refusal(store: str, path: Path) -> StoreError | None:
    """Why a server does not open this file."""
    try:
        if store == "ledger":
            SqliteLedger(path, IDENTITY, RECEIPT_KEY).close()
        else:
            SqliteTokens(path).close()
    except StoreError as error:
        return error
    return None


@pytest.mark.parametrize("store", STORES)
def test_the_server_that_opens_it_says_so_with_one_clear_error(
    images: dict[str, bytes], store: str, tmp_path: Path
) -> None:
    image, flips = images[store], Flips(store, images[store])
    refused_count = 0
    for number, (at, bit) in enumerate(sample(image, OPENED_COUNT, random.Random(SEED))):
        path = tmp_path / f"{number}.sqlite"
        damaged = bytearray(image)
        damaged[at] ^= 1 << bit
        path.write_bytes(damaged)
        path.chmod(0o600)
        refused = refusal(store, path)
        if refused is None:
            assert flips.flip(at, bit) in (AUDITED, HARMLESS), (at, bit)
        else:
            refused_count += 1
            assert refused.code is ExitCode.BAD_STATE, refused
            assert str(path) in str(refused)
            assert flips.flip(at, bit) == STARTS
    assert refused_count > OPENED_COUNT // 2
