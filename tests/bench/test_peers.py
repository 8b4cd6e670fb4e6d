"""Peers: what is read of their output, what is told where one is missing, and a short real run of each."""

import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from outside_tools import unavailable

from paygate.bench.peers import child as child_module
from paygate.bench.peers.catalogue import make_peers
from paygate.bench.peers.child import Child, environment, run
from paygate.bench.peers.iso8583 import CARD_COUNT, RESPONSE, card_number, requests
from paygate.bench.peers.iso8583_server import Issuer, PyIso8583
from paygate.bench.peers.iso8583sim import Iso8583Sim
from paygate.bench.peers.loopback import SIZE_SIZE, framed
from paygate.bench.peers.peer import Missing, Peer, PeerFailed, PeerRun, percentile, run_of
from paygate.bench.peers.postgres import (
    PROGRAMS,
    TOLD_SETTINGS,
    OneCall,
    PostgresPeer,
    TpcB,
    check_way,
    find_programs,
    read_log,
    read_run,
    unprivileged,
)

REPORT = """\
pgbench (15.18 (Debian 15.18-0+deb12u1))
starting vacuum...end.
transaction type: <builtin: TPC-B (sort of)>
scaling factor: 64
query mode: prepared
number of clients: 2
number of threads: 2
maximum number of tries: 1
duration: 1 s
number of transactions actually processed: 4
number of failed transactions: 0 (0.000%)
latency average = 0.507 ms
initial connection time = 3.118 ms
tps = 8.000000 (without initial connection time)
"""
LOG = """\
0 1 1200 0 1764000000 101200
1 1 900 0 1764000000 100900
0 2 failed 0 1764000000 200000
0 3 700 0 1764000000 201900
1 2 1000 0 1764000000 201901
"""


# -- percentiles -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1), (0.01, 1), (0.011, 2), (0.5, 50), (0.501, 51), (0.99, 99), (1.0, 100)]
)
def test_a_percentile_is_the_smallest_value_that_enough_do_not_exceed(share: float, expected: int) -> None:
    assert percentile(range(1, 101), share) == expected


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no percentile"):
        percentile([], 0.5)


def test_a_run_is_made_of_its_latencies() -> None:
    found = run_of(8, 2.0, [3000, 1000, 2000], unit_us=1e-3)
    assert found == PeerRun(8, 2.0, 3, 1.5, {"p50": 2.0, "p99": 3.0})


def test_a_run_in_which_nothing_was_done_is_no_run() -> None:
    with pytest.raises(PeerFailed, match=r"nothing was done in 2\.0 s with 8 clients"):
        run_of(8, 2.0, [])


# -- pgbench's output ------------------------------------------------------------------------------------


def test_a_report_and_a_log_of_pgbench_make_a_run() -> None:
    # The rate counts from when all were connected, and so does the time.
    assert read_run(2, REPORT, read_log(LOG)) == PeerRun(2, 0.5, 4, 8.0, {"p50": 900.0, "p99": 1200.0})


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (("(without initial", "(including initial"), "has no rate"),
        (("actually processed: 4", "actually processed: 5"), "did 5 transactions and logged 4"),
        (("failed transactions: 0 (0", "failed transactions: 1 (20"), "1 of pgbench's transactions failed"),
        (("tps = 8.0", "tps = 0.0"), "did nothing"),
    ],
)
def test_a_report_that_tells_otherwise_gives_no_figure(changed: tuple[str, str], expected: str) -> None:
    assert changed[0] in REPORT
    with pytest.raises(PeerFailed, match=expected):
        read_run(2, REPORT.replace(*changed), read_log(LOG))


@pytest.mark.parametrize("line", ["0 1", "0 1 fast 0 1764000000 1", "0 1 -5 0 1764000000 1"])
def test_a_line_that_is_none_of_pgbench_s_log_gives_no_figure(line: str) -> None:
    with pytest.raises(PeerFailed, match=re.escape(line)):
        read_log(LOG + line)


class FakeCluster:
    """A cluster whose pgbench writes what it is told."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.options: tuple[str, ...] = ()

    def pgbench(self, *options: str, seconds_max: float) -> str:
        self.options = options
        for number, lines in enumerate((LOG.splitlines()[:3], LOG.splitlines()[3:])):
            (self.directory / f"transactions.77.{number}").write_text("\n".join(lines))
        return REPORT


def test_a_measurement_reads_the_logs_of_all_threads_and_removes_them(tmp_path: Path) -> None:
    peer = TpcB()
    cluster = FakeCluster(tmp_path)
    peer.cluster = cluster  # type: ignore[assignment]  # all of a cluster that a measurement asks
    peer._directory = tmp_path
    assert peer.measure(2, 1.4).done_count == 4
    assert list(tmp_path.iterdir()) == []
    assert " ".join(cluster.options).startswith("-M prepared -c 2 -j 2 -T 1 --log")
    peer.measure(1, 0.2)  # pgbench has no use for a thread without a client, and no time below a second
    assert " ".join(cluster.options).startswith("-M prepared -c 1 -j 1 -T 1 --log")


# -- what is missing -------------------------------------------------------------------------------------


def make_programs(directory: Path, *names: str) -> Path:
    directory.mkdir(parents=True)
    for name in names:
        (directory / name).touch(mode=0o755)
    return directory


def test_postgresql_is_looked_for_in_path_first_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Debian's /usr/bin has wrappers of the clients, and neither initdb nor postgres.
    wrappers = make_programs(tmp_path / "bin", "psql", "pgbench")
    below = tmp_path / "postgresql"
    make_programs(below / "9" / "bin", *PROGRAMS)
    newest = make_programs(below / "15" / "bin", *PROGRAMS)
    make_programs(below / "16" / "bin", "psql")  # the client's package alone
    monkeypatch.setattr("paygate.bench.peers.postgres.INSTALLED_BELOW", below)
    monkeypatch.setenv("PATH", str(wrappers))
    assert find_programs() == newest
    in_path = make_programs(tmp_path / "local", *PROGRAMS)
    monkeypatch.setenv("PATH", f"{wrappers}{os.pathsep}{in_path}")
    assert find_programs() == in_path


def test_a_missing_postgresql_tells_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(Missing, match=r"initdb, postgres, psql and pgbench are not installed; .* postgresql$"):
        find_programs([make_programs(tmp_path / "bin", "psql", "pgbench")])


def test_a_missing_package_tells_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "iso8583", None)
    with pytest.raises(Missing) as missing:
        PyIso8583().start(tmp_path)
    assert str(missing.value) == "pyiso8583 is not installed; install it with: pip install pyiso8583"


def test_a_missing_program_tells_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(Missing) as missing:
        Iso8583Sim().start(tmp_path)
    assert str(missing.value) == "iso8583sim is not installed; install it with: pip install iso8583sim"


def test_a_directory_that_other_users_can_t_reach_is_told_with_its_name(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "run").mkdir(parents=True)
    closed.chmod(0o700)
    with pytest.raises(PeerFailed, match="can't get through /"):
        check_way(closed / "run")
    with tempfile.TemporaryDirectory(prefix="peer-") as name:
        Path(name).chmod(0o711)
        check_way(Path(name))
        Path(name, "closed").mkdir(mode=0o700)
        with pytest.raises(PeerFailed, match=f"can't get through {name}/closed; choose .* chmod o.x {name}/closed"):
            check_way(Path(name, "closed"))


def test_root_lends_postgresql_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert unprivileged() == {}
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    lent = unprivileged()
    assert lent["user"] != 0
    assert lent["extra_groups"] == ()


def test_every_peer_says_what_it_is_and_does_nothing_before_it_is_started() -> None:
    peers = make_peers()
    assert len({peer.name for peer in peers}) == len(peers) == 4
    for peer in peers:
        assert "durable" in peer.title or "no disk" in peer.title
        assert "no crypto" in peer.title
        assert 1 in peer.client_counts
        with pytest.raises(PeerFailed, match="was not started"):
            peer.measure(1, 1)
        peer.stop()


# -- children --------------------------------------------------------------------------------------------


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def test_a_child_is_ready_when_it_says_so_and_ends_when_asked(tmp_path: Path) -> None:
    with Child(python("print('port 77'); input()"), tmp_path / "log", rb"port (\d+)") as child:
        assert child.ready_match[1] == b"77"
        assert child.process.poll() is None
    assert child.process.returncode == -signal.SIGTERM
    child.stop()


def test_a_child_ends_when_what_it_was_for_fails(tmp_path: Path) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), Child(python("print('go'); input()"), tmp_path / "log", b"go") as child:
        fail()
    assert child.process.returncode == -signal.SIGTERM


def test_a_child_that_does_not_start_is_told_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(PeerFailed, match="did not start: no such luck"):
        Child(python("import sys; sys.exit('no such luck')"), tmp_path / "log", b"ready")


def test_a_child_that_is_never_ready_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "START_S_MAX", 0.3)
    started: list[int] = []
    popen = subprocess.Popen

    def start(*args: object, **kwargs: object) -> "subprocess.Popen[bytes]":
        process = popen(*args, **kwargs)  # type: ignore[call-overload]
        started.append(process.pid)
        return process  # type: ignore[no-any-return]

    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(PeerFailed, match=r"was not ready within 0\.3 s: it said nothing"):
        Child(python("input()"), tmp_path / "log", b"ready")
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)


def test_a_child_that_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "STOP_S_MAX", 0.3)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('go'); time.sleep(60)"
    with Child(python(code), tmp_path / "log", b"go") as child:
        pass
    assert child.process.returncode == -signal.SIGKILL


def test_a_program_that_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    assert run(python("print(input())"), 30, stdin="hello", cwd=tmp_path) == "hello\n"
    with pytest.raises(PeerFailed, match="ended with 3: oh no"):
        run(python("import sys; sys.stderr.write('oh no'); sys.exit(3)"), 30, cwd=tmp_path)
    with pytest.raises(PeerFailed, match="did not end within 0 s"):
        run(python("import time; time.sleep(60)"), 0.2, cwd=tmp_path)


def test_the_user_s_settings_of_postgresql_don_t_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c synchronous_commit=off")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert "PGOPTIONS" not in environment()
    assert environment()["LC_ALL"] == "C"


# -- ISO 8583 --------------------------------------------------------------------------------------------


def test_card_numbers_are_different_and_pass_luhn() -> None:
    cards = [card_number(index) for index in range(CARD_COUNT)]
    assert len(set(cards)) == CARD_COUNT
    for card in cards:
        doubled = (int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(card)))
        assert sum(n - 9 if n > 9 else n for n in doubled) % 10 == 0


def issuer() -> Issuer:
    try:
        return Issuer()
    except ImportError:
        unavailable("pyiso8583 is not installed")


def responses(answers: bytes) -> list[bytes]:
    found = []
    while answers:
        size = SIZE_SIZE + int.from_bytes(answers[:SIZE_SIZE])
        found.append(answers[SIZE_SIZE:size])
        answers = answers[size:]
    return found


def test_requests_are_answered_whole_however_they_arrive() -> None:
    data = b"".join(requests(3))
    answers, kept = issuer().answer(data)
    assert kept == b""
    assert len(responses(answers)) == 3
    assert all(response.startswith(RESPONSE.encode()) for response in responses(answers))
    bytewise, kept, by_bytes = b"", b"", issuer()
    for value in data:
        answer, kept = by_bytes.answer(kept + bytes([value]))
        bytewise += answer
    assert bytewise == answers


def test_the_issuer_declines_what_is_not_covered() -> None:
    import iso8583

    bank = issuer()
    (request,) = requests(1)
    bank._balance_minor[card_number(0)] = 1  # what the first request asks for
    codes = []
    for _ in range(2):
        (response,) = responses(bank.answer(request)[0])
        codes.append(iso8583.decode(response, bank._spec)[0]["39"])
    assert codes == ["00", "51"]


# -- real runs -------------------------------------------------------------------------------------------


@contextmanager
def started(peer: Peer) -> Iterator[Path]:
    # Not below pytest's directory, which other users, and so PostgreSQL's, can't enter.
    with tempfile.TemporaryDirectory(prefix="peer-") as name:
        try:
            peer.start(Path(name))
            yield Path(name)
        except Missing as missing:
            unavailable(str(missing))
        finally:
            peer.stop()


@pytest.mark.parametrize("make", [PyIso8583, Iso8583Sim])
def test_a_server_of_iso_8583_runs_and_is_measured(make: type[PyIso8583 | Iso8583Sim]) -> None:
    peer = make()
    with started(peer) as directory:
        for client_count in (1, 8):
            found = peer.measure(client_count, 0.3)
            assert found.client_count == client_count
            assert 0.3 <= found.second < 5
            assert found.done_count == round(found.rate * found.second) > 10
            assert 0 < found.latency_us["p50"] <= found.latency_us["p99"]
        assert any(char.isdigit() for char in peer.version)
        server = peer._server
        peer.stop()
        assert server is not None
        assert server.process.poll() is not None
        # iso8583sim counts what it answered; nothing else may be in either log.
        log = (directory / "server.log").read_text()
        assert "Traceback" not in log
        assert "errors" not in log or "errors 0." in log


def test_postgresql_runs_durably_and_is_measured() -> None:
    peer = OneCall(account_count=1000)
    with started(peer):
        cluster = peer.cluster
        assert cluster is not None
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert cluster.sql(f"SHOW {setting};") == "on\n"
            assert peer.settings[setting] == "on"
        assert set(peer.settings) == set(TOLD_SETTINGS)
        before = int(cluster.sql("SELECT count(*) FROM transfer;"))
        assert before > 0  # the warm-up's
        found = peer.measure(2, 1)
        assert int(cluster.sql("SELECT count(*) FROM transfer;")) == before + found.done_count
        assert cluster.sql("SELECT sum(balance_minor) FROM account;") == f"{2000 * 10**12}\n"
        assert found.rate * found.second == pytest.approx(found.done_count)
        assert 0 < found.latency_us["p50"] <= found.latency_us["p99"]
        # A payment that is not covered moves nothing.
        assert cluster.sql("SELECT pay(1, 1001, 10000000000000);") == "f\n"
        assert cluster.sql("SELECT sum(balance_minor) FROM account;") == f"{2000 * 10**12}\n"
        with pytest.raises(PeerFailed, match=r"psql ended with 3: .*does not exist"):
            cluster.sql("SELECT * FROM nothing;")


def test_pgbench_s_own_script_runs_and_is_measured() -> None:
    peer = TpcB(scale=1)
    with started(peer) as directory:
        found = peer.measure(1, 1)
        assert found.done_count > 10
        assert 0 < found.latency_us["p50"] <= found.latency_us["p99"]
        assert "PostgreSQL" in peer.version
        pid_file = directory / "postgresql" / "data" / "postmaster.pid"
        pid = int(pid_file.read_text().splitlines()[0])
        assert stat.S_IMODE(pid_file.parent.parent.stat().st_mode) == 0o700
        peer.stop()
        assert not pid_file.exists()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_postgresql_that_can_t_be_filled_is_stopped() -> None:
    class Broken(PostgresPeer):
        name = "broken"
        title = "none"

        def _fill(self, cluster: object) -> None:
            raise PeerFailed("no room")

    peer = Broken()
    with tempfile.TemporaryDirectory(prefix="peer-") as name:
        try:
            with pytest.raises(PeerFailed, match="no room"):
                peer.start(Path(name))
        except Missing as missing:
            unavailable(str(missing))
        assert peer.cluster is None
        assert not (Path(name) / "postgresql" / "data" / "postmaster.pid").exists()


def test_framed_messages_have_their_size_before_them() -> None:
    assert framed(b"abc") == b"\0\3abc"
