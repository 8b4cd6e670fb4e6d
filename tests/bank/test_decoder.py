"""The decoder: as an object, as a child over real pipes, and as the bank's own keeper of children."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from bank_books import IDENTITY
from builders import BANK_ID, CHEAP_PASSWORD_KEY, NOW_MS, PASSWORD, USER_ID, build_terms, seal_foreign

from paygate.bank.decoder import Decoder, serve_frames
from paygate.bank.decoding import DecoderProcess, VerifierBatch, decoder_argv, make_verifiers
from paygate.bank.keys import load_key_list, load_pepper, make_keys, retire_key, rotate_keys
from paygate.cli import ExitCode, PaygateExit
from paygate.codec.buffer import FrameBuffer
from paygate.codec.codes import KemId, SealStatus
from paygate.codec.frame import encode_frame
from paygate.codec.jsonform import to_json
from paygate.codec.messages import Echo, MakeVerifier, Message, OpenedEnvelope, OpenEnvelope, Verifier
from paygate.codec.seal import password_key, seal_credentials, verifier_of
from paygate.codec.sealed import SuiteKey, Terms
from paygate.net.loop import Loop

WAIT_S = 20.0
PASSWORD_KEY = password_key(CHEAP_PASSWORD_KEY, BANK_ID, USER_ID, PASSWORD)
MAKE_VERIFIER = MakeVerifier(BANK_ID, CHEAP_PASSWORD_KEY, USER_ID, PASSWORD)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    directory = tmp_path / "bank"
    make_keys(directory, IDENTITY, NOW_MS)
    return directory


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


def run_until(loop: Loop, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        loop.flush()
        loop.run_once(20)


def suite_key(state: Path, kem_id: KemId) -> SuiteKey:
    return next(key for key in load_key_list(state).suite_keys if key.kem_id is kem_id)


def open_request(
    state: Path, kem_id: KemId = KemId.X25519, user_id: str = USER_ID, sealed_under: Terms | None = None
) -> OpenEnvelope:
    key, terms = suite_key(state, kem_id), build_terms()
    envelope = seal_credentials(key, sealed_under or terms, user_id, PASSWORD_KEY, bytes(16))
    return OpenEnvelope(key.key_id, terms, envelope)


def status_of(answer: Message) -> SealStatus:
    assert isinstance(answer, OpenedEnvelope)
    return answer.status


def frames_of(data: bytes) -> dict[int, Message]:
    buffer = FrameBuffer()
    buffer.receive_data(data)
    found = {}
    while (frame := buffer.next_frame()) is not None:
        found[frame.correlation_id] = frame.message()
    buffer.receive_eof()
    return found


# -- opening ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kem_id", KemId)
def test_an_envelope_gives_the_verifier_that_the_password_has(state: Path, kem_id: KemId) -> None:
    decoder = Decoder(state)
    opened = decoder.answer(open_request(state, kem_id))
    assert isinstance(opened, OpenedEnvelope)
    assert opened == OpenedEnvelope(SealStatus.DONE, USER_ID, verifier_of(load_pepper(state), PASSWORD_KEY))
    assert decoder.answer(MAKE_VERIFIER) == Verifier(opened.verifier)


def test_an_envelope_under_other_terms_does_not_open(state: Path) -> None:
    request = open_request(state, sealed_under=build_terms(amount_minor=1))
    assert Decoder(state).answer(request) == OpenedEnvelope(SealStatus.NOT_OPENED, "-", bytes(32))


def test_a_user_id_that_no_customer_can_have_does_not_open(state: Path) -> None:
    key, terms = suite_key(state, KemId.X25519), build_terms()
    request = OpenEnvelope(key.key_id, terms, seal_foreign(key, terms, b"a\nb"))
    assert status_of(Decoder(state).answer(request)) is SealStatus.NOT_OPENED


def test_garbage_does_not_open(state: Path) -> None:
    for size in (1, 31, 48, 304, 2_048):
        request = OpenEnvelope(suite_key(state, KemId.X25519).key_id, build_terms(), b"\xff" * size)
        assert status_of(Decoder(state).answer(request)) is SealStatus.NOT_OPENED


@pytest.mark.pg("PG-KEY-7")
def test_a_running_decoder_takes_rotation_over(state: Path) -> None:
    decoder = Decoder(state)
    old = open_request(state)
    rotate_keys(state, NOW_MS)
    decoder.reload_if_changed()
    new = open_request(state)
    assert new.key_id != old.key_id
    assert [status_of(decoder.answer(r)) for r in (old, new)] == [SealStatus.DONE, SealStatus.DONE]
    retire_key(state, old.key_id, NOW_MS)
    decoder.reload_if_changed()
    assert [status_of(decoder.answer(r)) for r in (old, new)] == [SealStatus.KEY_RETIRED, SealStatus.DONE]


# -- frames ----------------------------------------------------------------------------------------------


def test_all_that_is_there_is_answered_in_one_write(state: Path) -> None:
    request = open_request(state)
    stream = b"".join(encode_frame(request, n) for n in range(5))
    chunks = iter([stream[:100], stream[100:], b""])
    writes: list[bytes] = []
    serve_frames(Decoder(state), lambda: next(chunks), writes.append)
    assert len(writes) == 1
    assert list(frames_of(writes[0])) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("at", [1, 19, 20, 21, 400])
def test_frames_may_be_cut_anywhere(state: Path, at: int) -> None:
    stream = encode_frame(open_request(state), 1) + encode_frame(MAKE_VERIFIER, 2)
    chunks = iter([stream[:at], stream[at:], b""])
    writes: list[bytes] = []
    serve_frames(Decoder(state), lambda: next(chunks), writes.append)
    assert set(frames_of(b"".join(writes))) == {1, 2}


@pytest.mark.parametrize(
    "stream",
    [
        b"garbage that is no frame at all",
        encode_frame(MAKE_VERIFIER, 1)[:-1],
        encode_frame(MAKE_VERIFIER, 1)[:-1] + b"\0",
        encode_frame(Echo(bytes(8)), 1),
    ],
    ids=["garbage", "cut short", "bad checksum", "not for a decoder"],
)
def test_a_malformed_frame_ends_the_decoder(state: Path, stream: bytes) -> None:
    chunks = iter([stream, b""])
    with pytest.raises(PaygateExit):
        serve_frames(Decoder(state), lambda: next(chunks), lambda _: None)


# -- as a child ------------------------------------------------------------------------------------------


def run_decoder(state: Path, data: bytes, *options: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*decoder_argv(state), *options], input=data, capture_output=True, timeout=60, check=False)


def test_the_child_answers_glued_frames_and_ends_with_its_stdin(state: Path) -> None:
    request = open_request(state, KemId.MLKEM768_X25519)
    result = run_decoder(state, encode_frame(request, 7) + encode_frame(MAKE_VERIFIER, 8))
    answers = frames_of(result.stdout)
    assert (result.returncode, result.stderr) == (0, b"")
    assert isinstance(answers[7], OpenedEnvelope)
    assert answers[7].status is SealStatus.DONE
    assert answers[8] == Verifier(answers[7].verifier)


def test_garbage_ends_the_child_with_an_error_on_one_line(state: Path) -> None:
    result = run_decoder(state, b"x" * 100)
    assert result.returncode == ExitCode.INTERNAL
    assert result.stdout == b""
    assert result.stderr.startswith(b"paygate-decoder: malformed frame")
    assert result.stderr.count(b"\n") == 1


def test_loose_secrets_end_the_child_with_what_mends_it(state: Path) -> None:
    (state / "decoder" / "pepper.key").chmod(0o644)
    result = run_decoder(state, b"")
    assert result.returncode == ExitCode.BAD_STATE
    assert b"chmod 600" in result.stderr


def test_text_mode_opens_what_the_encoder_prints(state: Path) -> None:
    request = open_request(state)
    line = {"terms": to_json(request.terms), "key_id": request.key_id.hex(), "envelope": request.envelope.hex()}
    result = run_decoder(state, f"\n{json.dumps(line)}\n".encode(), "--text")
    assert result.returncode == 0, result.stderr
    verifier = verifier_of(load_pepper(state), PASSWORD_KEY).hex()
    assert json.loads(result.stdout) == {"status": "DONE", "user_id": USER_ID, "verifier": verifier}


@pytest.mark.parametrize(
    ("line", "told"),
    [(b"{not json}", b"line 1: expected one JSON object"), (b'{"envelope": "00"}', b"line 1: key_id: expected")],
)
def test_text_mode_names_what_is_wrong(state: Path, line: bytes, told: bytes) -> None:
    result = run_decoder(state, line, "--text")
    assert result.returncode == ExitCode.USAGE
    assert told in result.stderr


# -- the bank's side -------------------------------------------------------------------------------------


def test_verifiers_are_made_in_the_order_of_the_requests(state: Path) -> None:
    requests = [MakeVerifier(BANK_ID, CHEAP_PASSWORD_KEY, f"user-{n}", PASSWORD) for n in range(50)]
    expected = [
        verifier_of(load_pepper(state), password_key(CHEAP_PASSWORD_KEY, BANK_ID, f"user-{n}", PASSWORD))
        for n in range(50)
    ]
    assert make_verifiers(state, requests) == expected


def test_a_decoder_that_can_not_run_is_told_at_start(state: Path) -> None:
    (state / "decoder" / "pepper.key").unlink()
    with pytest.raises(PaygateExit, match="the decoder failed") as refused:
        make_verifiers(state, [])
    assert refused.value.code is ExitCode.BAD_STATE


def test_a_batch_that_is_not_answered_whole_gives_none(loop: Loop) -> None:
    results: list[list[bytes] | None] = []
    VerifierBatch(loop, [sys.executable, "-c", ""], [MAKE_VERIFIER], results.append)
    run_until(loop, lambda: bool(results))
    assert results == [None]


class Kept:
    """A DecoderProcess and what it said."""

    def __init__(self, loop: Loop, argv: Sequence[str]) -> None:
        self.answers: list[tuple[int, OpenedEnvelope | None]] = []
        self.log: list[str] = []
        self.process = DecoderProcess(
            loop, argv, on_answer=lambda tag, opened: self.answers.append((tag, opened)), log=self.log.append
        )


@pytest.fixture
def keep(loop: Loop) -> Iterator[Callable[[list[str]], Kept]]:
    kept: list[Kept] = []

    def keep(argv: Sequence[str]) -> Kept:
        kept.append(Kept(loop, argv))
        return kept[-1]

    yield keep
    for one in kept:
        one.process.close()
    run_until(loop, lambda: all(one.process.pid is None for one in kept))


Keep = Callable[[Sequence[str]], Kept]


def test_envelopes_are_opened_by_the_child(state: Path, loop: Loop, keep: Keep) -> None:
    kept = keep(decoder_argv(state))
    for tag in range(100):
        kept.process.open_envelope(tag, open_request(state))
    run_until(loop, lambda: len(kept.answers) == 100)
    assert {tag for tag, opened in kept.answers if opened and opened.status is SealStatus.DONE} == set(range(100))


def test_what_a_killed_decoder_owed_is_answered_by_the_next(state: Path, loop: Loop, keep: Keep) -> None:
    kept = keep(decoder_argv(state))
    kept.process.open_envelope(1, open_request(state))
    kept.process._kill()
    run_until(loop, lambda: bool(kept.answers))
    assert [(tag, opened.status if opened else None) for tag, opened in kept.answers] == [(1, SealStatus.DONE)]
    assert len(kept.log) == 1


def test_a_request_that_kills_two_decoders_is_given_up(state: Path, loop: Loop, keep: Keep) -> None:
    # It takes a byte and dies, as a decoder would that chokes on one envelope.
    kept = keep([sys.executable, "-c", "import os; os.read(0, 1)"])
    kept.process.open_envelope(1, open_request(state))
    run_until(loop, lambda: bool(kept.answers))
    assert kept.answers == [(1, None)]
    # Until the next start there is nobody to ask.
    kept.process.open_envelope(2, open_request(state))
    assert kept.answers == [(1, None), (2, None)]
    run_until(loop, lambda: kept.process.pid is not None)


def test_a_decoder_that_can_not_be_started_gives_none(state: Path, loop: Loop, keep: Keep) -> None:
    kept = keep(["/nonexistent/decoder"])
    kept.process.open_envelope(1, open_request(state))
    assert kept.answers == [(1, None)]
    assert "could not be started" in kept.log[0]


def test_a_decoder_that_talks_nonsense_is_replaced(state: Path, loop: Loop, keep: Keep) -> None:
    program = "import os, time; os.read(0, 1); os.write(1, b'x' * 100); time.sleep(60)"
    kept = keep([sys.executable, "-c", program])
    kept.process.open_envelope(1, open_request(state))
    run_until(loop, lambda: bool(kept.answers))
    assert kept.answers == [(1, None)]
    assert any("nonsense" in line for line in kept.log)
    kept.process._kill()


def test_a_decoder_that_hangs_is_replaced(state: Path, loop: Loop, keep: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paygate.bank.decoding.ANSWER_MS_MAX", 100)
    kept = keep([sys.executable, "-c", "import time; time.sleep(60)"])
    kept.process.open_envelope(1, open_request(state))
    run_until(loop, lambda: bool(kept.answers))
    assert kept.answers == [(1, None)]
    assert any("no answer" in line for line in kept.log)
    kept.process._kill()


def test_a_decoder_that_hangs_is_replaced_however_much_it_is_asked(
    state: Path, loop: Loop, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paygate.bank.decoding.ANSWER_MS_MAX", 100)
    kept = keep([sys.executable, "-c", "import time; time.sleep(60)"])
    request, tags = open_request(state), iter(range(1_000_000))

    def has_hung() -> bool:
        kept.process.open_envelope(next(tags), request)
        return any("no answer" in line for line in kept.log)

    run_until(loop, has_hung)
    assert next(tags) < 100  # Some ten, at 20 ms each; no question puts the end off.
    kept.process._kill()


def test_the_decoder_takes_no_module_from_the_directory_that_the_bank_was_started_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_keys(tmp_path / "bank", IDENTITY, NOW_MS)
    (tmp_path / "construct.py").write_text("raise SystemExit('a module of somebody else')")
    monkeypatch.chdir(tmp_path)
    assert make_verifiers(tmp_path / "bank", []) == []
