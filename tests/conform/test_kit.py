"""The kit itself: how cases are chosen, what is sent wrongly, what a run is told as, what a world must be."""

import contextlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from builders import build_terms
from strategies import illegal_values

from paygate.cli import ExitCode
from paygate.codec.codes import KeysStatus, Role
from paygate.codec.errors import ErrorCode, RemoteProtocolError
from paygate.codec.fields import fields_of
from paygate.codec.frame import decode_frame, decode_head
from paygate.codec.messages import BankKeys, Echo, EchoReply, Hello, Message, ResolveRequest, TransferRequest
from paygate.codec.record_codec import decode_record, encode_record
from paygate.codec.sealed import Terms
from paygate.conform.cases import Catalogue, Failed, UnknownSelector, WorldUsedUp
from paygate.conform.craft import bad_encodings, body_with, draft, leaves_of, longer_than_body, parts_of
from paygate.conform.report import json_report, junit_report, result_lines
from paygate.conform.runner import Outcome, Result, Run, turn_until
from paygate.conform.trial import Settings, Trial
from paygate.conform.wire import ENTRY_SIZE_MAX, WAITING_COUNT_MAX, WAITING_SIZE_MAX, Entry, Wire
from paygate.conform.world import BadWorld, KeyFiles, Use, World, default_world, read_world, write_world
from paygate.net.loop import Loop

PROGRAM = [sys.executable, "-P", "-m", "paygate.conform"]
KEY = bytes(range(32))


async def _nothing(t: Trial) -> None:
    pass


def some_catalogue() -> Catalogue:
    catalogue = Catalogue("bank", _nothing)
    catalogue.case("late.one", "It is later.", *("7.1", "PG-TRF-4"))(_nothing)
    catalogue.case("hello.one", "It says hello.", *("5.1", "PG-LNK-1"))(_nothing)
    catalogue.case("hello.two", "It says it again.", *("5.10", "5.1.1", "PG-LNK-10"))(_nothing)
    return catalogue


# -- cases -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("5", ["hello.one", "hello.two"]),
        ("5.1", ["hello.one", "hello.two"]),
        ("5.10", ["hello.two"]),
        ("7", ["late.one"]),
        ("PG-LNK", ["hello.one", "hello.two"]),
        ("PG-LNK-1", ["hello.one"]),
        ("bank.hello", ["hello.one", "hello.two"]),
        ("bank.late.one", ["late.one"]),
    ],
)
def test_a_selector_is_a_section_a_requirement_or_an_id(selector: str, expected: list[str]) -> None:
    chosen = [case.case_id for case in some_catalogue().select([selector])]
    assert chosen == [f"bank.{name}" for name in expected]


@pytest.mark.parametrize("selector", ["9", "5.1.2", "PG-XYZ-1", "PG-LNK-2", "bank.hel", "hello", ""])
def test_an_unknown_selector_is_told_what_exists(selector: str) -> None:
    with pytest.raises(UnknownSelector, match=r"sections 5\.1\.1, 5\.1, .*PG-LNK-….*bank\.hello|bank\.hello"):
        some_catalogue().select([selector])


def test_cases_stand_in_the_order_of_the_spec() -> None:
    assert [case.sections[0] for case in some_catalogue()] == ["5.1", "5.10", "7.1"]


# -- bytes -----------------------------------------------------------------------------------------------


def requests() -> list[Message]:
    return [
        Hello(Role.GATEWAY, "GW1", (1,)),
        TransferRequest(build_terms(), 20_000, bytes(8), b"envelope"),
        ResolveRequest(build_terms(), bytes(32)),
    ]


@pytest.mark.parametrize("message", requests(), ids=lambda message: type(message).__name__)
def test_parts_are_the_encoding(message: Message) -> None:
    assert b"".join(part.encoded for part in parts_of(message)) == encode_record(message)
    frame = draft(message, KEY, 7).encode()
    head = decode_head(frame[:20])
    decoded = decode_frame(head, frame)
    decoded.check_mac(KEY)
    assert decoded.message() == message
    assert head.correlation_id == 7


@pytest.mark.parametrize("message", requests(), ids=lambda message: type(message).__name__)
def test_every_bad_encoding_is_refused_as_a_bad_value(message: Message) -> None:
    refused = 0
    for path, field in leaves_of(type(message)):
        for words, encoded in bad_encodings(field):
            with pytest.raises(RemoteProtocolError) as caught:
                decode_record(type(message), body_with(message, path, encoded))
            assert caught.value.code is ErrorCode.BAD_VALUE, (path, words)
            refused += 1
    assert refused > len(fields_of(type(message)))


@pytest.mark.parametrize("message", requests(), ids=lambda message: type(message).__name__)
def test_a_body_with_a_lie_about_its_last_field_is_truncated(message: Message) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_record(type(message), longer_than_body(message))
    assert caught.value.code is ErrorCode.TRUNCATED_FIELD


def test_every_field_that_can_be_wrong_has_a_bad_encoding() -> None:
    for path, field in leaves_of(Terms):
        assert bad_encodings(field) or not illegal_values(field), path


def test_a_drafted_header_is_as_it_was_told() -> None:
    made = replace(draft(Echo(bytes(8)), None), magic=1, version=2, kind=3, flags=4, body_size=5, checksum=6)
    assert made.header().hex() == "000102030004000500000000000000010000" + "0006"


# -- reports ---------------------------------------------------------------------------------------------


def a_failure() -> Result:
    wire = Wire(Loop(), "link 1", 0, 100, None)
    wire.entries.append(Entry(12, "sent", draft(Echo(b"12345678"), None, 9).encode() + b"x"))
    wire.entries.append(Entry(15, "received", b"GET / HTTP/1.1\r\n\r\n...."))
    wire.entries.append(Entry(20, "closed by the other end"))
    case = next(iter(some_catalogue()))
    return Result(case, Outcome.FAILED, 33, "a frame", "garbage with a \x1b and a \x00", [wire])


@dataclass
class RunOfOne:
    """A case that meets a peer which we are, and what became of it."""

    results: list[Result]
    peer: socket.socket

    def go(self, body: Callable[[Trial], Any], world: World, *, sends: bytes, patience_ms: int = 2_000) -> Result:
        """Run it while the peer sends all of this as fast as it is taken, then waits for the end."""
        catalogue = Catalogue("bank", _nothing)
        catalogue.case("flood", "It is asked nothing.", "5.3")(body)
        loop = Loop()
        settings = Settings(self.peer.getsockname()[:2], world, patience_ms)
        one_run = Run(loop, _nothing, catalogue, settings, self.results.append, jobs=1)
        flooding = threading.Thread(target=self._flood, args=(sends,))
        flooding.start()
        try:
            turn_until(loop, lambda: one_run.is_over)
        finally:
            loop.close()
            flooding.join()
        return self.results[0]

    def _flood(self, data: bytes) -> None:
        link, _address = self.peer.accept()
        with link, contextlib.suppress(OSError):
            link.settimeout(10)
            link.sendall(data)
            while link.recv(65_536):
                pass


@pytest.fixture
def run_of_one() -> Iterator[RunOfOne]:
    with socket.create_server(("127.0.0.1", 0)) as peer:
        peer.settimeout(10)
        yield RunOfOne([], peer)


def test_a_run_that_finds_the_world_used_up_says_so_apart(tmp_path: Path, run_of_one: RunOfOne) -> None:
    async def finds_nothing(_t: Trial) -> None:
        raise WorldUsedUp("no token is left")

    async def connects(t: Trial) -> None:
        await t.connect()
        await finds_nothing(t)

    result = run_of_one.go(connects, read_world(a_world(tmp_path), KeyFiles()), sends=b"")
    assert (result.outcome, result.is_used_up) == (Outcome.SKIPPED, True)


def test_a_command_that_can_not_be_started_fails_the_case(tmp_path: Path, run_of_one: RunOfOne) -> None:
    async def starts(t: Trial) -> None:
        await t.connect()
        await t.run_command(["/nowhere/kill-it"])

    result = run_of_one.go(starts, read_world(a_world(tmp_path), KeyFiles()), sends=b"")
    assert result.outcome is Outcome.FAILED
    assert result.reason == "/nowhere/kill-it can't be: no such file or directory"


async def _sleeps(t: Trial) -> None:
    wire = await t.connect()
    # Until too much waits, however slowly that comes.
    while wire.flood is None:
        await t.sleep(50)


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (
            draft(BankKeys(KeysStatus.AVAILABLE, b"k" * 900), None, 9).encode(),
            f"more than {WAITING_SIZE_MAX} bytes",
        ),
        (draft(EchoReply(b"12345678"), None, 9).encode(), f"more than {WAITING_COUNT_MAX} frames"),
    ],
    ids=["bytes", "frames"],
)
def test_a_case_that_only_sleeps_fails_of_a_flood(
    tmp_path: Path, run_of_one: RunOfOne, frame: bytes, expected: str
) -> None:
    world = read_world(a_world(tmp_path), KeyFiles())
    result = run_of_one.go(_sleeps, world, sends=frame * (2 * WAITING_SIZE_MAX // len(frame)))
    assert result.outcome is Outcome.FAILED
    assert expected in result.reason


def test_of_a_stream_without_frames_little_is_kept(tmp_path: Path, run_of_one: RunOfOne) -> None:
    async def receives(t: Trial) -> None:
        wire = await t.connect()
        await t.sleep(300)
        await wire.receive()

    world = read_world(a_world(tmp_path), KeyFiles())
    result = run_of_one.go(receives, world, sends=b"SSH-2.0-" * 500_000)
    assert result.outcome is Outcome.FAILED
    assert "bad magic" in result.reason
    assert len(result.reason) < 1_000
    (wire,) = result.wires
    assert sum(len(entry.data) for entry in wire.entries) <= ENTRY_SIZE_MAX
    assert wire.closed == "cut by us: what came is no frame"


def test_as_many_replies_as_may_be_due_can_wait(tmp_path: Path, run_of_one: RunOfOne) -> None:
    async def receives(t: Trial) -> None:
        wire = await t.connect()
        await t.sleep(1_000)
        for _ in range(4_096):
            await wire.receive()

    world = read_world(a_world(tmp_path), KeyFiles())
    frame = draft(BankKeys(KeysStatus.AVAILABLE, b"k" * 900), None, 9).encode()
    result = run_of_one.go(receives, world, sends=frame * 4_096)
    assert result.outcome is Outcome.PASSED, result.reason


def test_a_long_entry_is_shown_by_its_beginning() -> None:
    failure = a_failure()
    failure.wires[0].note("sent", bytes(1_000_000))
    text = "\n".join(result_lines(failure))
    assert len(text) < 20_000
    assert f"... {1_000_000 - ENTRY_SIZE_MAX} bytes more" in text
    assert "sent 1000000 bytes" in text
    entry = json_report("bank", "", [failure], 0)["cases"][0]["links"][0]["entries"][-1]
    assert len(entry["bytes"]) == 2 * ENTRY_SIZE_MAX
    assert entry["left_out_size"] == 1_000_000 - ENTRY_SIZE_MAX
    assert len(junit_report("bank", [failure], 0)) < 20_000


def results() -> list[Result]:
    cases = list(some_catalogue())
    skipped = Result(cases[1], Outcome.SKIPPED, 0, reason="it needs <an option> & more")
    return [a_failure(), skipped, Result(cases[2], Outcome.PASSED, 5)]


def test_a_failure_is_told_with_the_spec_and_the_bytes() -> None:
    text = "\n".join(result_lines(a_failure()))
    assert "FAILED   bank.hello.one" in text
    assert "section 5.1, PG-LNK-1" in text
    assert "ECHO echo_data=3132333435363738 (correlation 9); no valid frame" in text
    assert (draft(Echo(b"12345678"), None, 9).encode() + b"x").hex() in text
    assert "bad magic" in text
    assert "\x1b" not in text


def test_the_json_report_says_all() -> None:
    report = json.loads(json.dumps(json_report("bank", "127.0.0.1:1", results(), 40)))
    assert (report["format"], report["passed"], report["failed"], report["skipped"]) == (1, 1, 1, 1)
    failed = report["cases"][0]
    assert failed["outcome"] == "failed"
    assert bytes.fromhex(failed["links"][0]["entries"][1]["bytes"]).startswith(b"GET / ")
    assert report["cases"][1]["reason"] == "it needs <an option> & more"


def test_the_junit_report_is_xml_whatever_came() -> None:
    suites = ElementTree.fromstring(junit_report("bank", results(), 40))
    failed, skipped, passed = suites[0]
    failure = failed.find("failure")
    assert failure is not None
    assert "garbage" in str(failure.get("message"))
    assert "expected  a frame" in str(failure.text)
    assert skipped.find("skipped") is not None
    assert len(passed) == 0
    assert suites[0].attrib["tests"] == "3"


def test_a_failed_case_says_what_was_expected_and_what_came() -> None:
    assert str(Failed("an Error", "a HelloAck")) == "expected an Error; got a HelloAck"


# -- worlds ----------------------------------------------------------------------------------------------


def a_world(directory: Path) -> Path:
    write_world(directory, default_world(b"12345678"))
    (directory / "bank").mkdir()
    (directory / "bank" / "root.pub").write_text(f"CONFORMBANK {KEY.hex()}\n")
    (directory / "gateway.key").write_text(f"{KEY.hex()}\n")
    (directory / "gateway-2.key").write_text(f"{KEY.hex()}\n")
    return directory / "world.json"


def test_a_world_that_was_made_can_be_read(tmp_path: Path) -> None:
    world = read_world(a_world(tmp_path / "world"), KeyFiles())
    assert world.root_public_key == world.gateway.link_key == KEY
    assert world.second_gateway is not None
    assert all(list(world.customers_for(use)) for use in Use)
    assert (tmp_path / "world" / "world.json").stat().st_mode & 0o777 == 0o600


def test_a_world_is_not_overwritten(tmp_path: Path) -> None:
    a_world(tmp_path)
    with pytest.raises(BadWorld, match="already"):
        write_world(tmp_path, default_world(b"1"))


def test_keys_may_come_from_the_options(tmp_path: Path) -> None:
    path = a_world(tmp_path)
    other = tmp_path / "other.key"
    other.write_text("ab" * 32)
    assert read_world(path, KeyFiles(link_key=other)).gateway.link_key == bytes.fromhex("ab" * 32)


def _only(*uses: str) -> Any:
    return lambda world: world.update(customers=[c for c in world["customers"] if c["use"] in uses])


def _without(name: str) -> Any:
    return lambda world: world.pop(name)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_without("bank"), "bank: expected a value"),
        (lambda w: w.update(bank=3), "bank: expected an object"),
        (lambda w: w["bank"].update(bank_id="a b"), "bank.bank_id: expected 1 to 32 bytes"),
        (lambda w: w["bank"].update(bank_code="conf"), "bank.bank_code: expected four capital letters"),
        (lambda w: w["bank"].update(root_public_key="gone.pub"), "gone.pub .no such file.*--bank-root"),
        (lambda w: w["bank"].update(root_public_key="world.json"), "64 hexadecimal digits as the last word"),
        (lambda w: w["bank"].update(root_public_key=1), "bank.root_public_key: expected 64 hexadecimal"),
        (lambda w: w["customers"][1].update(use="LIVING"), r"customers\[1\].use: expected one of PAYING"),
        (lambda w: w["customers"][0].update(balance_minor="1"), r"customers\[0\].balance_minor"),
        (lambda w: w["customers"][1].update(use=[]), r"customers\[1\].use: expected one of PAYING"),
        (lambda w: w["customers"][1].update(user_id={}), r"customers\[1\].user_id: expected"),
        (lambda w: w.update(note="x"), "note: expected no such name; there are bank, customers"),
        (lambda w: w["tokens"][2].update(amount=1), r"tokens\[2\].amount: expected no such name"),
        (lambda w: w["second_gateway"].update(gateway_id="conform-gateway"), "second_gateway.gateway_id: .*another"),
        (lambda w: w["tokens"].append(w["tokens"][0]), r"tokens\[400\].transaction_id: expected another than TX-"),
        (lambda w: w["expired_tokens"].append(w["tokens"][0]), r"expired_tokens\[8\].transaction_id: .*another"),
        (_only("GUESSED", "SPENDING"), "at least 1 of use PAYING.*; 0 are"),
        (_only("PAYING", "SPENDING"), "at least 3 of use GUESSED.*; 0 are"),
        (_only("PAYING", "GUESSED"), "at least 1 of use SPENDING.*; 0 are"),
        (lambda w: w["customers"][-1].update(balance_minor=99), "balance_minor of at least 100 for spender-40"),
        (lambda w: w.update(tokens=[]), "tokens: expected a list of at least one"),
    ],
)
def test_a_bad_world_is_told_where_it_is_bad(tmp_path: Path, change: Any, expected: str) -> None:
    path = a_world(tmp_path)
    world = json.loads(path.read_text())
    change(world)
    path.write_text(json.dumps(world))
    with pytest.raises(BadWorld, match=expected):
        read_world(path, KeyFiles(), "bank")


def test_a_world_that_is_nested_too_deeply_is_told(tmp_path: Path) -> None:
    path = tmp_path / "world.json"
    path.write_text("[" * 200_000)
    with pytest.raises(BadWorld, match="nested too deeply"):
        read_world(path, KeyFiles())


def test_the_files_of_a_world_are_never_open_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "chmod", lambda *_: None)
    paths = write_world(tmp_path / "new", default_world(b"1"))
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o600}


# -- the program -----------------------------------------------------------------------------------------


def conform(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_the_list_says_where_each_case_is_from() -> None:
    listed = conform("list", "bank", "5.5")
    assert listed.returncode == ExitCode.OK
    assert "bank.timer.idle  [5.5, 9, PG-TIM-3, waits 64 s]" in listed.stdout


def test_nobody_there_is_said_once(tmp_path: Path) -> None:
    path = a_world(tmp_path)
    done = conform("bank", "127.0.0.1:1", "--world", str(path))
    assert done.returncode == ExitCode.NO_CONNECTION
    assert done.stdout == ""
    assert "cannot connect to 127.0.0.1:1" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("bank", "127.0.0.1:1", "9.9"), "names no case of the bank; sections"),
        (("bank", "127.0.0.1:1", "--jobs", "0"), "expected a whole number from 1"),
        (("bank", "nowhere"), "is not host:port"),
        (("bank", "127.0.0.1:1", "--nonsense", "5.3"), "unrecognized arguments: --nonsense 5.3"),
        (("bank", "192.0.2.1:1"), "only loopback addresses such as 127.0.0.1 are allowed"),
        (("bank", "127.0.0.1:1", "--junit", ""), "argument --junit: expected the name of a file"),
        (("bank", "127.0.0.1:1", "--junit", "/nowhere/x.xml"), "could not write /nowhere/x.xml: no such file"),
        (("bank", "127.0.0.1:1", "--drain-command", ""), "argument --drain-command: it is empty"),
        (("bank", "127.0.0.1:1", "--drain-command", "kill 'x"), "--drain-command: it can't be split"),
        (("bank", "127.0.0.1:1", "--drain-command", "no-such-x"), "there is no program 'no-such-x'"),
        (("gateway", "127.0.0.1:1", "--restart-command", " "), "argument --restart-command: it is empty"),
        (("bank", "127.0.0.1:1", "--flood", "0"), "argument --flood: expected a whole number from 1"),
        (("bank", "127.0.0.1:1", "--flood=-5"), "argument --flood: expected a whole number from 1"),
    ],
)
def test_usage_is_told(tmp_path: Path, arguments: tuple[str, ...], expected: str) -> None:
    done = conform(*arguments, "--world", str(a_world(tmp_path)))
    assert done.returncode == ExitCode.USAGE
    assert expected in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("arguments", [("5.3", "5.1"), ("--no-slow", "5.3", "--patience", "9000", "5.1")])
def test_sections_may_stand_anywhere(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = conform("bank", "127.0.0.1:1", "--world", str(a_world(tmp_path)), *arguments)
    assert "cannot connect to 127.0.0.1:1" in done.stderr


def test_an_unknown_option_is_told_with_the_roles_own_usage() -> None:
    done = conform("bank", "127.0.0.1:1", "--world", "w", "--nonsense")
    assert done.stderr.startswith("usage: paygate-conform bank ")


def test_a_world_is_made_for_our_own_servers(tmp_path: Path) -> None:
    assert conform("world", str(tmp_path / "new")).returncode == ExitCode.OK
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert {"world.json", "NetbankingUsers.txt", "Merchant.txt", "PaymentTokensData.txt"} <= names
    again = conform("world", str(tmp_path / "new"))
    assert again.returncode == ExitCode.USAGE
    assert "already" in again.stderr
