"""A seeded sample of the campaign of cut and altered bytes, and proof that it can fail; all of it: `make faults`."""

import subprocess
import sys
from random import Random

from faults.link_cases import HOWS, drawn, parse_link_case
from faults.relay import FIN, RST, TO_CALLER, TO_SERVER, Harm, altered, frames_of
from faults.shim import SOURCE
from link_ends import TOKEN_QUERY

from paygate.codec.buffer import FrameBuffer
from paygate.codec.errors import RemoteProtocolError
from paygate.codec.frame import encode_frame

CASE_COUNT = 24
SECONDS_MAX = 8


def run_campaign(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "faults", "links", *arguments]
    return subprocess.run(command, cwd=SOURCE.parents[1], capture_output=True, text=True, timeout=300, check=False)


def test_a_sample_of_cut_and_altered_bytes_loses_nothing() -> None:
    ran = run_campaign("--seed", "1", "--count", str(CASE_COUNT), "--seconds", str(SECONDS_MAX))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert " 0 failed" in ran.stdout, ran.stdout


def test_a_bank_that_takes_any_mac_is_found() -> None:
    case = "gateway-bank/pay/BANK_KEYS_QUERY/to server/91/forge/4"
    ran = run_campaign("--case", case, "--bug", "any MAC will do")
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "did not end their link" in ran.stdout, ran.stdout


def test_the_name_of_a_case_replays_it() -> None:
    for how in HOWS:
        case = parse_link_case(f"client-gateway/ask/STATUS_ACK/to caller/17/{how}/5")
        assert case.harm == Harm(TO_CALLER, 17, how, 5)
        assert parse_link_case(case.text) == case


def test_a_sample_has_every_frame_in_every_way_before_any_twice() -> None:
    cases = [
        parse_link_case(f"client-gateway/pay/{frame}/{TO_SERVER}/{offset}/{how}/0")
        for frame, size in (("HELLO", 3), ("ENCRYPTED_CREDENTIALS", 200))
        for offset in range(size)
        for how in (FIN, RST)
    ]
    sample = drawn(cases, 4, Random(1))
    assert len({(case.frame, case.harm.how) for case in sample}) == 4
    assert len(drawn(cases, None, Random(1))) == len(cases)


def test_a_forged_frame_has_a_checksum_that_fits_and_a_flipped_one_has_not() -> None:
    frame = encode_frame(TOKEN_QUERY, 1)
    (framed,) = frames_of(frame + frame[:-1])
    assert (framed.start, framed.end, framed.kind) == (0, len(frame), TOKEN_QUERY.kind)
    place = len(frame) - 1
    assert _is_taken(altered(frame, place, 0, is_forged=True))
    assert not _is_taken(altered(frame, place, 0, is_forged=False))


def _is_taken(data: bytes) -> bool:
    buffer = FrameBuffer()
    buffer.receive_data(data)
    try:
        frame = buffer.next_frame()
        assert frame is not None
        frame.message()
    except RemoteProtocolError:
        return False
    return True
