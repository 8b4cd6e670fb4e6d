"""Work that many ask for is done once, and in time."""

import pytest

from paygate.net.later import Later
from paygate.net.loop import Loop


def test_what_is_asked_for_often_is_done_once_and_again_when_asked_again() -> None:
    now_ms = 1_000
    loop = Loop(lambda: now_ms)
    done_ms: list[int] = []
    later = Later(loop, 50, lambda: done_ms.append(now_ms))
    later.ask()
    assert done_ms == []
    now_ms = 1_030
    later.ask()
    loop.run_once(0)
    assert done_ms == []
    now_ms = 1_050  # after the first asking, whoever asked meanwhile
    loop.run_once(0)
    assert done_ms == [1_050]
    now_ms = 2_000
    loop.run_once(0)
    assert done_ms == [1_050]
    later.ask()
    now_ms = 2_050
    loop.run_once(0)
    assert done_ms == [1_050, 2_050]
    loop.close()


def test_work_that_fails_can_be_asked_for_again() -> None:
    now_ms = 1_000
    loop = Loop(lambda: now_ms)
    work = iter([OSError("no room"), None])

    def do() -> None:
        if error := next(work):
            raise error

    later = Later(loop, 1, do)
    later.ask()
    now_ms = 1_001
    with pytest.raises(OSError, match="no room"):
        loop.run_once(0)
    later.ask()
    now_ms = 1_002
    loop.run_once(0)
    assert next(work, "done") == "done"
    loop.close()
