"""`paygate-bench` as its users start it: a load on servers of its own and on somebody's, and wrong input."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hdrh.histogram import HdrHistogram
from local_system import LocalSystem

TIMEOUT_S = 120


def bench(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-P", "-m", "paygate.bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def test_a_load_on_servers_of_its_own_is_told_drawn_and_written(tmp_path: Path) -> None:
    work, results, histogram = tmp_path / "work", tmp_path / "load.json", tmp_path / "latencies.hdr"
    done = bench(
        "load",
        *("--connections", "8", "--payments", "200", "--rate", "100", "--suite", "hybrid", "--clients", "sealing"),
        *("--directory", str(work), "--json", str(results), "--histogram", str(histogram)),
        *("--plots", str(tmp_path / "plots")),
    )
    assert done.returncode == 0, done.stderr
    assert "hybrid, sealing" in done.stdout
    (sample,) = json.loads(results.read_text())["samples"]
    assert sample["client_count"] == 8
    assert sample["offered_rate"] == pytest.approx(100, rel=0.3)
    assert 0 < sample["latency_us"]["p50"] <= sample["latency_us"]["max"]
    decoded = HdrHistogram.decode(histogram.read_text().strip())
    assert decoded.get_value_at_percentile(50) == sample["latency_us"]["p50"]
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"throughput-latency.svg", "percentiles.svg"}
    assert list(work.iterdir()) == []  # stores are removed again


def write_lines(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_a_load_on_a_gateway_that_runs_already_pays_the_tokens_that_it_is_given(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name, lines in (
        ("NetbankingUsers.txt", ["C1 | asha | secret-1 | 100000.00", "C2 | ravi | secret-2 | 100000.00"]),
        ("Merchant.txt", ["BOOKS | Books | 0.00"]),
        ("PaymentTokensData.txt", [f"W{number:03} | 4711 | unpaid | 12.50 | BOOKS | INR" for number in range(100)]),
    ):
        write_lines(data / name, *lines)
    system = LocalSystem(tmp_path / "system", data)
    system.create()
    try:
        system.start_bank()
        gateway = system.start_gateway()
        done = bench(
            "load",
            *("--connections", "4", "--payments", "100", "--directory", str(tmp_path / "work")),
            *("--gateway", gateway.address, "--bank-root", str(system.root / "bank-root.txt")),
            *("--tokens", str(data / "PaymentTokensData.txt"), "--customers", str(data / "NetbankingUsers.txt")),
        )
        assert done.returncode == 0, done.stderr
    finally:
        system.stop()
    rows = system.record("gateway", "PaymentTokensData.txt")
    assert len(rows) == 100
    assert {row[2] for row in rows} == {"paid"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["load", "--connections", "0"], "expected a whole number from 1 to 4096"),
        (["load", "--payments", "99"], "expected a whole number from 100 to 45000"),
        (["load", "--rate", "nan"], "expected a number from 1 to 1e+06"),
        (["load", "--suite", "rsa"], "expected one of x25519, hybrid"),
        (["load", "--gateway", "127.0.0.1:15000"], "needs all of --gateway, --bank-root, --tokens and --customers"),
        (["growth", "--subjects", "tokens,moons"], "expected one of tokens, accounts, history, connections"),
        (["growth", "--rows", "999"], "expected a whole number from 1000 to 10000000"),
        (["compare", "--peers", "oracle"], "expected names among pgbench TPC-B, PostgreSQL one call"),
    ],
)
def test_wrong_input_is_told(arguments: list[str], told: str, tmp_path: Path) -> None:
    done = bench(*arguments, "--directory", str(tmp_path))
    assert done.returncode == 2
    assert told in done.stderr


def test_lines_that_are_none_are_told_with_their_place(tmp_path: Path) -> None:
    customers = write_lines(tmp_path / "customers.txt", "C1 | asha | secret-1 | 1.00", "C2 | ravi | verifier:00 | 1.00")
    tokens = write_lines(tmp_path / "tokens.txt", "W1 | 4711 | unpaid | 12.50 | BOOKS | INR")
    root = write_lines(tmp_path / "root.txt", f"DEMOBANK {'00' * 32}")
    done = bench(
        "load",
        *("--gateway", "127.0.0.1:1", "--bank-root", str(root), "--tokens", str(tokens)),
        *("--customers", str(customers), "--directory", str(tmp_path / "work")),
    )
    assert done.returncode != 0
    assert f"{customers}" in done.stderr
    assert "line 2" in done.stderr
    assert "secret" not in done.stderr
