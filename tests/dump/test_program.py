"""The program as somebody types it: real processes, files and pipes."""

import fcntl
import gzip
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import IO, Any

import pytest

CAPTURE = Path(__file__).parents[2] / "data" / "payment.pcap"
PASSCODE = b"4711"
KINDS = [
    *("Hello", "HelloAck", "BankKeysQuery", "BankKeys"),
    *("Hello", "HelloAck", "BankKeysQuery", "TokenQuery", "BankKeys", "TokenAck"),
    *("EncryptedCredentials", "TransferRequest", "TransferResult", "PaymentAck"),
]


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-P", "-m", "paygate.dump", *map(str, arguments)]


def dump(*arguments: str | Path, stdin: bytes | None = None, code: int = 0) -> str:
    """What it prints; what it complains of, where it fails as expected."""
    done = subprocess.run(command(*arguments), input=stdin or b"", capture_output=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    assert b"Traceback" not in done.stderr
    if code == 0:
        assert done.stderr == b""
        return done.stdout.decode()
    return done.stderr.decode()


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def kinds(text: str) -> list[str]:
    return [o["kind"] for o in objects(text) if o["type"] == "frame"]


def test_a_capture_of_a_payment_is_one_line_a_frame() -> None:
    lines = dump(CAPTURE).splitlines()
    shown = [kind for line in lines for kind in re.findall(r"\b(" + "|".join(set(KINDS)) + r")\b +#", line)]
    assert shown == KINDS
    assert "UTR" in lines[-1] or "utr" in "".join(lines)


def test_every_output_holds_the_payment_and_no_passcode() -> None:
    for option in ([], ["-v"], ["--json"], ["--ladder"], ["--mermaid"], ["--svg"], ["--stats"], ["--stats", "--json"]):
        text = dump(*option, CAPTURE)
        assert "TransferResult" in text
        assert PASSCODE.decode() not in re.sub(r"[0-9a-f]{8,}", "", text)
        assert PASSCODE.hex(" ") not in text


def test_secrets_are_shown_when_asked_for() -> None:
    queries = [o for o in objects(dump("--json", "--show-secrets", CAPTURE)) if o.get("kind") == "TokenQuery"]
    assert [q["message"]["passcode"] for q in queries] == [PASSCODE.decode()]


def test_standard_input_compressed_or_not_gives_the_same() -> None:
    expected = dump(CAPTURE)
    data = CAPTURE.read_bytes()
    assert dump("-", stdin=data) == expected
    assert dump(stdin=gzip.compress(data)) == expected


def test_what_json_prints_becomes_the_frames_again() -> None:
    printed = dump("--json", "--show-secrets", CAPTURE)
    frames = bytes.fromhex(dump("encode", "--hex", stdin=printed.encode()).replace("\n", ""))
    assert kinds(dump("--json", "-", stdin=frames)) == KINDS


def test_filters_choose() -> None:
    assert kinds(dump("--json", "--kind", "tokenack", "--kind", "PaymentAck", CAPTURE)) == ["TokenAck", "PaymentAck"]
    assert kinds(dump("--json", "--outcome", "posted", CAPTURE)) == ["TransferResult"]
    assert set(kinds(dump("--json", "--transaction", "TX-1001", CAPTURE))) >= {"TokenQuery", "TransferRequest"}
    assert kinds(dump("--json", "--flow", "1", CAPTURE))[:4] == KINDS[:4]
    assert dump("--findings", CAPTURE) == ""


def test_follow_tells_one_payment_and_what_became_of_it() -> None:
    text = dump("--follow", "TX-1001", CAPTURE)
    assert "PaymentAck" in text
    assert "paid" in text.splitlines()[-1].lower() or "paid" in text.lower()
    assert "TX-1001" in dump("--follow", "TX-9999", CAPTURE, code=2)


class TestBadInput:
    """One line that says what, where and how to mend it."""

    def test_no_such_file(self, tmp_path: Path) -> None:
        assert "no-such-file" in dump(tmp_path / "no-such-file", code=2)

    def test_a_directory(self, tmp_path: Path) -> None:
        assert "directory" in dump(tmp_path, code=2).lower()

    @pytest.mark.parametrize("data", [b"", b"\x7fELF" + bytes(60), b"hello, world\n", bytes(range(256))])
    def test_no_capture(self, data: bytes) -> None:
        text = dump("-", stdin=data, code=2)
        assert text.startswith("paygate-dump: ")
        assert text.count("\n") == 1

    @pytest.mark.parametrize(
        "words",
        [
            ["--kind", "Nonsense"],
            ["--flow", "0"],
            ["--payment", "xyz"],
            ["--since", "noon"],
            ["--outcome", "HAPPY"],
            ["--width", "7"],
            ["--width", "80"],
            ["--port", "70000"],
            ["--port", "0"],
            ["--json", "--ladder"],
            ["--ladder", "--svg"],
            ["--no-such-option"],
        ],
    )
    def test_a_bad_option_names_itself(self, words: list[str]) -> None:
        text = dump(*words, CAPTURE, code=2)
        assert words[0].lstrip("-") in text

    def test_a_missing_key_file(self, tmp_path: Path) -> None:
        for option in ("--link-key", "--decode-key"):
            assert "no-key" in dump(option, tmp_path / "no-key", CAPTURE, code=22)

    def test_unknown_names_to_describe_and_broken_json_to_encode(self) -> None:
        assert "TokenQuery" in dump("describe", "TokenQuerry", code=2)
        assert "line 1" in dump("encode", "--hex", stdin=b"{nonsense\n", code=2)


@pytest.mark.parametrize("words", [[CAPTURE], ["--json", CAPTURE], ["describe", "all"], ["schema"]])
def test_a_full_disk_is_told_as_that(words: list[str | Path]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command(*words), stdout=full, stderr=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode == 70
    assert done.stderr == b"paygate-dump: the output could not be written: No space left on device\n"


@pytest.mark.parametrize(("redirection", "word"), [("<&-", "input"), (">&-", "output")])
def test_a_closed_descriptor_is_told_as_that(redirection: str, word: str) -> None:
    script = f'exec "$@" {redirection}'
    done = subprocess.run(["sh", "-c", script, "sh", *command(CAPTURE)], capture_output=True, timeout=60, check=False)
    assert done.returncode == 2
    assert f"standard {word} is closed" in done.stderr.decode()


@pytest.mark.parametrize(
    "words", [["--help"], ["encode", "--help"], ["--stats", CAPTURE], ["--follow", "TX-1001", CAPTURE]]
)
def test_an_output_that_knows_ascii_only_is_enough(words: list[str | Path]) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command(*words), capture_output=True, timeout=60, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.isascii()


def test_an_input_without_paygate_does_not_look_like_one_that_was_not_read() -> None:
    data = CAPTURE.read_bytes()
    unknown_link_type = data[:20] + (9).to_bytes(4, "little") + data[24:]
    done = subprocess.run(command("-"), input=data[:24], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr == b"paygate-dump: nothing of paygate in 0 packets\n"
    assert "UNKNOWN_LINK_TYPE" in dump("-", stdin=unknown_link_type)


def test_times_count_from_the_first_packet_whatever_is_shown() -> None:
    late = dump("--json", "--since", "+0.36", CAPTURE)
    assert kinds(late) == ["TransferResult", "PaymentAck"]
    assert kinds(dump("--json", "--follow", "TX-1001", "--since", "+0.36", CAPTURE)) == ["TransferResult", "PaymentAck"]


def test_a_live_capture_is_shown_packet_by_packet() -> None:
    """Not a byte is needed from behind a packet to show it."""
    expected = dump(CAPTURE)
    data = CAPTURE.read_bytes()
    with subprocess.Popen(command("-"), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as popen:
        assert popen.stdin is not None
        assert popen.stdout is not None
        at, shown = 24, b""
        popen.stdin.write(data[:at])
        while at < len(data):
            size = 16 + int.from_bytes(data[at + 8 : at + 12], "little")
            popen.stdin.write(data[at : at + size])
            popen.stdin.flush()
            at += size
            if b"PaymentAck" in expected.encode() and at == len(data):
                break
        shown = _read_until(popen.stdout, b"PaymentAck")
        assert b"PaymentAck" in shown  # while the pipe is still open
        popen.stdin.close()
        shown += popen.stdout.read()
        assert popen.wait(20) == 0
    assert shown.decode() == expected


def test_an_interrupt_ends_a_live_capture_with_what_was_seen() -> None:
    # Whoever runs the tests may ignore SIGINT, and their children then would.
    with subprocess.Popen(
        ["env", "--default-signal=INT", *command("--stats", "-")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as popen:
        assert popen.stdin is not None
        popen.stdin.write(CAPTURE.read_bytes())
        popen.stdin.flush()
        _wait_until_read(popen.stdin, popen.pid)
        popen.send_signal(signal.SIGINT)
        output, errors = popen.communicate(timeout=20)
    assert popen.returncode == 0
    assert b"TransferResult" in output
    assert errors == b""


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    with subprocess.Popen(command("-v", CAPTURE), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as popen:
        assert popen.stdout is not None
        assert popen.stderr is not None
        popen.stdout.close()
        assert popen.stderr.read() == b""
        assert popen.wait(20) in (0, -signal.SIGPIPE)


def test_colours_are_for_terminals_and_no_color_is_honoured() -> None:
    assert "\x1b[" not in dump(CAPTURE)
    assert "\x1b[" in dump("--color", "always", CAPTURE)
    assert "\x1b[" in _on_a_terminal({})
    assert "\x1b[" not in _on_a_terminal({"NO_COLOR": "1"})
    assert "\x1b[" not in _on_a_terminal({"TERM": "dumb"})


def _on_a_terminal(variables: dict[str, str]) -> str:
    leader, follower = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"TERM": "xterm"} | variables
    with subprocess.Popen(command(CAPTURE), stdout=follower, env=environment) as popen:
        os.close(follower)
        shown = b""
        try:
            while piece := os.read(leader, 65_536):
                shown += piece
        except OSError:  # the terminal's end, when its last writer is gone
            pass
        assert popen.wait(20) == 0
    os.close(leader)
    return shown.decode()


def _read_until(stream: IO[bytes], wanted: bytes) -> bytes:
    shown = b""
    while wanted not in shown:
        piece = os.read(stream.fileno(), 65_536)
        if not piece:
            break
        shown += piece
    # The line's end may come in a piece of its own.
    while not shown.endswith(b"\n"):
        shown += os.read(stream.fileno(), 65_536)
    return shown


def _wait_until_read(pipe: IO[bytes], pid: int) -> None:
    """Until the program has taken all that we wrote, and sleeps."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        unread_size = int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
        if unread_size == 0 and state == "S":
            return
        time.sleep(0.02)
    raise AssertionError("it never waited for more")
