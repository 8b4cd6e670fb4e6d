"""Sessions: who ends whose."""

from itertools import count

from gateway.world import build_token

from paygate.gateway.sessions import SESSION_COUNT_PER_TOKEN_MAX, Sessions


def sessions() -> Sessions:
    numbers = count(1)
    return Sessions(lambda size: next(numbers).to_bytes(size), session_ms=30_000)


def test_a_session_lasts_as_long_as_it_says_and_no_longer() -> None:
    live = sessions()
    session_id = live.open(build_token(), now_ms=1_000)
    assert live.next_deadline_ms() == 31_000
    live.end_due(30_999)
    assert live.find(session_id) is not None
    live.end_due(31_000)
    assert live.find(session_id) is None
    assert live.next_deadline_ms() is None


def test_the_holder_of_one_token_ends_only_sessions_of_that_token() -> None:
    live = sessions()
    other = live.open(build_token(transaction_id="TX-OTHER"), now_ms=0)
    mine = [live.open(build_token(transaction_id="TX-MINE"), now_ms=n) for n in range(SESSION_COUNT_PER_TOKEN_MAX + 3)]
    assert live.find(other) is not None
    assert [live.find(s) is None for s in mine] == [True] * 3 + [False] * SESSION_COUNT_PER_TOKEN_MAX
    assert len(live) == SESSION_COUNT_PER_TOKEN_MAX + 1
    live.end_due(1_000_000)
    assert len(live) == 0
