"""Asking on a terminal: a pseudo-terminal whose other end the test holds."""

import os
import pty
import select
import signal
import termios
from collections.abc import Iterator
from itertools import count

import pytest

from paygate.client.terminal import EndedBySignal, Terminal
from paygate.net.loop import Loop

WAIT_S = 20.0


class Screen:
    """The other end of the terminal: what the customer sees and types."""

    def __init__(self) -> None:
        self.leader, self.fd = pty.openpty()
        self.loop = Loop()
        self.terminal = Terminal(self.fd, self.loop)
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self.leader, text.encode())

    def run_once(self, timeout_ms: int) -> None:
        self.loop.run_once(timeout_ms)
        self.look()

    def look(self) -> str:
        while select.select([self.leader], [], [], 0)[0]:
            self.shown += os.read(self.leader, 4096).decode()
        return self.shown

    def sees(self, text: str) -> bool:
        """Whether it is shown; the kernel takes its time to carry what was written to the other end."""
        while text not in self.look():
            if not select.select([self.leader], [], [], WAIT_S)[0]:
                return False
        return True

    @property
    def mode(self) -> list[object]:
        return termios.tcgetattr(self.fd)

    @property
    def has_unread_input(self) -> bool:
        return self.has_input_within(0)

    def has_input_within(self, seconds: float) -> bool:
        return bool(select.select([self.fd], [], [], seconds)[0])

    def close(self) -> None:
        self.loop.close()
        os.close(self.leader)
        os.close(self.fd)


@pytest.fixture
def screen() -> Iterator[Screen]:
    screen = Screen()
    yield screen
    screen.close()


def test_a_line_is_echoed_and_a_hidden_one_is_not(screen: Screen) -> None:
    before = screen.mode
    with screen.terminal.quiet():
        screen.type("asha\nhunter2\n")
        user = screen.terminal.ask(lambda: "User ID: ", is_hidden=False, run_once=screen.run_once)
        password = screen.terminal.ask(lambda: "Password: ", is_hidden=True, run_once=screen.run_once)
    assert (user, password) == ("asha", "hunter2")
    assert screen.sees("User ID: asha")
    assert screen.sees("Password: ")
    assert "hunter2" not in screen.shown.split("Password: ")[1]
    assert screen.mode == before


def test_keys_are_not_echoed_while_nobody_asks(screen: Screen) -> None:
    with screen.terminal.quiet():
        screen.type("hunter2")
        screen.terminal.say("Paying ...")
        assert screen.sees("Paying ...")
        assert "hunter2" not in screen.shown


def test_the_prompt_counts_down_while_somebody_types(screen: Screen) -> None:
    seconds = count(30, -1)
    ticks = count()

    def run_once(timeout_ms: int) -> None:
        tick = next(ticks)
        if tick in (1, 2):
            screen.type("a")
        elif tick == 4:
            screen.type("\n")
        screen.run_once(10 if tick in (0, 3) else 1_000)

    with screen.terminal.quiet():
        typed = screen.terminal.ask(lambda: f"[{next(seconds)} s] User ID: ", is_hidden=False, run_once=run_once)
    assert typed == "aa"
    for shown in ("\r[30 s] User ID: \x1b[K", "\r[29 s] User ID: ", "\r[27 s] User ID: aa\x1b[K"):
        assert screen.sees(shown), screen.shown


def test_asking_ends_with_the_session_and_what_was_typed_too_late_is_thrown_away(screen: Screen) -> None:
    ends = iter([False, False, True, True, True])

    def run_once(_timeout_ms: int) -> None:
        screen.type("half a passw")
        screen.run_once(1_000)

    before = screen.mode
    with screen.terminal.quiet():
        answer = screen.terminal.ask(
            lambda: "Password: ", is_hidden=True, run_once=run_once, is_over=lambda: next(ends)
        )
        screen.type("ord\n")
        assert screen.has_input_within(WAIT_S)
    assert answer is None
    assert not screen.has_unread_input
    assert screen.mode == before


def test_an_end_of_input_gives_up(screen: Screen) -> None:
    with screen.terminal.quiet():
        screen.type("\x04")
        assert screen.terminal.ask(lambda: "User ID: ", is_hidden=False, run_once=screen.run_once) is None


def test_a_long_line_shows_its_end(screen: Screen) -> None:
    termios.tcsetwinsize(screen.fd, (24, 20))
    with screen.terminal.quiet():
        screen.type("0123456789abcdefghij\n")
        typed = screen.terminal.ask(lambda: "User ID: ", is_hidden=False, run_once=screen.run_once)
    assert typed == "0123456789abcdefghij"
    assert screen.sees("\rUser ID: bcdefghij\x1b[K")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_the_terminal_is_put_back_after_an_error(screen: Screen, error: type[BaseException]) -> None:
    before = screen.mode

    def run_once(_timeout_ms: int) -> None:
        raise error

    with pytest.raises(error), screen.terminal.quiet():
        screen.terminal.ask(lambda: "Password: ", is_hidden=True, run_once=run_once)
    assert screen.mode == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_the_terminal_is_put_back_when_a_signal_ends_us(screen: Screen, number: signal.Signals) -> None:
    before, handler = screen.mode, signal.getsignal(number)

    def run_once(_timeout_ms: int) -> None:
        os.kill(os.getpid(), number)

    with pytest.raises(EndedBySignal) as ended, screen.terminal.quiet():
        screen.terminal.ask(lambda: "Password: ", is_hidden=True, run_once=run_once)
    assert ended.value.number == number
    assert screen.mode == before
    assert signal.getsignal(number) == handler


def test_a_terminal_that_the_shell_had_meanwhile_is_made_quiet_again(screen: Screen) -> None:
    before = screen.mode
    with screen.terminal.quiet():
        quiet = screen.mode
        termios.tcsetattr(screen.fd, termios.TCSANOW, before)  # type: ignore[arg-type]  # what tcgetattr gave
        os.kill(os.getpid(), signal.SIGCONT)
        assert screen.mode == quiet
    assert screen.mode == before
