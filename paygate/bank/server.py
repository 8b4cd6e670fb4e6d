"""The bank's process: its core in the servers' shell, its decoder, its text records."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from paygate.arguments import capturing
from paygate.backups import backup_desk
from paygate.bank.backup import check_restored, load_restored_ms
from paygate.bank.bank_clock import ClockWatch
from paygate.bank.core import BankCore, Decode
from paygate.bank.decoding import DecoderProcess, VerifierBatch, decoder_argv, make_verifiers
from paygate.bank.keys import (
    KEY_LIST_NAME,
    check_root_key,
    find_link_key,
    gateway_ids,
    load_identity,
    load_key_list,
    load_receipt_key,
    load_signed_key_list,
)
from paygate.bank.ledger import Posted
from paygate.bank.record_lines import TRANSACTIONS_LAYOUT
from paygate.bank.records import BankRecords
from paygate.bank.sqlite_ledger import SqliteLedger
from paygate.cli import ExitCode, log
from paygate.clock import Now, system_now
from paygate.codec.messages import MakeVerifier, OpenedEnvelope
from paygate.effects import Effect, LogLine
from paygate.files.database_copy import BackupDesk
from paygate.files.file_errors import unusable
from paygate.files.lost_store import refuse_lost
from paygate.files.state_dir import StateDir, StateError
from paygate.files.text_records import WRITE_DELAY_MS
from paygate.hardening import protect_process
from paygate.net.addresses import format_host_port
from paygate.net.later import Later
from paygate.net.limits import LINK_LIMITS
from paygate.net.loop import Loop
from paygate.net.signals import ServerSignals
from paygate.shell import Server

PROGRAM: Final = "paygate-bank"
LEDGER_NAME: Final = "ledger.sqlite"
POLL_MS: Final = 1_000
"""How often new lines in the records and a new key list are looked for."""
KEY_LIST_WARNING_MS: Final = 30 * 24 * 3_600_000
"""How long before the key list's end the operator is told; customers can't pay after it."""


@dataclass(frozen=True, slots=True)
class BankOptions:
    """How a bank is to run."""

    state_dir: Path
    host: str
    port: int
    ignore_sigterm: bool = False
    capture_path: Path | None = None
    """Where to capture the links of gateways: a new file."""


def serve(options: BankOptions) -> int:
    """Run a bank until it is drained. Raises PaygateExit; a StoreError among them ends the process at once (T31)."""
    protect_process()
    directory = options.state_dir
    identity = load_identity(directory)
    state = StateDir(directory)
    state.open()
    for gateway_id in gateway_ids(directory):
        find_link_key(directory, gateway_id)  # T29: a key that others may read is refused at start
    check_root_key(directory)
    key_list = load_key_list(directory)
    _warn_of_end(key_list.valid_until_ms, system_now())
    ledger = open_ledger(directory)
    clock_watch = ClockWatch(system_now(), ledger.bank_time_ms)
    if text := clock_watch.at_start():
        _log(text)
    records = open_records(directory, ledger)
    loop = Loop()
    core = BankCore(
        identity.bank_id,
        load_signed_key_list(directory),
        _KeyFinder(directory),
        restored_ms=load_restored_ms(directory),
    )
    performer = _Performer(loop, records)
    server = Server(PROGRAM, loop, core, ledger, performer)
    decoder = _start_decoder(loop, directory, core, server)
    performer.decoder = decoder
    signals = ServerSignals(loop, server.begin_drain, ignore_sigterm=options.ignore_sigterm)
    backups = backup_desk(loop, server, directory, ledger.copy_to, _log)
    with capturing(options.capture_path, PROGRAM) as capture:
        host, port = server.listen(options.host, options.port, LINK_LIMITS, capture=capture)
        _Poll(loop, directory, core, server, records, clock_watch, backups)
        sys.stdout.write(f"{PROGRAM}: listening on {format_host_port(host, port)}\n")
        sys.stdout.flush()
        server.run(signals)
        server.close()
    decoder.close()
    signals.close()
    records.close()
    ledger.close()
    state.close()
    _log("drained")
    return ExitCode.OK


def open_records(directory: Path, ledger: SqliteLedger) -> BankRecords:
    """The text records of a state directory, with new lines taken in and all in step with the ledger.

    Raises PaygateExit.
    """
    identity = load_identity(directory)
    password_key = load_key_list(directory).password_key
    try:
        records = BankRecords(directory, ledger, identity.bank_id, identity.currency, password_key, _log)
        records.heal(system_now(), lambda requests: make_verifiers(directory, requests))
    except OSError as error:
        raise unusable(error, directory) from None
    return records


def open_ledger(directory: Path) -> SqliteLedger:
    """The ledger of a state directory; one that was lost is not made anew. Raises StateError, StoreError.

    Whether the text records know more than it, `open_records` tells.
    """
    identity, receipt_key = load_identity(directory), load_receipt_key(directory)
    refuse_lost(directory / LEDGER_NAME, TRANSACTIONS_LAYOUT, PROGRAM)
    ledger = SqliteLedger(directory / LEDGER_NAME, identity, receipt_key)
    try:
        check_restored(directory, ledger)
    except StateError:
        ledger.close()
        raise
    return ledger


def take_in_now(directory: Path) -> None:
    """Take new account lines in while no server runs; the caller holds the lock. Raises StateError, StoreError."""
    ledger = open_ledger(directory)
    try:
        open_records(directory, ledger).close()
    finally:
        ledger.close()


def _start_decoder(loop: Loop, directory: Path, core: BankCore, server: Server) -> DecoderProcess:
    answers: list[tuple[int, OpenedEnvelope | None]] = []

    def answered(tag: int, opened: OpenedEnvelope | None) -> None:
        if not answers:
            server.defer(handle)
        answers.append((tag, opened))

    def handle(now: Now) -> list[Effect]:
        effects: list[Effect] = []
        for tag, opened in answers:
            effects += core.decoded(tag, opened, now)
        answers.clear()
        return effects

    return DecoderProcess(loop, decoder_argv(directory), on_answer=answered, log=_log)


def _log(text: str) -> None:
    log(PROGRAM, text)


def _warn_of_end(valid_until_ms: int, now: Now) -> None:
    left_ms = valid_until_ms - now.wall_ms
    if left_ms < KEY_LIST_WARNING_MS:
        days = max(0, left_ms // (24 * 3_600_000))
        _log(f"the key list is valid for {days} more days; renew it with '{PROGRAM} rotate-keys'")


class _KeyFinder:
    """Link keys of gateways, looked up at each Hello, so that a new gateway needs no restart."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __call__(self, gateway_id: str) -> bytes | None:
        try:
            return find_link_key(self._directory, gateway_id)
        except StateError as error:
            # One gateway's bad key is no reason to fail the others.
            _log(f"gateway {gateway_id} is turned away: {error}")
            return None


class _Performer:
    """The bank's own effects: envelopes for the decoder, records, lines for the operator."""

    decoder: DecoderProcess

    def __init__(self, loop: Loop, records: BankRecords) -> None:
        self._records = records
        self._records_later = Later(loop, WRITE_DELAY_MS, records.write)

    def __call__(self, effects: list[Effect]) -> None:
        posted: list[Posted] = []
        for effect in effects:
            kind = type(effect)
            if kind is Posted:
                posted.append(effect)
            elif kind is Decode:
                self.decoder.open_envelope(effect.tag, effect.request)
            elif kind is LogLine:
                _log(effect.text)
        if self._records.note(posted):
            self._records_later.ask()


class _Poll:
    """Looks once a second for accounts that people added, for a new key list (T12), and at the clock (T7)."""

    def __init__(
        self,
        loop: Loop,
        directory: Path,
        core: BankCore,
        server: Server,
        records: BankRecords,
        clock_watch: ClockWatch,
        backups: BackupDesk,
    ) -> None:
        self._loop = loop
        self._directory = directory
        self._core = core
        self._server = server
        self._records = records
        self._clock_watch = clock_watch
        self._backups = backups
        self._key_list_mtime_ns = self._mtime_ns()
        self._later()

    def _later(self) -> None:
        self._loop.call_later(POLL_MS, lambda: self._server.defer(self._look))

    def _look(self, now: Now) -> list[Effect]:
        if text := self._clock_watch.look(now):
            _log(text)
        self._look_at_keys(now)
        self._backups.look()
        try:
            requests = self._records.look()
            if requests:
                self._make_verifiers(requests)
                return []
            self._records.take_in(now, [])
        except OSError as error:
            self._failed(error)
        self._later()
        return []

    def _make_verifiers(self, requests: Sequence[MakeVerifier]) -> None:
        """Passwords cost an Argon2id each, so a child works on them, and the next look waits for it."""

        def done(verifiers: list[bytes] | None) -> None:
            self._server.defer(lambda now: self._take_in(verifiers, now))

        VerifierBatch(self._loop, decoder_argv(self._directory), requests, done)

    def _take_in(self, verifiers: list[bytes] | None, now: Now) -> list[Effect]:
        try:
            if verifiers is None:
                _log("the decoder failed to make the verifiers of new customers; trying again")
            else:
                self._records.take_in(now, verifiers)
        except OSError as error:
            self._failed(error)
        self._later()
        return []

    def _failed(self, error: OSError) -> None:
        _log(f"the text records could not be read or written ({error.strerror}); trying again")

    def _look_at_keys(self, now: Now) -> None:
        mtime_ns = self._mtime_ns()
        if mtime_ns == self._key_list_mtime_ns:
            return
        self._key_list_mtime_ns = mtime_ns
        try:
            key_list = load_key_list(self._directory)
            self._core.signed_key_list = load_signed_key_list(self._directory)
        except StateError as error:
            _log(f"{error}; the key list before it is still served")
            return
        _log(f"key list {key_list.serial} is served now")
        _warn_of_end(key_list.valid_until_ms, now)

    def _mtime_ns(self) -> int:
        try:
            return (self._directory / KEY_LIST_NAME).stat().st_mtime_ns
        except OSError:
            return 0
