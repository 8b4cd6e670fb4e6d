"""Programs under test that the kit starts itself: their command lines, what they say, how they end (R23).

A command line is split into words as a shell would, then `{placeholders}` in each word are filled in, so no value needs
quoting. No shell runs; who wants one writes `sh -c '...'`.
"""

import os
import re
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from paygate.conform.cases import Failed
from paygate.conform.tasks import Signal
from paygate.net.child import Child
from paygate.net.loop import Loop

OUTPUT_SIZE_MAX: Final = 65_536
"""Bytes of a program's output that are kept: the first ones, since a program that says more says it again and again."""
_PLACEHOLDER: Final = re.compile(r"\{([a-z_]*)\}")


class BadCommand(ValueError):
    """A command line that can't be run; the text says why."""


def command_words(text: str, placeholders: Sequence[str] | None) -> tuple[str, ...]:
    """The words of a command line, placeholders in them still; with None there are none. Raises BadCommand."""
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise BadCommand(f"it can't be split into words: {error}") from None
    if not words:
        raise BadCommand("it is empty")
    for name in _PLACEHOLDER.findall(text):
        if placeholders is not None and name not in placeholders:
            known = ", ".join(f"{{{known}}}" for known in placeholders)
            raise BadCommand(f"{{{name}}} is no placeholder; there are {known}")
    return words


def startable_words(text: str, placeholders: Sequence[str] | None) -> tuple[str, ...]:
    """As `command_words`, of a program that is there. Raises BadCommand."""
    words = command_words(text, placeholders)
    if not _PLACEHOLDER.search(words[0]) and shutil.which(words[0]) is None:
        raise BadCommand(f"there is no program {words[0]!r} that can be started")
    return words


def fill_in(words: Sequence[str], values: Mapping[str, str]) -> tuple[str, ...]:
    """The words with their placeholders filled in."""
    return tuple(_PLACEHOLDER.sub(lambda match: values[match[1]], word) for word in words)


class Program:
    """A running program. Its stdin is empty; stdout and stderr are kept together.

    Raises OSError when it can't be started.
    """

    def __init__(self, loop: Loop, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        self.exit_code: int | None = None
        """Once it has ended; minus the number of the signal that ended it."""
        self.output = bytearray()
        self.on_end: Callable[[], None] = lambda: None
        """Called at its end."""
        self._loop = loop
        self._name = argv[0]
        self._changed = Signal(loop)
        env = {**os.environ, **environment}
        self._child = Child(loop, argv, on_data=self._said, on_exit=self._exited, env=env, takes_stderr=True)
        self._child.close_stdin()

    async def ended(self, within_ms: int) -> int:
        """Its exit code. Fails the case if it does not end in time."""
        deadline_ms = self._loop.now_ms() + within_ms
        while self.exit_code is None:
            if not await self._changed.wait_until(deadline_ms) and self.exit_code is None:
                raise Failed(f"{self._name} to end within {within_ms} ms", f"it runs on{self.told}")
        return self.exit_code

    def kill(self) -> None:
        """End it; harmless when it has ended."""
        self._child.terminate(grace_ms=0)

    @property
    def told(self) -> str:
        """`, having said '...'` with the end of its output, or nothing."""
        text = self.output.decode("utf-8", "backslashreplace").strip()
        return f", having said {text[-300:]!r}" if text else ""

    def _said(self, data: bytes) -> None:
        self.output += data[: OUTPUT_SIZE_MAX - len(self.output)]

    def _exited(self, returncode: int) -> None:
        self.exit_code = returncode
        self.on_end()
        self._changed.notify()
