"""The other side of a client: the gateway that the kit plays, and the bank whose receipts it passes on.

A case meets the client at a `Desk`: a door of the case's own and a state directory. Each run of the client is a
`Visit`, in which everything is answered as planned (`Visit.on`), so a case says only what is special in it. A visit
holds whatever comes against the spec: the token query, one payment and no other, no secret in any byte.
"""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, Final

from paygate.codec import limits
from paygate.codec.codes import Role
from paygate.codec.errors import ErrorCode
from paygate.codec.messages import (
    EncryptedCredentials,
    Error,
    Hello,
    HelloAck,
    Message,
    StatusQuery,
    TokenQuery,
)
from paygate.conform.cases import Failed, Skipped, require
from paygate.conform.client_end import how_it_ended, judge, words_of
from paygate.conform.client_options import ENVIRONMENT_PREFIX, PERSON_MS, ExitCodes, Said
from paygate.conform.client_plan import Plan
from paygate.conform.client_shared import CLIENT, ClientShared, tell_person, write_private
from paygate.conform.programs import Program, fill_in
from paygate.conform.trial import Door, Trial
from paygate.conform.wire import Reply, Wire
from paygate.net.addresses import format_host_port

START_MS: Final = 20_000
"""How long a program may take to start and connect, on a machine that is busy with others."""
END_MS: Final = 15_000
"""How long a program may go on after all that it waits for by its nature is over."""
POLL_MS: Final = 10
"""How often a story looks when it waits for several things: a program's end, a connection, a failure."""
CLOCK_SKEW_MS_MAX: Final = 60_000
"""The client runs by this machine's clock, or by one near it."""
SHORT_SESSION_MS: Final = 7_000
"""A session for cases that wait for its end: a busy machine must have sealed and sent by then."""
OPEN_SESSION_MS: Final = 8_000
"""A session for cases that a client may wait out, and need not."""
QUIET_MS: Final = 5_000
"""A client that nobody started for us has ended when it has had no link for so long."""

UNSENT: Final = (Said.NO_CONNECTION, Said.UNTRUSTED, Said.REFUSED, Said.TIMED_OUT)
"""What a client may say that stopped before it sent anything, for want of a gateway or bank that it can trust."""
DOUBT: Final = (Said.UNKNOWN, Said.UNTRUSTED)
"""What a client may say that has sent, and was given no proof."""


def case(
    name: str, expects: str, *where: str, waits_ms: int = 0
) -> Callable[[Callable[["Desk"], Coroutine[Any, Any, None]]], None]:
    """Declare a case of a client; its story is given a desk, and passes by returning."""

    def declare(story: Callable[[Desk], Coroutine[Any, Any, None]]) -> None:
        async def body(t: Trial) -> None:
            desk = Desk(t)
            try:
                await story(desk)
            except Failed as error:
                told = desk.told()
                await desk.close()
                raise Failed(error.expected, error.got if told in error.got else f"{error.got}; {told}") from None
            except Exception:
                await desk.close()
                raise
            await desk.close()  # a program that still runs is not left to the next case

        CLIENT.case(name, expects, *where, waits_ms=waits_ms)(body)

    return declare


class Desk:
    """Where a case meets the client: a door, and a state directory that all its runs share."""

    def __init__(self, t: Trial) -> None:
        self.t = t
        self.shared: ClientShared = t.shared
        self.bank = self.shared.bank
        self.door: Door = t.listen(t.settings.address)
        self.directory = self.shared.directory / str(next(self.shared.numbers))
        self.state_dir = self.directory / "state"
        self.state_dir.mkdir(parents=True, mode=0o700)
        self._visits: list[Visit] = []

    def visit(self, **token: Any) -> "Visit":
        """The next run of the client, for a token of its own; `token` changes its TokenAck."""
        if not self.has_program:
            token.pop("session_left_ms", None)  # people type, and so need all of the 30 s
        visit = Visit(self, **token)
        self._visits.append(visit)
        return visit

    @property
    def has_program(self) -> bool:
        """Whether we start the client ourselves, and so see its exit code."""
        return self.t.settings.options["run"] is not None

    def told(self) -> str:
        """What became of the last run so far, and its last words; nothing without a program."""
        programs = [visit for visit in self._visits if visit.program is not None]
        return programs[-1].told if programs else ""

    async def close(self) -> None:
        """End all programs."""
        for visit in self._visits:
            if visit.program is not None:
                await visit.kill()


class Visit(Plan):
    """One run of the client."""

    def __init__(self, desk: Desk, **token: Any) -> None:
        super().__init__(desk.t, desk.bank, next(desk.shared.utrs), **token)
        self.desk = desk
        self.may_pay = True
        """Whether EncryptedCredentials may come."""
        self.links: list[Wire] = []
        self.program: Program | None = None
        self.question_count = 0
        """StatusQueries that have come."""
        self._served_count = 0
        self._began_ms = self._linked_ms = desk.t.now_ms

    # -- the run ---------------------------------------------------------------------------------------

    async def run(self, *wanted: Said) -> None:
        """A whole run in which all is answered as planned; it must end in one of these ways."""
        self.begin()
        await self.end(*wanted)

    def begin(self) -> None:
        """Start the client, or tell a person to."""
        if self.desk.has_program:
            self._start("run", {})
            return
        values = self._placeholders()
        lines = [
            f"Pay token {self.transaction_id} with passcode {self.passcode} at {values['address']},",
            f"  as user {self.user_id} with password {self.password} "
            f"(also in {values['password_file']}), state in {values['state_dir']}",
        ]
        self._began_ms = self.t.now_ms
        tell_person(lines)

    async def run_status(self, *wanted: Said, must_ask: bool = True) -> None:
        """The client asks later what became of the payment: a run of its own, in which nothing may be paid.

        A client that finds the key list spoilt need not ask.
        """
        self.require_status_run()
        self.may_pay = False
        self.links.clear()
        self._start("status_run", {"payment_id": self.payment.payment_id.hex()})
        self.question_count = 0
        await self.end(*wanted)
        require(self.question_count > 0 or not must_ask, "a StatusQuery", "none")

    async def kill(self) -> None:
        """Let the client die at once."""
        if self.program is None:
            raise Skipped("only a program that we started can be killed: give --run")
        self.program.kill()
        await self.program.ended(END_MS)

    def require_status_run(self) -> None:
        """Skip the case where the client can't be asked later."""
        if self.t.settings.options["status_run"] is None:
            raise Skipped("it needs a command that asks for a payment's status later: give --status-run")

    async def next_connection(self) -> Wire:
        """The next connection of the client, on which nothing was said yet."""
        door, t = self.desk.door, self.t
        deadline_ms = t.now_ms + (START_MS if self.program else PERSON_MS)
        while not door.has_come:
            if self.program is not None and self.program.exit_code is not None:
                raise Failed("a connection", self.told)
            if t.now_ms >= deadline_ms:
                raise Failed("a connection", "nobody")
            await t.sleep(POLL_MS)
        wire = await door.accept()
        wire.answers_echo = False  # before hello is over, an Echo is a fault
        self.links.append(wire)
        return wire

    async def link(self) -> Wire:
        """The next connection, after both ends have said hello."""
        wire = await self.next_connection()
        self.open(wire, await self.hello(wire))
        return wire

    async def hello(self, wire: Wire) -> Reply:
        """The client's Hello, which must be its first frame, and right."""
        reply = await wire.receive(self.patience_ms)
        message = reply.message
        require(isinstance(message, Hello), "a Hello first", reply)
        assert isinstance(message, Hello)
        require(message.role is Role.CLIENT, "a Hello of role CLIENT", reply)
        require(limits.PROTOCOL_VERSION in message.versions, "a Hello that offers version 1", reply)
        return reply

    def open(self, wire: Wire, hello: Reply, **changes: Any) -> None:
        """Answer its Hello, with changes."""
        ack = HelloAck(Role.GATEWAY, self.token.gateway_id, limits.PROTOCOL_VERSION, limits.FRAME_SIZE_MAX)
        wire.send(replace(ack, **changes), hello.correlation_id)
        wire.is_open = wire.answers_echo = True

    async def until(self, wire: Wire, cls: type[Message]) -> Reply:
        """Answer all that comes on an open link until a request of this kind, which is left to the case."""
        while True:
            asked = await wire.receive(self.patience_ms)
            self.check(asked)
            if isinstance(asked.message, cls):
                return asked
            wire.send_bytes(self.answer_to(asked))

    async def expect_refused(self, wire: Wire, *codes: ErrorCode) -> None:
        """The client closes an open link, saying why with one of these codes, if at all.

        What it asks meanwhile is answered: it may have been on its way.
        """
        while await _speaks_or_closes(wire, self.patience_ms, codes):
            reply = await wire.receive()
            if isinstance(reply.message, Error):
                require_refusal(reply, codes)
                await wire.expect_closed()
                return
            self.check(reply)
            wire.send_bytes(self.answer_to(reply))

    async def end(self, *wanted: Said) -> None:
        """Serve whatever comes until the client has ended: in one of these ways, its secrets kept."""
        t = self.t
        for wire in self.links:
            if wire.is_open:
                self._serve(wire)
        deadline_ms = self._began_ms + START_MS + END_MS + self._waits_ms + t.settings.allowance_ms
        if not self.links:
            self._serve(await self.next_connection())
        # Its last frames may come after its end is seen.
        while not self.has_ended() or self._served_count or self.desk.door.has_come:
            if t.background_failure is not None:
                raise t.background_failure
            if t.now_ms >= deadline_ms:
                raise Failed(f"the client to end by now, saying {words_of(wanted, self._codes)}", self.told)
            if self.desk.door.has_come:
                self._serve(await self.next_connection())
            await t.sleep(POLL_MS)
        if t.background_failure is not None:
            raise t.background_failure
        if self.may_pay and Said.NO_CONNECTION not in wanted:
            require(self.sent is not None, "EncryptedCredentials", f"none, and {self.told}")
        self.require_secrecy()
        judge(self.program, wanted, self._codes)

    @property
    def patience_ms(self) -> int:
        """How long the client may take to say what is due."""
        return self.t.settings.patience_ms if self.program is not None else PERSON_MS

    # -- what came -------------------------------------------------------------------------------------

    def check(self, asked: Reply) -> None:
        """Hold a request against what this run may ask."""
        message = asked.message
        if isinstance(message, TokenQuery):
            is_right = (message.transaction_id, message.passcode) == (self.transaction_id, self.passcode)
            require(is_right, f"a TokenQuery of {self.transaction_id} with its passcode, as they were given", asked)
        elif isinstance(message, StatusQuery):
            require(self.sent is not None, "no StatusQuery before a payment", asked)
            expected = StatusQuery(self.payment.payment_id, self.transaction_id, self.passcode)
            self.question_count += 1
            require(message == expected, f"a StatusQuery of payment {expected.payment_id.hex()} of this token", asked)
        elif isinstance(message, EncryptedCredentials):
            require(self.may_pay, "no EncryptedCredentials: nothing may be paid here", asked)
            if self.sent is not None:
                require(message == self.sent, f"no payment but the first one, byte for byte: {self.sent}", asked)
            self.sent = message
        elif isinstance(message, Error):
            raise Failed("no Error: nothing was wrong", asked)

    def received(self) -> bytes:
        """All that the client has sent in this case, on any link."""
        entries = (entry for wire in self.t.wires for entry in wire.entries)
        return b"".join(entry.data for entry in entries if entry.what == "received")

    @property
    def told(self) -> str:
        """How the client ended, and its last words."""
        return how_it_ended(self.program, self._codes)

    def require_secrecy(self) -> None:
        """R4: neither password nor user ID is in any byte that was sent (PG-PWD-2)."""
        received = self.received()
        for name, secret in (("password", self.password), ("user ID", self.user_id)):
            for form in (secret.encode(), secret.encode().hex().encode()):
                require(form not in received, f"the {name} in no byte that is sent", f"it is in {received.hex()}")

    # -- inside ----------------------------------------------------------------------------------------

    @property
    def _codes(self) -> ExitCodes:
        codes: ExitCodes = self.t.settings.options["exit_codes"]
        return codes

    @property
    def _waits_ms(self) -> int:
        return self.token.session_left_ms

    def _start(self, option: str, more: dict[str, str]) -> None:
        values = self._placeholders() | more
        environment = {f"{ENVIRONMENT_PREFIX}{name.upper()}": value for name, value in values.items()}
        t = self.t
        words: Sequence[str] = t.settings.options[option]
        self._began_ms = t.now_ms
        self.program = t.start(fill_in(words, values), environment)

    def _placeholders(self) -> dict[str, str]:
        directory = self.desk.directory
        files = {"passcode_file": directory / "passcode.txt", "password_file": directory / "password.txt"}
        for name, secret in (("passcode_file", self.passcode), ("password_file", self.password)):
            write_private(files[name], f"{secret}\n")
        host, port = self.desk.door.address
        return {
            "host": host,
            "port": str(port),
            "address": format_host_port(host, port),
            "transaction": self.transaction_id,
            "passcode": self.passcode,
            "user": self.user_id,
            "password": self.password,
            "bank_id": self.t.world.bank_id,
            "bank_root": self.bank.root_public_key.hex(),
            "bank_root_file": str(self.desk.shared.directory / "bank-root.txt"),
            "state_dir": str(self.desk.state_dir),
            **{name: str(path) for name, path in files.items()},
        }

    def _serve(self, wire: Wire) -> None:
        """Answer all that comes on a connection, beside the case."""
        self._served_count += 1
        self.t.spawn(self._served(wire))

    async def _served(self, wire: Wire) -> None:
        if not wire.is_open and await wire.next_or_closed(self.patience_ms):
            self.open(wire, await self.hello(wire))
        while await wire.next_or_closed(self._serve_ms):
            asked = await wire.receive()
            self.check(asked)
            wire.send_bytes(self.answer_to(asked))
        self._served_count -= 1

    @property
    def _serve_ms(self) -> int:
        return START_MS + END_MS + self._waits_ms + self.t.settings.allowance_ms

    def has_ended(self) -> bool:
        """Whether the client has ended, as far as can be seen."""
        if self.program is not None:
            return self.program.exit_code is not None
        if not self.links or self.desk.door.has_come or any(wire.closed is None for wire in self.links):
            self._linked_ms = self.t.now_ms
        return self.t.now_ms - self._linked_ms > QUIET_MS


# -- refusals --------------------------------------------------------------------------------------------


async def expect_refused(wire: Wire, *codes: ErrorCode) -> None:
    """The client closes the link at once, saying why with one of these codes, if at all."""
    if await _speaks_or_closes(wire, None, codes):
        require_refusal(await wire.receive(), codes)
    await wire.expect_closed()


async def _speaks_or_closes(wire: Wire, within_ms: int | None, codes: Sequence[ErrorCode]) -> bool:
    try:
        return await wire.next_or_closed(within_ms)
    except Failed as error:
        raise Failed(_refusal(codes), error.got) from None


def _refusal(codes: Sequence[ErrorCode]) -> str:
    return f"an Error {' or '.join(code.name for code in codes)}, or at least the end of the connection"


def require_refusal(reply: Reply, codes: Sequence[ErrorCode]) -> None:
    """Fail the case unless it is an Error of one of these codes, which all close."""
    error = reply.message
    if not isinstance(error, Error) or error.code not in codes:
        raise Failed(_refusal(codes), reply)
    require(error.closes, f"closes=1 with {error.code.name} (PG-ERR-6)", reply)
    require(reply.correlation_id == 0, "correlation 0 in an Error that closes (PG-ERR-4)", reply)
