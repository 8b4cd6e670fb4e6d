"""Sessions: who ends whose."""

import os
from itertools import count
from pathlib import Path
from random import Random

import pytest
from gateway.world import build_token

from paygate.codec.limits import SESSION_ID_SIZE, SESSION_MS
from paygate.gateway import server
from paygate.gateway.server import GatewayOptions
from paygate.gateway.sessions import RANDOM_SIZE, SESSION_COUNT_MAX, SESSION_COUNT_PER_TOKEN_MAX, Sessions

OPTIONS = GatewayOptions(Path(), "127.0.0.1", 0, ("127.0.0.1", 1))


def sessions() -> Sessions:
    numbers = count(1)

    def random_bytes(size: int) -> bytes:
        return b"".join(next(numbers).to_bytes(SESSION_ID_SIZE) for _ in range(size // SESSION_ID_SIZE))

    return Sessions(random_bytes, session_ms=30_000)


def test_a_session_lasts_as_long_as_it_says_and_no_longer() -> None:
    live = sessions()
    session_id = live.open(build_token(), now_ms=1_000)
    assert live.next_deadline_ms() == 31_000
    live.end_due(30_999)
    assert live.find(session_id) is not None
    live.end_due(31_000)
    assert live.find(session_id) is None
    assert live.next_deadline_ms() is None


@pytest.mark.pg("PG-TOK-3")
def test_a_session_id_is_16_random_bytes_and_nothing_else() -> None:
    given: list[bytes] = []

    def random_bytes(size: int) -> bytes:
        given.append(Random(len(given)).randbytes(size))
        return given[-1]

    live = Sessions(random_bytes, session_ms=30_000)
    count_at_once = RANDOM_SIZE // 16
    opened = [live.open(build_token(transaction_id=f"TX{n}"), now_ms=0) for n in range(count_at_once + 1)]
    # Bytes of the source as they were given, each in one ID only, and no more asked for than is needed.
    first, second = ([block[at : at + 16] for at in range(0, RANDOM_SIZE, 16)] for block in given)
    assert sorted(opened[:-1]) == sorted(first)
    assert opened[-1] in second
    assert len(set(opened)) == len(opened)


@pytest.mark.pg("PG-TOK-3")
def test_the_randomness_of_a_running_gateway_is_the_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []

    class Stop(Exception):
        pass

    def core(identity: object, random_bytes: object, *_: object, **__: object) -> None:
        given.append(random_bytes)
        raise Stop

    monkeypatch.setattr("paygate.gateway.server.Loop", lambda: None)
    monkeypatch.setattr("paygate.gateway.server.GatewayCore", core)
    with pytest.raises(Stop):
        server._run(OPTIONS, None, None, None, None)  # type: ignore[arg-type]  # it comes no further than the core
    assert given == [os.urandom]


def test_the_holder_of_one_token_ends_only_sessions_of_that_token() -> None:
    live = sessions()
    other = live.open(build_token(transaction_id="TX-OTHER"), now_ms=0)
    mine = [live.open(build_token(transaction_id="TX-MINE"), now_ms=n) for n in range(SESSION_COUNT_PER_TOKEN_MAX + 3)]
    assert live.find(other) is not None
    assert [live.find(s) is None for s in mine] == [True] * 3 + [False] * SESSION_COUNT_PER_TOKEN_MAX
    assert len(live) == SESSION_COUNT_PER_TOKEN_MAX + 1
    live.end_due(1_000_000)
    assert len(live) == 0


def test_sessions_that_end_each_other_leave_nothing_behind_an_older_one() -> None:
    live = sessions()
    other = live.open(build_token(transaction_id="TX-OTHER"), now_ms=0)
    for n in range(1_000):
        live.open(build_token(transaction_id="TX-MINE"), now_ms=n)
    assert live.find(other) is not None
    assert len(live._order) <= 4 * SESSION_COUNT_PER_TOKEN_MAX
    assert live.next_deadline_ms() == 30_000
    live.end_due(30_000)
    assert live.next_deadline_ms() == 30_000 + 1_000 - SESSION_COUNT_PER_TOKEN_MAX
    live.end_due(1_000_000)
    assert len(live) == len(live._order) == 0


def test_a_slow_shopper_keeps_his_session_beside_10_000_payments_a_second() -> None:
    assert SESSION_COUNT_MAX >= 10_000 * SESSION_MS // 1_000
