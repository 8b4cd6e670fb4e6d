"""Asking on the customer's terminal while the session's time runs down (R3, R10).

The prompt line shows the seconds left and is drawn again when they change. A password isn't echoed, and keys that
were typed too late are thrown away at the end, so that none of them reaches the shell. The terminal is put back
however we leave: an answer, an error, a signal, Ctrl-Z.
"""

import contextlib
import os
import signal
import termios
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

from paygate.client.line_editor import LineEditor
from paygate.files.durable import write_all
from paygate.net.loop import EVENT_READ, Loop

READ_SIZE: Final = 1_024
TICK_MS: Final = 200
"""How often the seconds left are looked at."""
COLUMN_COUNT_DEFAULT: Final = 80
_ERASE_TO_END: Final = "\x1b[K"
_ENDING: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_LFLAG: Final = 3  # index into what tcgetattr gives


class EndedBySignal(BaseException):
    """A signal came that ends programs. The terminal is back; `die` does what the signal asked for.

    No Exception, as KeyboardInterrupt is none: nobody on the way shall take it for a failure of their own.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def die(self) -> None:
        """End this process by the same signal, so that whoever started it sees why."""
        signal.signal(self.number, signal.SIG_DFL)
        os.kill(os.getpid(), self.number)


class Terminal:
    """The terminal on descriptor `fd`, which the caller owns. Use it inside `quiet()`."""

    def __init__(self, fd: int, loop: Loop) -> None:
        self._fd = fd
        self._loop = loop
        self._typed = b""  # read already, and behind the line that was asked for
        self._drawn = ""  # what stands on the cursor's line
        self._cooked: list[Any] = []

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """No echo, every key at once; Ctrl-C and Ctrl-Z stay signals. Put back at the end, whatever happens.

        Raises EndedBySignal for SIGTERM, SIGHUP and SIGQUIT, inside the block.
        """
        self._cooked = termios.tcgetattr(self._fd)
        before = {number: signal.getsignal(number) for number in (*_ENDING, signal.SIGTSTP, signal.SIGCONT)}
        try:
            for number in _ENDING:
                signal.signal(number, _end)
            signal.signal(signal.SIGTSTP, self._stopped)
            signal.signal(signal.SIGCONT, self._continued)
            self._make_quiet()
            yield
        finally:
            with contextlib.suppress(OSError, termios.error):  # a terminal that hung up needs nothing put back
                self.end_line()
                # What was typed and not asked for may be half a password: it must not reach the shell.
                termios.tcsetattr(self._fd, termios.TCSAFLUSH, self._cooked)
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def say(self, text: str) -> None:
        """Show whole lines; the caller has escaped what a peer said."""
        self.end_line()
        write_all(self._fd, f"{text}\n".encode())

    def draw(self, text: str) -> None:
        """Show a text on the cursor's line, in place of what stands there."""
        if text != self._drawn:
            self._drawn = text
            write_all(self._fd, f"\r{text[: self._column_count() - 1]}{_ERASE_TO_END}".encode())

    def end_line(self) -> None:
        """Go to a new line, if the cursor's line holds something."""
        if self._drawn:
            self._drawn = ""
            write_all(self._fd, b"\n")

    def ask(
        self,
        prompt: Callable[[], str],
        *,
        is_hidden: bool,
        run_once: Callable[[int], None],
        is_over: Callable[[], bool] = lambda: False,
    ) -> str | None:
        """A line that the customer types; None if they gave up, or if `is_over` came true before.

        `prompt` is asked again and again, so it may count down. `run_once(timeout_ms)` lets the session live.
        """
        editor = LineEditor()
        self._typed = editor.receive(self._typed)
        self._loop.watch(self._fd, EVENT_READ, lambda _events: self._read(editor))
        try:
            while not editor.is_done and not is_over():
                self._draw_prompt(prompt(), "" if is_hidden else editor.text)
                run_once(TICK_MS)
        finally:
            self._loop.unwatch(self._fd)
        self._draw_prompt(prompt(), "" if is_hidden else editor.text)
        self.end_line()
        return editor.text if editor.is_done and not editor.is_cancelled and not is_over() else None

    def _read(self, editor: LineEditor) -> None:
        try:
            data = os.read(self._fd, READ_SIZE)
        except OSError:
            data = b""
        if not data:
            editor.receive_eof()
        elif editor.is_done:
            self._typed += data
        else:
            self._typed = editor.receive(data)

    def _draw_prompt(self, prompt: str, text: str) -> None:
        # The end of a long text is what its writer looks at.
        room = max(1, self._column_count() - len(prompt) - 2)
        self.draw(f"{prompt}{text[-room:]}")

    def _column_count(self) -> int:
        try:
            return os.get_terminal_size(self._fd).columns or COLUMN_COUNT_DEFAULT
        except OSError:
            return COLUMN_COUNT_DEFAULT

    def _make_quiet(self) -> None:
        mode = termios.tcgetattr(self._fd)
        mode[_LFLAG] &= ~(termios.ICANON | termios.ECHO | termios.IEXTEN)
        termios.tcsetattr(self._fd, termios.TCSADRAIN, mode)

    def _stopped(self, _number: int, _frame: FrameType | None) -> None:
        self.end_line()
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._cooked)
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        # Here again after SIGCONT, or at once where nobody could continue us and so nobody stops us.
        signal.signal(signal.SIGTSTP, self._stopped)
        self._make_quiet()

    def _continued(self, _number: int, _frame: FrameType | None) -> None:
        # The shell had the terminal meanwhile, and may have left it in any mode.
        self._make_quiet()
        self._drawn = ""


def _end(number: int, _frame: FrameType | None) -> None:
    raise EndedBySignal(number)
