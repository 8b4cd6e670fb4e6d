"""The gateway's process: its core in the servers' shell, its connection to the bank, its text records."""

import contextlib
import os
import random
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from paygate.arguments import capturing, refuse_remote
from paygate.backups import backup_desk
from paygate.cli import ExitCode, PaygateExit, log
from paygate.clock import Now, system_now
from paygate.codec import limits
from paygate.effects import Effect, LogLine
from paygate.files.database_copy import BackupDesk
from paygate.files.file_errors import unusable
from paygate.files.lost_store import refuse_lost
from paygate.files.state_dir import StateDir
from paygate.files.text_records import WRITE_DELAY_MS
from paygate.gateway.bank_side import GatewayIdentity
from paygate.gateway.core import GatewayCore
from paygate.gateway.record_lines import PAYMENTS_LAYOUT, REFUSED
from paygate.gateway.records import GatewayRecords
from paygate.gateway.settings import STORE_NAME, read_identity
from paygate.gateway.sqlite_tokens import SqliteTokens
from paygate.hardening import protect_process
from paygate.net.addresses import Address, format_host_port
from paygate.net.capture import CaptureFile
from paygate.net.connect import Backoff, connect
from paygate.net.later import Later
from paygate.net.listen import raise_descriptor_limit
from paygate.net.loop import Loop
from paygate.net.signals import ServerSignals
from paygate.shell import Server

PROGRAM: Final = "paygate-gateway"
RECORDS_POLL_MS: Final = 1_000
"""R13: how often new token lines are looked for."""
CONNECT_TIMEOUT_MS: Final = 3_000
RECONNECT_BASE_MS: Final = 100
RECONNECT_MS_MAX: Final = 5_000
DESCRIPTOR_COUNT: Final = 65_536
"""Asked for at start, as far as the system allows: one for each client."""
_OUTCOME: Final = [column.name for column in PAYMENTS_LAYOUT.columns].index("outcome")


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """How a gateway is to run."""

    state_dir: Path
    host: str
    port: int
    bank: Address
    ignore_sigterm: bool = False
    session_ms: int = limits.SESSION_MS
    bank_wait_ms: int | None = None
    """How long to wait for the first link to the bank before giving up; None for ever."""
    capture_path: Path | None = None
    """Where to capture the links of clients and that to the bank: a new file."""


def serve(options: GatewayOptions) -> int:
    """Run a gateway until it is drained. Raises PaygateExit."""
    protect_process()
    refuse_remote(options.bank[0], "connect to a bank at")
    state = StateDir(options.state_dir)
    state.open()
    identity = read_identity(state)
    store = _open_store(options.state_dir)
    records = _open_records(options.state_dir, store)
    # However it ends: what merchants added to a file that was replaced meanwhile must come into the new one.
    with contextlib.closing(records), capturing(options.capture_path, PROGRAM) as capture:
        _run(options, identity, store, records, capture)
    store.close()
    state.close()
    _log("drained")
    return ExitCode.OK


def _run(
    options: GatewayOptions,
    identity: GatewayIdentity,
    store: SqliteTokens,
    records: GatewayRecords,
    capture: CaptureFile | None,
) -> None:
    raise_descriptor_limit(DESCRIPTOR_COUNT)
    loop = Loop()
    core = GatewayCore(identity, os.urandom, random.SystemRandom().random, session_ms=options.session_ms)
    server = Server(PROGRAM, loop, core, store, _Performer(loop, records))
    signals = ServerSignals(loop, server.begin_drain, ignore_sigterm=options.ignore_sigterm)
    host, port = server.listen(options.host, options.port, capture=capture)
    server.defer(lambda now: core.resume(store.payments_in_flight(), now))
    _BankConnector(loop, core, server, options, capture)
    _Poll(loop, server, records, backup_desk(loop, server, options.state_dir, store.copy_to, _log))
    sys.stdout.write(f"{PROGRAM}: listening on {format_host_port(host, port)}\n")
    sys.stdout.flush()
    server.run(signals)
    server.close()
    signals.close()


def _log(text: str) -> None:
    log(PROGRAM, text)


class _Performer:
    """The gateway's own effects: records, and lines for the operator."""

    def __init__(self, loop: Loop, records: GatewayRecords) -> None:
        self._records = records
        self._records_later = Later(loop, WRITE_DELAY_MS, records.write)

    def __call__(self, effects: list[Effect]) -> None:
        if not effects:
            return
        if self._records.note(effects):
            self._records_later.ask()
        for effect in effects:
            if isinstance(effect, LogLine):
                _log(effect.text)


class _BankConnector:
    """Keeps one connection to the bank, with capped, jittered back-off."""

    def __init__(
        self, loop: Loop, core: GatewayCore, server: Server, options: GatewayOptions, capture: CaptureFile | None
    ) -> None:
        self._loop = loop
        self._core = core
        self._server = server
        self._address = options.bank
        self._capture = capture
        self._backoff = Backoff(RECONNECT_BASE_MS, RECONNECT_MS_MAX, random.SystemRandom())
        self._trouble = self._told = ""
        self._bank_wait_ms = options.bank_wait_ms
        if options.bank_wait_ms is not None:
            loop.call_later(options.bank_wait_ms, self._wait_is_over)
        self._connect()

    def _connect(self) -> None:
        host, port = self._address
        connect(
            self._loop,
            host,
            port,
            timeout_ms=CONNECT_TIMEOUT_MS,
            on_connected=self._connected,
            on_failed=self._failed,
            capture=self._capture,
        )

    def _connected(self, sock: socket.socket) -> None:
        self._trouble = ""
        link_id = self._server.attach(sock, self._address)
        self._server.defer(lambda now: self._core.bank_connected(link_id, now))
        self._loop.call_later(RECONNECT_BASE_MS, self._watch)

    def _failed(self, text: str) -> None:
        self._trouble = text
        if text != self._told:  # Once, not at every attempt.
            self._told = text
            _log(f"{text}; trying again")
        self._loop.call_later(self._backoff.next_delay_ms(), self._connect)

    def _watch(self) -> None:
        if self._core.bank_is_wanted:
            self._loop.call_later(self._backoff.next_delay_ms(), self._connect)
            return
        if self._core.bank.is_open:
            self._backoff.reset()
            self._told = ""
        self._loop.call_later(RECONNECT_BASE_MS, self._watch)

    def _wait_is_over(self) -> None:
        if not self._core.bank.was_open:  # Later it may come and go.
            host, port = self._address
            trouble = self._trouble or self._core.bank.told_trouble or self._core.bank.trouble
            raise PaygateExit(
                f"no link to the bank at {format_host_port(host, port)} within {self._bank_wait_ms} ms: "
                f"{trouble}; start the bank, check --bank and the link key, "
                "or wait longer with --bank-wait",
                ExitCode.NO_BANK,
            )


class _Poll:
    """Looks once a second for lines that merchants added, files that were moved away, and requests for a backup."""

    def __init__(self, loop: Loop, server: Server, records: GatewayRecords, backups: BackupDesk) -> None:
        self._loop = loop
        self._server = server
        self._records = records
        self._backups = backups
        self._later()

    def _later(self) -> None:
        self._loop.call_later(RECORDS_POLL_MS, lambda: self._server.defer(self._look))

    def _look(self, now: Now) -> list[Effect]:
        self._later()
        self._records.poll(now)
        self._backups.look()
        return []


def take_in_now(directory: Path) -> None:
    """Take new token lines in while no server runs; the caller holds the lock. Raises PaygateExit."""
    store = _open_store(directory)
    try:
        _open_records(directory, store).close()
    finally:
        store.close()


def _open_store(directory: Path) -> SqliteTokens:
    """The store of a state directory; one that was lost is not made anew. Raises StateError, StoreError."""
    path = directory / STORE_NAME
    refuse_lost(path, PAYMENTS_LAYOUT, PROGRAM, lambda fields: fields[_OUTCOME] != REFUSED)
    return SqliteTokens(path)


def _open_records(directory: Path, store: SqliteTokens) -> GatewayRecords:
    """The text records, with new lines taken in and all in step with the store. Raises PaygateExit."""
    try:
        records = GatewayRecords(directory, store, _log)
        records.heal(system_now())
    except OSError as error:
        raise unusable(error, directory) from None
    return records
