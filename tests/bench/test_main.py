"""`paygate-bench` as its users start it: a load on servers of its own and on somebody's, and wrong input."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hdrh.histogram import HdrHistogram
from local_system import LocalSystem

from paygate.bench.__main__ import _parser
from paygate.codec.codes import KemId

TIMEOUT_S = 120
BENCH = (sys.executable, "-P", "-m", "paygate.bench")


def bench(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*BENCH, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


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
    assert sample["histogram"] == histogram.read_text().strip()
    told = json.loads(results.read_text())
    assert (told["options"]["connections"], told["options"]["suite"], told["error"]) == (8, "hybrid", "")
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
        (["load", "--connections", "\u0663"], "expected a whole number from 1 to 4096"),
        (["load", "--json", "/"], "--json /: Is a directory"),
        (["load", "--histogram", "/dev/null/x"], "--histogram /dev/null/x: File exists"),
        (["compare", "--plots", "/dev/null"], "--plots /dev/null: File exists"),
        (["load", "--payments", "99"], "expected a whole number from 100 to 45000"),
        (["load", "--rate", "nan"], "expected a number from 1 to 1e+06"),
        (["load", "--suite", "rsa"], "expected one of x25519, hybrid"),
        (["load", "--gateway", "127.0.0.1:15000"], "needs all of --gateway, --bank-root, --tokens and --customers"),
        (
            ["growth", "--subjects", "tokens,moons"],
            "expected one of tokens, accounts, history, connections-log, connections",
        ),
        (["growth", "--rows", "999"], "expected a whole number from 1000 to 10000000"),
        (["compare", "--peers", "oracle"], "expected one of pgbench TPC-B, PostgreSQL one call"),
    ],
)
def test_wrong_input_is_told(arguments: list[str], told: str, tmp_path: Path) -> None:
    done = bench(*arguments, "--directory", str(tmp_path))
    assert done.returncode == 2
    assert told in done.stderr


def test_a_directory_that_takes_no_files_is_told() -> None:
    done = bench("load", "--directory", "/proc")
    assert done.returncode == 2
    assert "--directory /proc: " in done.stderr


@pytest.mark.parametrize("package", ["hdrh", "tqdm", "matplotlib"])
def test_a_package_that_is_missing_is_told_with_its_command_before_anything_runs(package: str, tmp_path: Path) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; from paygate.bench.__main__ import main; sys.exit(main())"
    command = [sys.executable, "-P", "-c", code, "load", "--directory", str(tmp_path / "work"), "--plots", "plots"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert f"{package} is not installed; install it with: pip install 'paygate[bench]'" in done.stderr
    assert not list((tmp_path / "work").glob("run-*"))


def test_what_is_named_twice_is_measured_once() -> None:
    options = _parser().parse_args(["compare", "--suites", "x25519,hybrid,x25519", "--connections", "64,1,64"])
    assert options.suites == [KemId.X25519, KemId.MLKEM768_X25519]
    assert options.connections == [64, 1]
    assert _parser().parse_args(["compare", "--peers", "iso8583sim, iso8583sim"]).peers == ["iso8583sim"]
    assert _parser().parse_args(["growth", "--subjects", "tokens,tokens"]).subjects == ["tokens"]


@contextlib.contextmanager
def load_under_way(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A load whose servers run; its results go to load.json, its stores to work/."""
    arguments = ("--rate", "20", "--payments", "400", "--connections", "4", "--json", str(tmp_path / "load.json"))
    command = [*BENCH, "load", *arguments, "--directory", str(tmp_path / "work")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline_s = time.monotonic() + TIMEOUT_S
        while not any(b"has the keys" in p.read_bytes() for p in (tmp_path / "work").glob("run-*/paygate/gateway.log")):
            assert process.poll() is None
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        time.sleep(0.5)
        yield process
    finally:
        process.kill()
        process.communicate()


def server_pids(process: "subprocess.Popen[str]") -> dict[str, int]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    words = {int(pid): Path(f"/proc/{pid}/cmdline").read_text().split("\0") for pid in children}
    return {role: pid for role in ("bank", "gateway") for pid, line in words.items() if f"paygate.{role}" in line}


def test_a_terminal_that_is_closed_ends_the_servers_too(tmp_path: Path) -> None:
    with load_under_way(tmp_path) as process:
        pids = server_pids(process)
        assert len(pids) == 2
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 128 + signal.SIGHUP
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids.values())
    assert list((tmp_path / "work").iterdir()) == []
    assert json.loads((tmp_path / "load.json").read_text())["error"] == "ended by a signal"


def test_a_run_that_fails_keeps_its_logs_and_writes_what_it_has(tmp_path: Path) -> None:
    with load_under_way(tmp_path) as process:
        (tmp_path / "load.json").unlink()
        subprocess.run(["kill", "-KILL", str(server_pids(process)["gateway"])], check=True)
        _, told = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode not in (0, None)
    (run,) = (tmp_path / "work").iterdir()
    assert f"logs of servers and peers are kept in {run}" in told
    kept = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert "paygate/gateway.log" in kept
    assert all(name.endswith(".log") for name in kept)
    assert json.loads((tmp_path / "load.json").read_text())["error"]


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


def test_results_are_written_whoever_reads_the_report(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    arguments = ("--connections", "4", "--payments", "200", "--directory", str(tmp_path / "work"))
    command = [*BENCH, "load", *arguments, "--json", str(tmp_path / "load.json")]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=TIMEOUT_S, check=False)
    os.close(writer)
    assert done.returncode != 0
    assert "the reader of the output went away" in done.stderr
    assert len(json.loads((tmp_path / "load.json").read_text())["samples"]) == 1
    assert list((tmp_path / "work").iterdir()) == []


def test_too_few_descriptors_are_told_before_anything_runs(tmp_path: Path) -> None:
    command = ["prlimit", "--nofile=1000:2000", *BENCH, "load", "--connections", "4096", "--payments", "45000"]
    command += ["--directory", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 2
    assert "raise the hard limit (ulimit -Hn)" in done.stderr
    assert list(tmp_path.iterdir()) == []
