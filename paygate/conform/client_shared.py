"""What the cases of one run against a client share: the bank's keys, and files that the client is given."""

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

from paygate.conform.bank_keys import PlayedBankKeys
from paygate.conform.cases import Catalogue
from paygate.conform.trial import Trial


@dataclass
class ClientShared:
    """What the cases of a run share."""

    bank: PlayedBankKeys
    directory: Path
    """Of the run; removed at its end."""
    numbers: Iterator[int]
    utrs: Iterator[str]


async def prepare(t: Trial) -> ClientShared:
    """A directory for the run, with the root key that the client is to pin. Raises ListenError."""
    t.listen(t.settings.address).close()  # an address that can't be used is told once
    bank = PlayedBankKeys.of(t.world)
    directory = Path(tempfile.mkdtemp(prefix="paygate-conform-"))
    t.spawn(_keep(t, directory))
    root_line = f"{t.world.bank_id} {bank.root_public_key.hex()}\n"
    write_private(directory / "bank-root.txt", root_line)
    if t.settings.options["run"] is None:
        tell_person([f"The client must have this root key of the bank pinned, also in {directory}/bank-root.txt:"])
        tell_person([f"  {root_line.strip()}"])
    return ClientShared(bank, directory, count(1), bank.utrs(t.wall_ms()))


async def _keep(t: Trial, directory: Path) -> None:
    try:
        while True:
            await t.sleep(60_000)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


CLIENT: Final = Catalogue("client", prepare)


def write_private(path: Path, text: str) -> None:
    """Write a file that nobody else can read, as a good client asks of one that holds a secret."""
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")


def tell_person(lines: Sequence[str]) -> None:
    """Say what is to be done now."""
    sys.stderr.write("".join(f"{line}\n" for line in lines))
    sys.stderr.flush()
