"""`paygate-client`, killed at a named step of its life: `python dying_client.py STEP pay ...`."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from paygate.client.__main__ import main
from paygate.client.effects import Send
from paygate.client.pending import PendingStore
from paygate.client.session import Session
from paygate.client.states import State


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _before(owner: type, name: str, *, count: int = 1, is_meant: Callable[..., bool] = lambda *_: True) -> None:
    _wrap(owner, name, count, is_meant, dies_before=True)


def _after(owner: type, name: str, *, count: int = 1, is_meant: Callable[..., bool] = lambda *_: True) -> None:
    _wrap(owner, name, count, is_meant, dies_before=False)


def _wrap(owner: type, name: str, count: int, is_meant: Callable[..., bool], *, dies_before: bool) -> None:
    real = getattr(owner, name)
    left = [count]

    def call(*arguments: Any) -> Any:
        left[0] -= is_meant(*arguments)
        if dies_before and left[0] == 0:
            _die()
        result = real(*arguments)
        if left[0] == 0:
            _die()
        return result

    setattr(owner, name, call)


def _is_record(_path: Path, target: Path) -> bool:
    return target.parent.name == "payments"


def _is_credentials(session: Session, effect: Any) -> bool:
    is_it = isinstance(effect, Send) and session.core.state is State.SENT
    if is_it:
        session._perform_now(effect)  # type: ignore[attr-defined]
        session._loop.flush()
    return is_it


def _die_behind_the_credentials() -> None:
    Session._perform_now = Session._perform  # type: ignore[attr-defined]
    _before(Session, "_perform", is_meant=_is_credentials)


STEPS: Final[dict[str, Callable[[], None]]] = {
    "before-the-record": lambda: _before(PendingStore, "save"),
    "in-the-record": lambda: _before(Path, "rename", is_meant=_is_record),
    "before-the-credentials": lambda: _after(PendingStore, "save"),
    "behind-the-credentials": _die_behind_the_credentials,
    "before-the-outcome": lambda: _before(PendingStore, "save", count=2),
    "before-the-receipt-file": lambda: _before(PendingStore, "save_receipt"),
}

if __name__ == "__main__":
    STEPS[sys.argv.pop(1)]()
    sys.exit(main())
