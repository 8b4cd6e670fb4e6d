"""Exports are read as they were written, and what is none is refused with its line."""

import json
import stat
from pathlib import Path

import pytest

from paygate.audit.exports import ExportedPayment, ExportHeader, read_export, write_export
from paygate.cli import ExitCode, PaygateExit

HEADER = ExportHeader("bank", "DEMOBANK", "GW1", b"signed")
PAYMENTS = [
    ExportedPayment(bytes([n]) * 16, f"TX-{n}", "M-100", 2**63 - 1, "INR", outcome, utr, bytes(32), b"receipt")
    for n, (outcome, utr) in enumerate(
        [("POSTED", "DEMOP12026010200000001"), ("DECLINED", ""), ("MISMATCH", ""), ("IN_FLIGHT", "")], 1
    )
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "bank.jsonl"
    assert write_export(path, HEADER, iter(PAYMENTS)) == 4
    return path


def test_an_export_is_read_as_it_was_written_and_private(path: Path) -> None:
    assert read_export(path, "bank") == (HEADER, PAYMENTS)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first, *_, last = [json.loads(line) for line in path.read_text().splitlines()]
    assert first["paygate_export"] == 1
    assert last == {"payment_count": 4}


def refusal(path: Path, side: str = "bank") -> str:
    with pytest.raises(PaygateExit) as refused:
        read_export(path, side)  # type: ignore[arg-type]
    assert refused.value.code is ExitCode.USAGE
    return str(refused.value).removeprefix(f"{path}, ")


def test_one_that_was_cut_anywhere_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    for size in range(len(whole) - 1):  # Without its last newline it is still whole.
        path.write_bytes(whole[:size])
        assert refusal(path).endswith("export it again")


def test_another_side_s_or_another_file_is_refused_with_the_line(path: Path) -> None:
    assert refusal(path, "gateway") == "line 1: expected the export of a gateway, not of a bank; export it again"
    lines = path.read_text().splitlines()
    for number, bad in (
        (1, '{"paygate_export": 2, "side": "bank", "bank_id": "B", "gateway_id": "G", "signed_key_list": ""}'),
        (1, "[]"),
        (2, lines[2].replace("DECLINED", "SETTLED")),
        (3, lines[2].replace(str(2**63 - 1), '"1"')),
        (4, lines[3].replace("0303", "zz")),
        (5, lines[4].replace("receipt", "recipe")),
        (6, '{"payment_count": 5}'),
    ):
        path.write_text("\n".join((*lines[: number - 1], bad, *lines[number:])) + "\n")
        assert refusal(path).startswith(f"line {number}: expected "), bad


def test_a_place_that_can_t_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(PaygateExit, match=r"could not write .*nowhere"):
        write_export(tmp_path / "nowhere" / "bank.jsonl", HEADER, PAYMENTS)
    with pytest.raises(PaygateExit, match="could not read"):
        read_export(tmp_path / "nothing", "bank")
