"""What every answering end must do on its links, bank and gateway alike: how such an end is met, and its cases.

The cases themselves are in `answering_*_cases`; a role takes them into its catalogue with `declare_for`.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Concatenate, Final

from paygate.codec import limits
from paygate.codec.codes import Kind, Role, Route
from paygate.codec.errors import ErrorCode
from paygate.codec.frame import body_size_range
from paygate.codec.messages import MESSAGES, BankKeysQuery, Error, Hello, HelloAck, Message
from paygate.conform.cases import Catalogue
from paygate.conform.trial import Trial
from paygate.conform.wire import Wire
from paygate.conform.world import World


@dataclass(frozen=True)
class AnsweringEnd:
    """A role under test that others connect to, and how the kit does that."""

    catalogue: Catalogue
    role: Role
    caller_role: Role
    link_key: Callable[[World], bytes] | None
    """Of the MAC on its links, or None if they have none."""
    connect: Callable[[Trial, str], Awaitable[Wire]]
    """A connection with a name, on which nothing was said yet."""
    hello: Callable[..., Hello]
    """The caller's Hello, of a trial, with changes by keyword."""
    say_hello: Callable[[Trial, Wire, Hello], Awaitable[HelloAck]]
    """Opens the link, and checks what the end says of itself."""
    requests: Mapping[type[Message], Callable[[Trial], Message]]
    """A valid request of each kind that this role alone is asked, to be altered."""

    @property
    def name(self) -> str:
        """The role in words."""
        return self.role.name.lower()

    @property
    def caller(self) -> str:
        """The role of the end that connects, in words."""
        return self.caller_role.name.lower()

    @property
    def has_mac(self) -> bool:
        """Whether its links have MACs."""
        return self.link_key is not None

    @property
    def examples(self) -> dict[type[Message], Callable[[Trial], Message]]:
        """A valid message of each kind whose body it must check."""
        return {
            Hello: self.hello,
            BankKeysQuery: lambda t: BankKeysQuery(t.world.bank_id),
            Error: lambda _: Error(ErrorCode.SHUTTING_DOWN, closes=False, text="a test"),
            **self.requests,
        }

    @property
    def request_kinds(self) -> tuple[Kind, ...]:
        """What it may be asked on an open link."""
        return Kind.ECHO, Kind.BANK_KEYS_QUERY, *(cls.kind for cls in self.requests)

    @property
    def foreign_kinds(self) -> tuple[Kind, ...]:
        """Requests that travel on sockets, but not to it."""
        own = (*self.request_kinds, Kind.HELLO)
        requests = (k for k, cls in MESSAGES.items() if not k.is_reply and cls.route is not Route.PIPE)
        return tuple(kind for kind in requests if kind not in own and kind is not Kind.ERROR)

    @property
    def frame_size_needed(self) -> int:
        """The largest frame that it must take."""
        largest = max(body_size_range(kind)[1] for kind in self.request_kinds)
        return limits.HEADER_SIZE + largest + limits.MAC_SIZE * self.has_mac

    def key(self, t: Trial) -> bytes | None:
        """The key of the MACs on its links in this world."""
        return None if self.link_key is None else self.link_key(t.world)

    async def open_link(self, t: Trial, name: str = "") -> Wire:
        """A link after both ends have said hello."""
        wire = await self.connect(t, name)
        await self.say_hello(t, wire, self.hello(t))
        return wire


SharedBody = Callable[Concatenate[Trial, AnsweringEnd, ...], Any]


class SharedCases:
    """Cases of every answering end. Their texts say `{end}` and `{caller}` for the two roles."""

    def __init__(self) -> None:
        self._declared: list[Callable[[AnsweringEnd], None]] = []

    def case(
        self, name: str, expects: str, *where: str, waits_ms: int = 0, exclusive: bool = False
    ) -> Callable[[SharedBody], SharedBody]:
        """Declare a case as `Catalogue.case` does; its coroutine is given the end too."""

        def declare(body: SharedBody) -> SharedBody:
            def declare_for(end: AnsweringEnd) -> None:
                told = expects.format(end=end.name, caller=end.caller)
                decorate = end.catalogue.case(name, told, *where, waits_ms=waits_ms, exclusive=exclusive)
                decorate(partial(body, end=end))

            self._declared.append(declare_for)
            return body

        return declare

    def for_each(self, declare_for: Callable[[AnsweringEnd], None]) -> Callable[[AnsweringEnd], None]:
        """Declare cases that are made from what the end is, such as one for each kind of request."""
        self._declared.append(declare_for)
        return declare_for

    def declare_for(self, end: AnsweringEnd) -> None:
        """Take all cases into the end's catalogue."""
        for declare in self._declared:
            declare(end)


EVERY_END: Final = SharedCases()
