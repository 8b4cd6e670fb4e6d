"""The bank's side of its decoder children (R23): one that stays, and one for each batch of new passwords.

The one that stays opens envelopes. If it dies it is started again at once and what it still owed is asked again,
once; if the new one dies before it has answered anything, whoever waits hears that it can't be done now, and further
starts wait longer each time. Passwords of new accounts cost an Argon2id each, so they go to a child of their own, and
no payment waits behind them.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from paygate.children import child_argv, child_env
from paygate.cli import ExitCode, PaygateExit
from paygate.codec.buffer import FrameBuffer, take_messages
from paygate.codec.codes import Kind
from paygate.codec.errors import RemoteProtocolError
from paygate.codec.frame import encode_frame
from paygate.codec.messages import MakeVerifier, OpenedEnvelope, OpenEnvelope, Verifier
from paygate.net.child import Child
from paygate.net.loop import Loop, Timer

RESTART_MS_MIN: Final = 100
RESTART_MS_MAX: Final = 10_000
"""A decoder that dies at each start is tried again this often: seldom enough to cost nothing."""
ANSWER_MS_MAX: Final = 5_000
"""How often is looked whether a decoder that owes answers gave any since; if not, it hangs and is replaced. It needs
100 us for one."""
TERMINATE_GRACE_MS: Final = 500
_ANSWERS: Final = frozenset({Kind.OPENED_ENVELOPE})


def decoder_argv(directory: Path) -> tuple[str, ...]:
    """How to start a decoder for this state directory."""
    return child_argv("paygate.bank.decoder", "--state", str(directory))


class DecoderProcess:
    """The decoder that opens envelopes.

    `on_answer(tag, opened)` is called once for each `open_envelope`, with None if it can't be opened now.
    """

    def __init__(
        self,
        loop: Loop,
        argv: Sequence[str],
        *,
        on_answer: Callable[[int, OpenedEnvelope | None], None],
        log: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._argv = argv
        self._on_answer = on_answer
        self._log = log
        self._owed: dict[int, bytes] = {}  # by tag: the frame that asks
        self._repeated: set[int] = set()  # what an earlier decoder owed too
        self._failure_count = 0  # deaths since the last answer
        self._child: Child | None = None
        self._timer: Timer | None = None
        self._is_heard = False  # whether it answered, or owed nothing, since the last look
        self._is_closed = False
        self._start()

    def open_envelope(self, tag: int, request: OpenEnvelope) -> None:
        """Ask for an envelope to be opened. Sent at the loop's flush."""
        if self._child is None:
            self._on_answer(tag, None)
            return
        frame = encode_frame(request, tag)
        if not self._owed:
            self._is_heard = True
        self._owed[tag] = frame
        self._child.send(frame)
        if self._timer is None:
            self._watch()

    def close(self) -> None:
        """Let the decoder end; what it owes is forgotten."""
        self._is_closed = True
        self._owed.clear()
        if self._child is not None:
            self._child.close_stdin()

    @property
    def pid(self) -> int | None:
        """The decoder's process ID, or None while there is none."""
        return self._child.pid if self._child else None

    def _start(self) -> None:
        self._buffer = FrameBuffer()
        try:
            self._child = Child(
                self._loop, self._argv, on_data=self._data_received, on_exit=self._exited, env=child_env()
            )
        except OSError as error:
            self._log(f"the decoder could not be started: {error.strerror}")
            self._failed()
            return
        self._repeated = set(self._owed)
        for frame in self._owed.values():
            self._child.send(frame)
        self._watch()

    def _data_received(self, data: bytes) -> None:
        try:
            for _, tag, message in take_messages(self._buffer, data, _ANSWERS):
                # What was owed by an earlier decoder and given up is not owed by this one.
                if self._owed.pop(tag, None) is not None and isinstance(message, OpenedEnvelope):
                    self._failure_count = 0
                    self._on_answer(tag, message)
        except RemoteProtocolError as error:
            self._log(f"the decoder sent nonsense ({error.text}); it is replaced")
            self._kill()
        self._is_heard = True

    def _watch(self) -> None:
        # One timer for all that is owed, since a timer for each payment would cost more than the look.
        if self._owed and self._timer is None:
            self._is_heard = False
            self._timer = self._loop.call_later(ANSWER_MS_MAX, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._owed and not self._is_heard:
            self._log(f"the decoder gave no answer for {ANSWER_MS_MAX} ms; it is replaced")
            self._kill()
        self._watch()

    def _kill(self) -> None:
        if self._child is not None:
            self._child.terminate(TERMINATE_GRACE_MS)

    def _exited(self, returncode: int) -> None:
        self._child = None
        if not self._is_closed:
            self._log(f"the decoder ended with {returncode}")
            self._failed()

    def _failed(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._failure_count += 1
        given_up = [tag for tag in self._owed if tag in self._repeated or self._failure_count > 1]
        for tag in given_up:
            del self._owed[tag]
            self._on_answer(tag, None)
        if self._failure_count == 1:
            self._start()
            return
        delay_ms = min(RESTART_MS_MIN << min(self._failure_count - 2, 16), RESTART_MS_MAX)
        self._timer = self._loop.call_later(delay_ms, self._restart)

    def _restart(self) -> None:
        self._timer = None
        if not self._is_closed:
            self._start()


class VerifierBatch:
    """A decoder that makes the verifiers of some passwords and ends.

    `on_done(verifiers)` is called once, in the order of the requests, or with None if the decoder failed.
    """

    def __init__(
        self,
        loop: Loop,
        argv: Sequence[str],
        requests: Sequence[MakeVerifier],
        on_done: Callable[[list[bytes] | None], None],
    ) -> None:
        """Start it. Raises OSError."""
        self._count = len(requests)
        self._on_done = on_done
        self._buffer = FrameBuffer()
        self._verifiers: dict[int, bytes] = {}
        child = Child(loop, argv, on_data=self._buffer.receive_data, on_exit=self._exited, env=child_env())
        for number, request in enumerate(requests):
            child.send(encode_frame(request, number))
        child.close_stdin()

    def _exited(self, returncode: int) -> None:
        try:
            while (frame := self._buffer.next_frame()) is not None:
                message = frame.message()
                if isinstance(message, Verifier):
                    self._verifiers[frame.correlation_id] = message.verifier
        except RemoteProtocolError:
            returncode = returncode or 1
        is_whole = self._verifiers.keys() == set(range(self._count))
        self._on_done([self._verifiers[n] for n in range(self._count)] if is_whole and returncode == 0 else None)


def make_verifiers(directory: Path, requests: Sequence[MakeVerifier]) -> list[bytes]:
    """The verifiers of some passwords, waiting for them; with no requests, a check that a decoder can run.

    For commands and for a server's start. Raises PaygateExit.
    """
    results: list[list[bytes] | None] = []
    loop = Loop()
    try:
        VerifierBatch(loop, decoder_argv(directory), requests, results.append)
        while not results:
            loop.flush()
            loop.run_once()
    except OSError as error:
        raise PaygateExit(f"the decoder could not be started: {error.strerror}", ExitCode.BAD_STATE) from None
    finally:
        loop.close()
    if results[0] is None:
        raise PaygateExit("the decoder failed; its own message says why", ExitCode.BAD_STATE)
    return results[0]
