"""What every test of the network layer needs: a loop, and waiting for something to happen, with a bound."""

import time
from collections.abc import Callable, Iterator

import pytest

from paygate.net.loop import Loop

WAIT_S = 20.0


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def tick_until() -> Callable[[Loop, Callable[[], bool]], None]:
    """Run ticks until the condition holds; fail after a bounded time."""

    def tick_until(loop: Loop, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < deadline, "nothing happened in time"
            loop.run_once(20)
            loop.flush()

    return tick_until
