"""PostgreSQL as a peer: what a database engine makes of a plain debit and credit, durably, on this machine.

Each peer has a cluster of its own, of a fresh `initdb`, that listens on a Unix socket alone. It gets what gives it its
best: prepared statements, a Unix socket, memory for the whole database, no checkpoint or vacuum while it is measured,
and accounts enough that clients don't wait for one another's rows. It keeps its durability: fsync, synchronous_commit
and full_page_writes are on, as they are by default.
"""

import os
import pwd
import re
import shutil
import signal
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from paygate.bench.peers.child import OURSELVES, Child, RunAs, run
from paygate.bench.peers.peer import Missing, PeerFailed, PeerRun, run_of

PROGRAMS: Final = ("initdb", "postgres", "psql", "pgbench")
INSTALLED_BELOW: Final = Path("/usr/lib/postgresql")
"""Debian's directory of versions; its `initdb` and `postgres` are not in PATH."""
INSTALL: Final = "apt-get install -y postgresql"
CLIENT_COUNTS: Final = (1, 8, 16, 32, 64)
SETTINGS: Final = {
    "listen_addresses": "",
    "shared_buffers": "1536MB",  # more than the tables of SCALE take; pages are allocated as they are used
    "max_wal_size": "16GB",  # no checkpoint in the middle of a measurement, by size
    "checkpoint_timeout": "1h",  # nor by time
    "autovacuum": "off",  # nor vacuum in the middle of it, or of another's; tables are vacuumed before
    "max_connections": "100",
    "max_parallel_maintenance_workers": "0",  # they share memory through /dev/shm, which is small in containers
}
SCALE: Final = 64
"""pgbench's branches: every client of the largest count can have one of its own, or its row is what is measured."""
ACCOUNT_COUNT: Final = 100_000
"""Accounts that are debited, and as many that are credited: nobody waits for a row, and nothing deadlocks."""

TOLD_SETTINGS: Final = ("fsync", "synchronous_commit", "full_page_writes", "wal_sync_method", "shared_buffers")
"""What a report tells of a server, as the server says it: is it durable, by which call, in how much memory."""

_SETTINGS_QUERY: Final = "".join(f"SELECT '{name}', current_setting('{name}');" for name in TOLD_SETTINGS)
_DATABASE: Final = "postgres"  # initdb makes it
_SUPERUSER: Final = "paygate"
_THREAD_COUNT: Final = 2
_FILL_S_MAX: Final = 600
_OVERTIME_S: Final = 60
"""What pgbench may take beyond the measurement, to vacuum, connect and write its logs."""
_WARM_UP_S: Final = 2
_WARM_UP_CLIENT_COUNT: Final = 8
_LOG_PREFIX: Final = "transactions"
_LOG_FAILED: Final = ("failed", "skipped")
_RATE: Final = re.compile(r"^tps = ([0-9.]+) \(without initial connection time\)$", re.MULTILINE)
_DONE: Final = re.compile(r"^number of transactions actually processed: (\d+)", re.MULTILINE)
_FAILED: Final = re.compile(r"^number of failed transactions: (\d+) ", re.MULTILINE)


def find_programs(search: Iterable[Path] | None = None) -> Path:
    """The directory that holds all of PROGRAMS, so that they are of one version. Raises Missing.

    `search`: where to look, in order; by default PATH, then Debian's directories, the newest version first.
    """
    for directory in _default_search() if search is None else search:
        if all(shutil.which(program, path=directory) for program in PROGRAMS):
            return directory
    raise Missing("PostgreSQL's initdb, postgres, psql and pgbench are not installed", INSTALL)


def _default_search() -> Iterator[Path]:
    yield from map(Path, os.get_exec_path())
    versions = [path for path in INSTALLED_BELOW.glob("*") if path.name.isdigit()]
    yield from (path / "bin" for path in sorted(versions, key=lambda path: int(path.name), reverse=True))


def unprivileged() -> RunAs:
    """Whom PostgreSQL runs as, since it refuses to run as root. Raises PeerFailed if there is nobody."""
    if os.geteuid() != 0:
        return OURSELVES
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return RunAs(user=entry.pw_uid, group=entry.pw_gid, extra_groups=())
    raise PeerFailed("PostgreSQL does not run as root, and there is neither a user postgres nor a user nobody")


def check_way(directory: Path) -> None:
    """Whether other users get through to a directory. Raises PeerFailed, with the first directory that they don't pass.

    Whom PostgreSQL runs as where we are root owns none of them.
    """
    for above in (*reversed(directory.resolve().parents), directory):
        if not above.stat().st_mode & stat.S_IXOTH:
            raise PeerFailed(
                f"PostgreSQL, which does not run as root, can't get through {above}; choose a directory that all users "
                f"can reach with --directory, or let them through: chmod o+x {above}"
            )


class Cluster:
    """A PostgreSQL server on a fresh data directory, both of an unprivileged user."""

    def __init__(self, directory: Path) -> None:
        """Make it and start it. Raises Missing, PeerFailed."""
        self._programs = find_programs()
        run_as = unprivileged()
        self._directory = directory
        self._socket_directory = directory / "postgresql"
        data = self._socket_directory / "data"
        self._socket_directory.mkdir()
        if run_as:
            os.chown(self._socket_directory, run_as["user"], run_as["group"])
            # The server must get through to its own, and temporary directories are their owner's alone.
            directory.chmod(stat.S_IMODE(directory.stat().st_mode) | stat.S_IXGRP | stat.S_IXOTH)
            check_way(directory)
        self._socket_directory.chmod(0o700)  # whoever reaches the socket is a superuser of this database
        self.version = self._run("postgres", "--version").strip()
        options = ("--auth=trust", f"--username={_SUPERUSER}", "--no-locale", "--encoding=UTF8")
        self._run("initdb", *options, "-D", str(data), cwd=self._socket_directory, run_as=run_as)
        settings = {**SETTINGS, "unix_socket_directories": str(self._socket_directory)}
        self._server = Child(
            (str(self._programs / "postgres"), "-D", str(data), *(f"--{n}={v}" for n, v in settings.items())),
            self._socket_directory / "server.log",
            rb"database system is ready to accept connections",
            run_as,
        )

    def sql(self, text: str) -> str:
        """Run statements; gives rows of the last one, one a line. Raises PeerFailed."""
        options = ("-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", *self._address, "-d", _DATABASE)
        return self._run("psql", *options, stdin=text)

    def pgbench(self, *options: str, seconds_max: float = _FILL_S_MAX) -> str:
        """Run pgbench and give what it prints. Raises PeerFailed."""
        return self._run("pgbench", *options, *self._address, _DATABASE, seconds_max=seconds_max)

    def stop(self) -> None:
        """End the server at once: its data is thrown away, so nothing need be written to it."""
        self._server.stop(signal.SIGQUIT)

    @property
    def _address(self) -> Sequence[str]:
        return ("-h", str(self._socket_directory), "-U", _SUPERUSER)

    def _run(
        self,
        program: str,
        *options: str,
        stdin: str = "",
        seconds_max: float = _FILL_S_MAX,
        cwd: Path | None = None,
        run_as: RunAs = OURSELVES,
    ) -> str:
        argv: tuple[Path | str, ...] = (self._programs / program, *options)
        return run(argv, seconds_max, stdin=stdin, run_as=run_as, cwd=cwd or self._directory)


class PostgresPeer:
    """A cluster and a script that pgbench runs on it. Subclasses say which."""

    name: str
    title: str
    client_counts: tuple[int, ...] = CLIENT_COUNTS

    def __init__(self) -> None:
        self.version = ""
        self.settings: dict[str, str] = {}
        self.cluster: Cluster | None = None

    def start(self, directory: Path) -> None:
        """Make a cluster, fill it and warm it up. Raises Missing, PeerFailed."""
        self._directory = directory
        self.cluster = Cluster(directory)
        self.version = self.cluster.version
        try:
            self.settings = read_settings(self.cluster.sql(_SETTINGS_QUERY))
            self._fill(self.cluster)
            self.cluster.sql("CHECKPOINT;")
            # After a checkpoint each page is written whole once (full_page_writes); a server that runs is past that.
            self.measure(_WARM_UP_CLIENT_COUNT, _WARM_UP_S)
        except BaseException:
            self.stop()
            raise

    def measure(self, client_count: int, seconds: float) -> PeerRun:
        """`seconds` is rounded: pgbench counts whole ones. Raises PeerFailed."""
        cluster = self.cluster
        if cluster is None:
            raise PeerFailed(f"{self.name} was not started")
        whole_seconds = max(1, round(seconds))
        prefix = self._directory / _LOG_PREFIX
        load = ("-c", str(client_count), "-j", str(min(client_count, _THREAD_COUNT)), "-T", str(whole_seconds))
        logs = ("--log", f"--log-prefix={prefix}")
        options = ("-M", "prepared", *load, *logs, *self._script(cluster))
        output = cluster.pgbench(*options, seconds_max=whole_seconds + _OVERTIME_S)
        latencies_us: list[int] = []
        for path in self._directory.glob(f"{_LOG_PREFIX}.*"):
            latencies_us += read_log(path.read_text())
            path.unlink()
        return read_run(client_count, output, latencies_us)

    def stop(self) -> None:
        """End the server."""
        if self.cluster is not None:
            self.cluster.stop()
            self.cluster = None

    def _fill(self, cluster: Cluster) -> None:
        raise NotImplementedError

    def _script(self, cluster: Cluster) -> Sequence[str]:
        """Make ready for a measurement, and give pgbench's options that say what to run."""
        raise NotImplementedError


class TpcB(PostgresPeer):
    """pgbench's own TPC-B-like script: seven statements a transaction."""

    name = "pgbench TPC-B"
    title = "PostgreSQL, pgbench's TPC-B: three balances and a history row in one durable transaction; no crypto"

    def __init__(self, scale: int = SCALE) -> None:
        super().__init__()
        self._scale = scale

    def _fill(self, cluster: Cluster) -> None:
        cluster.pgbench("--initialize", "--quiet", f"--scale={self._scale}")

    def _script(self, cluster: Cluster) -> Sequence[str]:
        return ("-b", "tpcb-like")  # before which pgbench vacuums, and empties the history


class OneCall(PostgresPeer):
    """One function call a payment: debit if there is enough, credit, record."""

    name = "PostgreSQL one call"
    title = "PostgreSQL, one stored function: debit, credit and record in one durable transaction; no crypto"

    def __init__(self, account_count: int = ACCOUNT_COUNT) -> None:
        super().__init__()
        self._account_count = account_count

    def _fill(self, cluster: Cluster) -> None:
        cluster.sql(_ONE_CALL_SCHEMA.format(account_count=2 * self._account_count))
        script = _ONE_CALL_SCRIPT.format(last_debit=self._account_count, last_credit=2 * self._account_count)
        self._script_path.write_text(script)

    def _script(self, cluster: Cluster) -> Sequence[str]:
        cluster.sql("VACUUM account;")  # as pgbench does with the tables of its own
        return ("-n", "-f", str(self._script_path))

    @property
    def _script_path(self) -> Path:
        return self._directory / "one_call.sql"


_ONE_CALL_SCHEMA: Final = """\
CREATE TABLE account (id bigint PRIMARY KEY, balance_minor bigint NOT NULL CHECK (balance_minor >= 0))
    WITH (fillfactor = 60);  -- an update finds room in its page, and no index is touched
INSERT INTO account SELECT id, 1000000000000 FROM generate_series(1, {account_count}) AS id;
CREATE TABLE transfer (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    debit_id bigint NOT NULL,
    credit_id bigint NOT NULL,
    amount_minor bigint NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now()
);
CREATE FUNCTION pay(debit bigint, credit bigint, amount bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE account SET balance_minor = balance_minor - amount WHERE id = debit AND balance_minor >= amount;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE account SET balance_minor = balance_minor + amount WHERE id = credit;
    INSERT INTO transfer (debit_id, credit_id, amount_minor) VALUES (debit, credit, amount);
    RETURN true;
END
$$;
VACUUM ANALYZE account;
"""
_ONE_CALL_SCRIPT: Final = """\
\\set debit random(1, {last_debit})
\\set credit random({last_debit} + 1, {last_credit})
\\set amount random(1, 5000)
SELECT pay(:debit, :credit, :amount);
"""


# -- what pgbench writes -----------------------------------------------------------------------------------


def read_settings(rows: str) -> dict[str, str]:
    """Settings by name, out of psql's rows."""
    return dict(row.split("|", 1) for row in rows.splitlines())


def read_log(text: str) -> list[int]:
    """The latency of each transaction of a `--log` file, in microseconds. Raises PeerFailed if it is none.

    A line is: client, number, latency, script, and when it ended.
    """
    latencies_us = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 3:
            raise PeerFailed(f"pgbench's log has a line that is none: {line!r}")
        if words[2] in _LOG_FAILED:
            continue
        if not words[2].isdigit():
            raise PeerFailed(f"pgbench's log has a line that is none: {line!r}")
        latencies_us.append(int(words[2]))
    return latencies_us


def read_run(client_count: int, output: str, latencies_us: list[int]) -> PeerRun:
    """The measurement that pgbench's report and logs make; sorts the latencies.

    Raises PeerFailed if transactions failed, or the report is not what we know, or the two don't agree.
    """
    rate, done, failed = _RATE.search(output), _DONE.search(output), _FAILED.search(output)
    if rate is None or done is None:
        raise PeerFailed(f"pgbench's report has no rate: {output.strip()[-500:]!r}")
    if failed is not None and int(failed[1]):
        raise PeerFailed(f"{failed[1]} of pgbench's transactions failed")
    if int(done[1]) != len(latencies_us):
        raise PeerFailed(f"pgbench did {done[1]} transactions and logged {len(latencies_us)}")
    if not float(rate[1]):
        raise PeerFailed("pgbench did nothing")
    return run_of(client_count, int(done[1]) / float(rate[1]), latencies_us)
