"""The encoder child over real pipes, and its text mode (R4, R23)."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from builders import (
    BANK_ID,
    CHEAP_PASSWORD_KEY,
    PASSWORD,
    USER_ID,
    build_key_list,
    build_signed_key_list,
    build_terms,
    sealing_key,
)

from paygate.cli import ExitCode
from paygate.codec.buffer import FrameBuffer
from paygate.codec.codes import KemId
from paygate.codec.frame import encode_frame
from paygate.codec.jsonform import from_json, to_json
from paygate.codec.messages import Echo, OpenEnvelope, SealCredentials, SealedCredentials
from paygate.codec.seal import open_envelope, password_key

WAIT_S = 60
ARGV = [sys.executable, "-P", "-m", "paygate.client.encoder"]
EXPECTED_KEY = password_key(CHEAP_PASSWORD_KEY, BANK_ID, USER_ID, PASSWORD)


def run(data: bytes, *options: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run([*ARGV, *options], input=data, capture_output=True, timeout=WAIT_S, check=False)


def test_it_starts_without_the_client_whose_package_it_is_of() -> None:
    # It is started for every payment, while a customer waits.
    code = "import paygate.client.encoder, sys; print(*(n for n in sys.modules if n.startswith('paygate.client.')))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, timeout=WAIT_S, check=True)
    assert done.stdout.split() == [b"paygate.client.encoder"]


def request(kem_id: KemId, **terms: object) -> SealCredentials:
    suite_key = sealing_key(kem_id).public_suite_key()
    return SealCredentials(suite_key, CHEAP_PASSWORD_KEY, build_terms(**terms), USER_ID, PASSWORD)


def test_it_answers_each_request_and_ends_with_its_input() -> None:
    requests = [request(KemId.X25519), request(KemId.MLKEM768_X25519, amount_minor=7), request(KemId.X25519)]
    done = run(b"".join(encode_frame(r, 40 + i) for i, r in enumerate(requests)))
    assert done.returncode == 0, done.stderr
    buffer = FrameBuffer()
    buffer.receive_data(done.stdout)
    envelopes = []
    for index, sealed in enumerate(requests):
        frame = buffer.next_frame()
        assert frame is not None
        assert frame.correlation_id == 40 + index
        message = frame.message()
        assert isinstance(message, SealedCredentials)
        key = sealing_key(sealed.suite_key.kem_id)
        opened = open_envelope(key, sealed.suite_key.key_id, sealed.terms, message.envelope)
        assert (opened.user_id, opened.password_key) == (USER_ID, EXPECTED_KEY)
        envelopes.append(message.envelope)
    assert not buffer.is_mid_frame
    assert len(set(envelopes)) == 3
    assert done.stderr == b""


@pytest.mark.parametrize("data", [b"garbage, twenty bytes long", encode_frame(Echo(bytes(8)), 1)])
def test_anything_else_ends_it_with_one_line(data: bytes) -> None:
    done = run(data)
    assert done.returncode == ExitCode.INTERNAL
    assert done.stdout == b""
    assert len(done.stderr.splitlines()) == 1


def test_a_key_that_is_none_ends_it_without_showing_a_secret() -> None:
    bad = request(KemId.X25519)
    suite_key = from_json(type(bad.suite_key), {**to_json(bad.suite_key), "public_key": "00" * 33})
    done = run(encode_frame(SealCredentials(suite_key, CHEAP_PASSWORD_KEY, bad.terms, USER_ID, PASSWORD), 1))
    assert done.returncode == ExitCode.INTERNAL
    assert b"not a public key of that suite" in done.stderr
    assert PASSWORD.encode() not in done.stderr


def test_no_core_file_can_show_what_it_holds() -> None:
    with subprocess.Popen(ARGV, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(encode_frame(request(KemId.X25519), 1))
        process.stdin.flush()
        process.stdout.read(1)  # by now it has begun to serve
        limits = Path(f"/proc/{process.pid}/limits").read_text(encoding="ascii")
        process.stdin.close()
        process.stdout.read()
        assert process.wait(WAIT_S) == 0
    assert re.search(r"Max core file size +0 +0 ", limits)


# -- text mode


def opens(line: bytes) -> OpenEnvelope:
    """What the bank's decoder reads of a line of output, once it was seen to open."""
    sealed = from_json(OpenEnvelope, json.loads(line))
    kem_id = next(k for k in KemId if sealing_key(k).public_suite_key().key_id == sealed.key_id)
    opened = open_envelope(sealing_key(kem_id), sealed.key_id, sealed.terms, sealed.envelope)
    assert (opened.user_id, opened.password_key) == (USER_ID, EXPECTED_KEY)
    return sealed


def test_text_lines_come_out_as_the_decoder_reads_them() -> None:
    by_key = to_json(request(KemId.X25519))
    by_list = {
        "signed_key_list": build_signed_key_list().hex(),
        "terms": to_json(build_terms(amount_minor=7)),
        "user_id": USER_ID,
        "password": PASSWORD,
    }
    lines = [by_key, by_list, {**by_list, "kem": "X25519"}]
    done = run(b"\n".join(json.dumps(line).encode() for line in lines), "--text")
    assert done.returncode == 0, done.stderr
    first, best, forced = (opens(line) for line in done.stdout.splitlines())
    assert first.terms == build_terms()
    assert best.terms == build_terms(amount_minor=7)
    assert best.key_id == sealing_key(KemId.MLKEM768_X25519).public_suite_key().key_id
    assert forced.key_id == sealing_key(KemId.X25519).public_suite_key().key_id


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("not json", "not JSON"),
        ("[]", "an object"),
        ("{}", "suite_key"),
        (json.dumps({**to_json(request(KemId.X25519)), "password": ""}), "password: expected"),
        (json.dumps({"signed_key_list": "00"}), "signed_key_list"),
        (json.dumps({"signed_key_list": "00", "kem": "RSA"}), "kem: expected one of X25519"),
    ],
)
def test_a_line_that_is_wrong_is_named_by_its_field(line: str, word: str) -> None:
    done = run(line.encode(), "--text")
    assert done.returncode == ExitCode.USAGE
    assert word in done.stderr.decode()
    assert PASSWORD.encode() not in done.stderr


def test_by_hand_everything_but_the_user_has_a_default(tmp_path: Path) -> None:
    path = tmp_path / "keys.hex"
    path.write_text(build_signed_key_list().hex(), encoding="ascii")
    script = Path(__file__).parents[2] / "scripts" / "encode"
    options = ["--key-list", str(path), "--user", USER_ID, "--amount-minor", "250", "--kem", "X25519"]
    done = subprocess.run(
        [script, *options], input=f"{PASSWORD}\n".encode(), capture_output=True, timeout=WAIT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    sealed = opens(done.stdout)
    assert sealed.terms.amount_minor == 250
    assert sealed.terms.bank_id == build_key_list().bank_id
    assert any(sealed.terms.payment_id)


@pytest.mark.parametrize(
    ("name", "word"), [("directory", "Is a directory"), ("binary", "hexadecimal"), ("none", "No such file")]
)
def test_a_key_list_that_can_not_be_read_says_why(tmp_path: Path, name: str, word: str) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "binary").write_bytes(b"\xff\x00")
    path = tmp_path / name
    done = run(b"secret\n", "--text", "--user", USER_ID, "--key-list", str(path))
    assert done.returncode == ExitCode.USAGE
    (line,) = done.stderr.decode().splitlines()
    assert f"--key-list {path}: " in line
    assert word in line


def test_by_hand_a_user_needs_a_key_list() -> None:
    done = run(b"", "--text", "--user", USER_ID)
    assert done.returncode == ExitCode.USAGE
    assert b"--key-list" in done.stderr
