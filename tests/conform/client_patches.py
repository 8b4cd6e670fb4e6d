"""Bugs of a client: patches of the real one in a process of its own, so whatever is not the bug is real."""

import contextlib
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from paygate import link as link_module
from paygate.client import core as core_module
from paygate.client import order as order_module
from paygate.client.core import Core
from paygate.client.effects import Effect, Seal, Send, StartSession
from paygate.client.session import Session
from paygate.client.states import State
from paygate.codec import seal as seal_module
from paygate.codec.codes import Kind, TokenStatus
from paygate.codec.errors import ErrorCode, RemoteProtocolError
from paygate.codec.frame import decode_head, encode_frame
from paygate.codec.messages import (
    BankKeysQuery,
    Echo,
    Error,
    HelloAck,
    Message,
    TokenAck,
    TokenQuery,
)
from paygate.codec.record_codec import decode_record
from paygate.codec.sealed import KeyList, SignedKeyList
from paygate.link import Link

Patch = Callable[[], None]


def put_in(owner: Any, name: str, value: Any) -> None:
    """Put something else in the place of a module's or a class's name."""
    assert hasattr(owner, name), name
    setattr(owner, name, value)


def wrap(owner: Any, name: str, make: Callable[..., Any]) -> None:
    """Replace a function by one that is given the function as its first argument."""
    put_in(owner, name, partial(make, getattr(owner, name)))


def wrap_method(owner: Any, name: str, make: Callable[..., Any]) -> None:
    """The same for a method: `make(method, self, ...)`."""
    method = getattr(owner, name)
    put_in(owner, name, lambda self, *args, **kwargs: make(method, self, *args, **kwargs))


# -- links -----------------------------------------------------------------------------------------------


def talks_before_hello_ack() -> None:
    """The first request does not wait for HelloAck."""

    def connected(method: Any, self: Core, now: Any) -> list[Effect]:
        return [*method(self, now), Send(encode_frame(TokenQuery("TX-EARLY", "early"), 77))]

    wrap_method(Core, "connected", connected)


def takes_any(**changes: Any) -> Patch:
    """HelloAck may say what it likes in these fields."""

    def receive_reply(method: Any, self: Link, kind: Kind, correlation_id: int, message: Message) -> Any:
        message = replace(message, **changes) if isinstance(message, HelloAck) else message
        return method(self, kind, correlation_id, message)

    return lambda: wrap_method(Link, "_receive_reply", receive_reply)


def tolerates(code: ErrorCode) -> Patch:
    """What should be refused with this code is passed over, and the link stays open."""

    def fail(method: Any, self: Link, error: RemoteProtocolError) -> Any:
        return None if error.code is code else method(self, error)

    return lambda: wrap_method(Link, "_fail", fail)


def refuses_with_internal() -> None:
    """Every refusal says INTERNAL, whatever was wrong."""

    def fail(method: Any, self: Link, error: RemoteProtocolError) -> Any:
        return method(self, RemoteProtocolError(ErrorCode.INTERNAL))

    wrap_method(Link, "_fail", fail)


def closes_silently() -> None:
    """A refusal closes the link without an Error."""

    def fail(method: Any, self: Link, error: RemoteProtocolError) -> Any:
        before = list(self._output)
        event = method(self, error)
        self._output[:] = before
        return event

    wrap_method(Link, "_fail", fail)


def answers_errors() -> None:
    """An Error is answered with an Error."""

    def receive_error(method: Any, self: Link, correlation_id: int, error: Error) -> Any:
        events = method(self, correlation_id, error)
        self._put(Error(ErrorCode.INTERNAL, closes=True, text=""), 0)
        return events

    wrap_method(Link, "_receive_error", receive_error)


def needs_whole_headers() -> None:
    """A read that ends within a header is taken for a broken stream."""

    def receive_data(method: Any, self: Link, data: bytes, now_ms: int) -> Any:
        if len(data) < 20:
            return [self._fail(RemoteProtocolError(ErrorCode.BAD_MAGIC))]
        return method(self, data, now_ms)

    wrap_method(Link, "receive_data", receive_data)


def takes_one_frame_a_read() -> None:
    """What comes behind the first frame of a read is lost."""

    def receive_data(method: Any, self: Link, data: bytes, now_ms: int) -> Any:
        return method(self, data[: decode_head(data[:20]).frame_size], now_ms)

    wrap_method(Link, "receive_data", receive_data)


def matches_replies_by_order() -> None:
    """A reply is taken for that of the oldest request."""

    def receive_reply(method: Any, self: Link, kind: Kind, _correlation_id: int, message: Message) -> Any:
        return method(self, kind, min(self._asked, default=0), message)

    wrap_method(Link, "_receive_reply", receive_reply)


def numbers_all_requests_alike() -> None:
    """Every request has correlation ID 1."""

    def put_request(method: Any, self: Link, message: Message) -> Any:
        self._next_correlation_id = 1
        return method(self, message)

    wrap_method(Link, "_put_request", put_request)


def answers_no_echo() -> None:
    """Echo is passed over."""

    def receive_request(method: Any, self: Link, kind: Kind, correlation_id: int, message: Message) -> Any:
        return [] if isinstance(message, Echo) else method(self, kind, correlation_id, message)

    wrap_method(Link, "_receive_request", receive_request)


def echoes_zeros() -> None:
    """EchoReply has other data."""

    def receive_request(method: Any, self: Link, kind: Kind, correlation_id: int, message: Message) -> Any:
        return method(self, kind, correlation_id, Echo(bytes(8)) if isinstance(message, Echo) else message)

    wrap_method(Link, "_receive_request", receive_request)


def waits(name: str, ms: int | tuple[int, ...], module: Any = link_module) -> Patch:
    """A timer has another length."""
    return lambda: put_in(module, name, ms)


# -- token and keys --------------------------------------------------------------------------------------


def strips_passcodes() -> None:
    """The passcode is sent without its punctuation at both ends."""

    def token_query(transaction_id: str, passcode: str) -> TokenQuery:
        return TokenQuery(transaction_id, passcode.strip("!~"))

    put_in(core_module, "TokenQuery", token_query)


def pays_whatever_the_status() -> None:
    """Every TokenAck is taken for a valid one."""

    def token_told(method: Any, self: Core, token: TokenAck, now: Any) -> Any:
        fill: dict[str, Any] = {
            "session_id": b"made up session.",
            "session_left_ms": 30_000,
            "merchant_id": token.merchant_id or "M-1",
            "amount_minor": token.amount_minor or 1,
            "currency": token.currency or "INR",
        }
        is_valid = token.status is TokenStatus.VALID
        return method(self, token if is_valid else replace(token, status=TokenStatus.VALID, **fill), now)

    wrap_method(Core, "_token_told", token_told)


def rings_early() -> None:
    """The alarm rings after a tenth of the session."""

    def perform(method: Any, self: Session, effect: Effect) -> Any:
        if isinstance(effect, StartSession):
            effect = StartSession(effect.left_ms // 10)
        return method(self, effect)

    wrap_method(Session, "_perform", perform)


class _Blind:
    """An Ed25519 public key that finds every signature under some label right, and perhaps some others."""

    def __init__(self, label: bytes, real: Any) -> None:
        self._label, self._real = label, real

    def from_public_bytes(self, data: bytes) -> Any:
        key = self._real.from_public_bytes(data)

        def verify(signature: bytes, signed: bytes) -> None:
            if not signed.startswith(self._label):
                key.verify(signature, signed)

        return SimpleNamespace(verify=verify)


def checks_no_signature(label: bytes) -> Patch:
    """Signatures under this label are not verified."""
    return lambda: put_in(seal_module, "Ed25519PublicKey", _Blind(label, Ed25519PublicKey))


def verifies_key_lists(**arguments: Callable[[KeyList, Any], Any]) -> Patch:
    """Arguments of the check are taken from the list itself: so these of its checks can't fail."""
    names = ("root_public_key", "bank_id", "now_wall_ms", "serial_min")

    def verify(real: Any, signed: bytes, *given: Any) -> KeyList:
        values = dict(zip(names, given, strict=True))
        with contextlib.suppress(RemoteProtocolError):
            key_list = decode_record(KeyList, decode_record(SignedKeyList, signed).key_list)
            values |= {name: make(key_list, values[name]) for name, make in arguments.items()}
        found: KeyList = real(signed, *values.values())
        return found

    return lambda: wrap(core_module, "verify_key_list", verify)


def decodes_laxly(real: Any, cls: Any, data: bytes) -> Any:
    """Trailing bytes are dropped."""
    try:
        return real(cls, data)
    except RemoteProtocolError as error:
        if error.code is not ErrorCode.TRAILING_BYTES:
            raise
        return decodes_laxly(real, cls, data[:-1])


def takes_unknown_suites_for_known(real: Any, cls: Any, data: bytes) -> Any:
    """An unknown KEM in a key list is taken for the hybrid one."""
    if cls is KeyList:
        data = data.replace(b"\x00\x21\x00\x01\x00\x02", b"\x64\x7a\x00\x01\x00\x02")
    return real(cls, data)


def takes_any_bank_in_tokens() -> None:
    """The bank that TokenAck names is not looked at."""

    def acknowledge(method: Any, self: Core, now: Any) -> Any:
        if self.token is not None:
            self.token = replace(self.token, bank_id=self._order.root.bank_id)
        return method(self, now)

    wrap_method(Core, "_maybe_acknowledge", acknowledge)


def chooses(pick: Callable[[list[Any]], Any]) -> Patch:
    """Another of the listed keys is taken."""

    def choose(real: Any, key_list: KeyList) -> Any:
        return pick(list(key_list.suite_keys)) or real(replace(key_list, suite_keys=()))

    return lambda: wrap(order_module, "choose_suite_key", choose)


# -- credentials -----------------------------------------------------------------------------------------


def authorises(**changes: Callable[[Any], Any]) -> Patch:
    """What `authorise` is given is changed first."""
    names = ("user_id", "password", "payment_id", "now")

    def authorise(method: Any, self: Core, *given: Any) -> Any:
        values = dict(zip(names, given, strict=True))
        values |= {name: change(values[name]) for name, change in changes.items()}
        return method(self, *values.values())

    return lambda: wrap_method(Core, "authorise", authorise)


def seals(**changes: Callable[[Any], Any]) -> Patch:
    """The encoder is asked for something else."""

    def authorise(method: Any, self: Core, *given: Any) -> list[Effect]:
        (effect,) = method(self, *given)
        request = effect.request
        changed = {name: change(getattr(request, name)) for name, change in changes.items()}
        return [Seal(replace(request, **changed))]

    return lambda: wrap_method(Core, "authorise", authorise)


def normalises_nothing() -> None:
    """What was typed is used as it was typed."""
    put_in(order_module, "unicodedata", SimpleNamespace(normalize=lambda _form, text: text))


def refuses_nameless_merchants() -> None:
    """A merchant without a name is turned down."""

    def token_told(method: Any, self: Core, token: TokenAck, now: Any) -> Any:
        return method(self, token, now) if token.merchant_name else self._lost("a nameless merchant", now)

    wrap_method(Core, "_token_told", token_told)


def says_hello_by_user_id() -> None:
    """The customer's user ID is the party ID in Hello."""
    user_id = sys.argv[sys.argv.index("--user") + 1]
    wrap_method(
        Link,
        "__init__",
        lambda method, self, role, _party_id, *rest, **more: method(self, role, user_id, *rest, **more),
    )


def saves_nothing() -> None:
    """The payment is not written down."""
    put_in(Session, "_save", lambda self, _effect: self.core.saved(self._clock()))


# -- no bugs: other ways of doing it right ---------------------------------------------------------------


def opens_with(first: type[Message]) -> Patch:
    """Of the two questions only this one is asked when the link is open."""

    def opened(method: Any, self: Core, now: Any) -> Any:
        if self.state is not State.OPENING:
            return method(self, now)
        link = self._link
        kept: list[Message] = []
        self._link = SimpleNamespace(send_request=kept.append)  # type: ignore[assignment]
        effects = method(self, now)
        self._link = link
        assert link is not None
        for message in kept:
            if isinstance(message, first):
                link.send_request(message)
        return effects

    return lambda: wrap_method(Core, "_opened", opened)


def asks_token_first() -> None:
    """The keys are asked for only when the token is valid."""

    def token_told(method: Any, self: Core, token: TokenAck, now: Any) -> Any:
        if token.status is TokenStatus.VALID:
            assert self._link is not None
            self._link.send_request(BankKeysQuery(self._order.root.bank_id))
        return method(self, token, now)

    opens_with(TokenQuery)()
    wrap_method(Core, "_token_told", token_told)


def asks_keys_first() -> None:
    """The token is asked for only when the keys are there."""

    def keys_told(method: Any, self: Core, answer: Any, now: Any) -> Any:
        if self.state is State.ASKING:
            assert self._link is not None
            self._link.send_request(TokenQuery(self._order.transaction_id, self._order.passcode))
        return method(self, answer, now)

    opens_with(BankKeysQuery)()
    wrap_method(Core, "_keys_told", keys_told)


def sends_again_when_cut() -> None:
    """After a cut the same credentials are sent once more, byte for byte (PG-CLI-2)."""

    def opened(method: Any, self: Core, now: Any) -> Any:
        effects = method(self, now)
        if self.state is State.ASKING_STATUS and not self._asks_once:
            self._send_credentials()
        return effects

    wrap_method(Core, "_opened", opened)
