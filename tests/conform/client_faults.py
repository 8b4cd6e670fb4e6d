"""Every bug that our client can be given, and the cases of the kit that each must fail: the table behind `test_client`.

A bug is a patch of the real client in a process of its own (`broken_client.py`), so whatever is not the bug is real.
"""

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from types import SimpleNamespace
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from paygate import link as link_module
from paygate.cli import ExitCode
from paygate.client import core as core_module
from paygate.client import pay as pay_module
from paygate.client import payment as payment_module
from paygate.client import verdict as verdict_module
from paygate.client.core import Core
from paygate.client.effects import Effect, Seal, Send, StartSession
from paygate.client.payment import Outcome
from paygate.client.session import Session
from paygate.client.states import State
from paygate.codec import seal as seal_module
from paygate.codec.codes import KemId, Role, TokenStatus
from paygate.codec.errors import ErrorCode, RemoteProtocolError
from paygate.codec.frame import decode_head, decode_record, encode_frame
from paygate.codec.messages import (
    Echo,
    Error,
    HelloAck,
    Message,
    StatusQuery,
    TokenAck,
    TokenQuery,
)
from paygate.codec.sealed import KeyList, PasswordKeyParameters, Receipt, SignedKeyList, Terms
from paygate.link import Link

Patch = Callable[[], None]


@dataclass(frozen=True)
class Fault:
    """A bug, and the cases that it must fail (without `client.`)."""

    patch: Patch
    cases: tuple[str, ...]


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

    def receive_reply(method: Any, self: Link, correlation_id: int, message: Message) -> Any:
        message = replace(message, **changes) if isinstance(message, HelloAck) else message
        return method(self, correlation_id, message)

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
        before = bytes(self._output)
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

    def receive_reply(method: Any, self: Link, _correlation_id: int, message: Message) -> Any:
        return method(self, min(self._asked, default=0), message)

    wrap_method(Link, "_receive_reply", receive_reply)


def numbers_all_requests_alike() -> None:
    """Every request has correlation ID 1."""

    def put_request(method: Any, self: Link, message: Message) -> Any:
        self._next_correlation_id = 1
        return method(self, message)

    wrap_method(Link, "_put_request", put_request)


def answers_no_echo() -> None:
    """Echo is passed over."""

    def receive_request(method: Any, self: Link, correlation_id: int, message: Message) -> Any:
        return [] if isinstance(message, Echo) else method(self, correlation_id, message)

    wrap_method(Link, "_receive_request", receive_request)


def echoes_zeros() -> None:
    """EchoReply has other data."""

    def receive_request(method: Any, self: Link, correlation_id: int, message: Message) -> Any:
        return method(self, correlation_id, Echo(bytes(8)) if isinstance(message, Echo) else message)

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
            self.token = replace(self.token, bank_id=self._root.bank_id)
        return method(self, now)

    wrap_method(Core, "_maybe_acknowledge", acknowledge)


def chooses(pick: Callable[[list[Any]], Any]) -> Patch:
    """Another of the listed keys is taken."""

    def choose(real: Any, key_list: KeyList) -> Any:
        return pick(list(key_list.suite_keys)) or real(replace(key_list, suite_keys=()))

    return lambda: wrap(core_module, "choose_suite_key", choose)


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
    put_in(core_module, "unicodedata", SimpleNamespace(normalize=lambda _form, text: text))


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


# -- outcomes --------------------------------------------------------------------------------------------


def says(outcome: Outcome, code: ExitCode) -> Patch:
    """An outcome is told by the exit code of another."""
    return lambda: payment_module._EXIT_CODES.update({outcome: code})


def keeps_the_utr() -> None:
    """The customer is told "paid", and nothing else."""
    put_in(pay_module, "put", lambda text: print(text.partition(" UTR")[0].partition("Receipt")[0]))


def judges(change: Callable[[Any, Any], Any]) -> Patch:
    """Answers are changed before they are judged."""

    def judge(real: Any, answer: Any, payment: Any, *rest: Any) -> Any:
        return real(change(answer, payment), payment, *rest)

    return lambda: wrap(core_module, "judge", judge)


def gives_up_when_open() -> None:
    """The first answer that is not final ends the session."""

    def not_final(_method: Any, self: Core, _result: Any, now: Any) -> Any:
        self.state = State.ENDED
        return self._end(self._open_outcome(Outcome.UNKNOWN, "It is open."), now)

    wrap_method(Core, "_not_final", not_final)


def gives_up_when_cut() -> None:
    """A link that breaks behind the credentials ends the session."""

    def lost(method: Any, self: Core, text: str, now: Any) -> Any:
        if self.state is not State.SENT:
            return method(self, text, now)
        self.state = State.ENDED
        return self._end(self._open_outcome(Outcome.UNKNOWN, "It was cut."), now)

    wrap_method(Core, "_lost", lost)


def gives_up_when_cut_twice() -> None:
    """The second link that breaks ends the session."""

    def retry(method: Any, self: Core, text: str, now: Any) -> Any:
        self.cuts = getattr(self, "cuts", 0) + 1  # type: ignore[attr-defined]
        self._asks_once = self.cuts > 1  # type: ignore[attr-defined]
        return method(self, text, now)

    wrap_method(Core, "_retry", retry)


def pays_again_when_cut() -> None:
    """After a cut the same envelope is sent under a new payment ID."""

    def opened(method: Any, self: Core, now: Any) -> Any:
        if self.state is not State.RECONNECTING:
            return method(self, now)
        effects = method(self, now)
        assert self._link is not None
        assert self._credentials is not None
        self._link.send_request(replace(self._credentials, payment_id=b"another payment!"))
        return effects

    wrap_method(Core, "_opened", opened)


def asks_for_another_payment() -> None:
    """StatusQuery names another payment."""

    def status_query(payment_id: bytes, *rest: str) -> StatusQuery:
        return StatusQuery(payment_id[::-1], *rest)

    put_in(core_module, "StatusQuery", status_query)


def takes_refused_questions_for_refusals() -> None:
    """PASSCODE in answer to a question is taken for a refusal of the payment."""
    put_in(verdict_module, "_QUESTION_REFUSED", frozenset())


# -- receipts --------------------------------------------------------------------------------------------


def takes_any_receipt_key() -> None:
    """A receipt whose key is not listed is taken as verified."""

    def verify(real: Any, receipt: bytes, key_list: KeyList) -> Any:
        statement = decode_record(Receipt, receipt).statement
        is_listed = any(key.receipt_key_id == statement.receipt_key_id for key in key_list.receipt_keys)
        return real(receipt, key_list) if is_listed else statement

    wrap(verdict_module, "verify_receipt", verify)


def checks_no_tree() -> None:
    """Neither path nor signature of a receipt is looked at."""
    wrap(verdict_module, "verify_receipt", lambda _real, receipt, _keys: decode_record(Receipt, receipt).statement)


def knows_lone_leaves_only() -> None:
    """A receipt that is one of several is refused."""

    def merkle_root(leaf: bytes, _index: int, leaf_count: int, _path: Any) -> bytes:
        if leaf_count > 1:
            raise seal_module.BadReceipt("several leaves")
        return leaf

    put_in(seal_module, "merkle_root", merkle_root)


def passes_over_what_is_left_of_a_path() -> None:
    """A path may be too long."""

    def merkle_root(real: Any, leaf: bytes, index: int, leaf_count: int, path: Any) -> Any:
        for size in range(len(path), -1, -1):
            with contextlib.suppress(seal_module.BadReceipt):
                return real(leaf, index, leaf_count, path[:size])
        return real(leaf, index, leaf_count, path)

    wrap(seal_module, "merkle_root", merkle_root)


def trusts_the_gateway() -> None:
    """No receipt is looked at."""
    put_in(verdict_module, "_prove", lambda _answer, _payment, keys: keys[0])


def matches_all_terms_but(name: str) -> Patch:
    """One field of the receipt's terms is not compared."""

    def match(real: Any, statement: Any, terms: Terms, sent_hash: bytes) -> None:
        real(statement, replace(terms, **{name: getattr(statement.terms, name)}), sent_hash)

    return lambda: wrap(verdict_module, "match_receipt", match)


def compares_no_envelope() -> None:
    """The receipt's envelope hash is not compared."""
    wrap(
        verdict_module,
        "match_receipt",
        lambda real, statement, terms, _hash: real(statement, terms, statement.envelope_hash),
    )


def compares_answer_and_receipt_in_nothing() -> None:
    """The answer need not agree with its receipt."""
    put_in(verdict_module, "_check_agreement", lambda _answer, _statement: None)


# -- the table -------------------------------------------------------------------------------------------

_UNEXPECTED: Final = (
    *("hello.request_instead", "hello.reply_instead", "link.second_hello_ack", "link.other_reply"),
    *("link.request_to_client", "link.hello_to_client", "frames.pipe_kind"),
)
_UNKNOWN_ID: Final = (
    *("hello.foreign_correlation", "link.foreign_reply", "link.unasked_echo_reply", "link.unasked_error"),
)
_REASONS: Final = (
    *("late", "key_retired", "terms", "token_already_paid", "merchant_unknown", "currency", "credentials", "funds"),
    "fenced",
)
_DAMAGED: Final = (
    *(ErrorCode.BAD_MAGIC, ErrorCode.UNSUPPORTED_VERSION, ErrorCode.UNKNOWN_KIND, ErrorCode.UNKNOWN_FLAG),
    *(ErrorCode.BODY_TOO_SMALL, ErrorCode.BODY_TOO_LARGE, ErrorCode.UNEXPECTED_MAC, ErrorCode.TRUNCATED_FIELD),
    ErrorCode.TRAILING_BYTES,
)

FAULTS: Final[dict[str, Fault]] = {
    # links
    "talks before HelloAck": Fault(talks_before_hello_ack, ("hello.first",)),
    "takes a HelloAck of anybody": Fault(takes_any(role=Role.GATEWAY), ("hello.bank_answers", "hello.client_answers")),
    "takes any version": Fault(takes_any(version=1), ("hello.foreign_version",)),
    "tolerates UNEXPECTED_MESSAGE": Fault(tolerates(ErrorCode.UNEXPECTED_MESSAGE), _UNEXPECTED),
    "tolerates UNKNOWN_CORRELATION": Fault(tolerates(ErrorCode.UNKNOWN_CORRELATION), _UNKNOWN_ID),
    "tolerates HELLO_TIMEOUT": Fault(tolerates(ErrorCode.HELLO_TIMEOUT), ("hello.no_ack",)),
    "tolerates BAD_CHECKSUM": Fault(
        tolerates(ErrorCode.BAD_CHECKSUM), ("frames.bad_checksum", "link.says_why", "cut.damaged_answer")
    ),
    "tolerates BAD_VALUE": Fault(
        tolerates(ErrorCode.BAD_VALUE), ("frames.bad_value", "frames.broken_rule", "receipt.none")
    ),
    **{f"tolerates {code.name}": Fault(tolerates(code), (f"frames.{code.name.lower()}",)) for code in _DAMAGED},
    "refuses with INTERNAL": Fault(refuses_with_internal, ("frames.bad_magic", "hello.foreign_correlation")),
    "closes silently": Fault(closes_silently, ("link.says_why",)),
    "answers Errors": Fault(answers_errors, ("hello.error_instead", "link.closing_error", "cut.closing_error")),
    "needs whole headers": Fault(needs_whole_headers, ("frames.byte_by_byte",)),
    "takes one frame a read": Fault(takes_one_frame_a_read, ("frames.glued",)),
    "matches replies by order": Fault(matches_replies_by_order, ("link.overtaking",)),
    "numbers all requests alike": Fault(numbers_all_requests_alike, ("link.correlations",)),
    "answers no Echo": Fault(answers_no_echo, ("link.echo", "frames.glued")),
    "echoes zeros": Fault(echoes_zeros, ("link.echo",)),
    "waits 2 s for a frame": Fault(waits("FRAME_TIMEOUT_MS", 2_000), ("frames.dripping",)),
    "waits 1 s for an answer": Fault(waits("ANSWER_MS", 1_000, core_module), ("link.no_answer",)),
    "says declined without a connection": Fault(
        says(Outcome.NO_CONNECTION, ExitCode.DECLINED),
        ("hello.error_instead", "link.query_refused", "link.closing_error", "link.cut_before_sending"),
    ),
    # token and session
    "strips passcodes": Fault(strips_passcodes, ("token.query",)),
    "pays whatever the status": Fault(
        pays_whatever_the_status,
        ("token.invalid", "token.paid", "token.expired", "token.locked", "token.in_flight"),
    ),
    "rings early": Fault(
        rings_early, ("session.over_before_sending", "session.over_after_sending", "session.thirty_seconds")
    ),
    # keys
    "checks no root signature": Fault(
        checks_no_signature(seal_module.LABEL_KEY_LIST), ("keys.wrong_root", "keys.altered")
    ),
    "takes key lists of any bank": Fault(
        verifies_key_lists(bank_id=lambda key_list, _: key_list.bank_id), ("keys.other_bank",)
    ),
    "takes key lists of any time": Fault(
        verifies_key_lists(now_wall_ms=lambda key_list, _: key_list.valid_from_ms),
        ("keys.expired", "keys.not_yet_valid"),
    ),
    "takes any serial": Fault(verifies_key_lists(serial_min=lambda _list, _min: 0), ("keys.lower_serial",)),
    "takes no serial twice": Fault(
        verifies_key_lists(serial_min=lambda _list, seen: seen and seen + 1), ("keys.same_serial",)
    ),
    "drops trailing bytes": Fault(
        lambda: wrap(seal_module, "decode_record", decodes_laxly),
        ("keys.trailing", "keys.trailing_inside", "receipt.trailing"),
    ),
    "takes unknown suites for known": Fault(
        lambda: wrap(seal_module, "decode_record", takes_unknown_suites_for_known), ("keys.unknown_suite",)
    ),
    "says declined by the gateway's word": Fault(
        says(Outcome.REFUSED, ExitCode.DECLINED),
        (
            *("keys.unavailable", "keys.unknown_bank", "refused.session", "refused.bank_unreachable"),
            *("refused.payment_mismatch", "refused.token_paid", "status.receipt_wins"),
        ),
    ),
    "takes any bank in tokens": Fault(takes_any_bank_in_tokens, ("keys.token_of_other_bank",)),
    "prefers X25519": Fault(chooses(lambda keys: min(keys, key=lambda key: int(key.kem_id))), ("suites.best",)),
    "knows the hybrid suite only": Fault(
        chooses(lambda keys: next((key for key in keys if key.kem_id is KemId.MLKEM768_X25519), None)),
        ("suites.x25519",),
    ),
    "takes the last key": Fault(chooses(lambda keys: keys[-1]), ("suites.first_key",)),
    "looks at the KEM only": Fault(chooses(lambda keys: keys[0]), ("suites.unknown_combination", "suites.none")),
    # credentials
    "counts seconds": Fault(
        authorises(now=lambda now: now._replace(wall_ms=now.wall_ms // 1_000)), ("credentials.fields",)
    ),
    "has one payment ID": Fault(authorises(payment_id=lambda _: b"the one payment."), ("credentials.fresh",)),
    "seals another amount": Fault(
        seals(terms=lambda terms: replace(terms, amount_minor=1)), ("credentials.terms", "credentials.merchant_name")
    ),
    "refuses nameless merchants": Fault(refuses_nameless_merchants, ("credentials.merchant_name",)),
    "seals another user ID": Fault(seals(user_id=str.upper), ("credentials.user_id",)),
    "has parameters of its own": Fault(
        seals(password_key=lambda _: PasswordKeyParameters(memory_kib=8, iteration_count=1, lane_count=1)),
        ("credentials.password_key", "credentials.parameters"),
    ),
    "normalises nothing": Fault(normalises_nothing, ("credentials.normal_form",)),
    "cuts long passwords": Fault(authorises(password=lambda password: password[:72]), ("credentials.long_password",)),
    "says hello by user ID": Fault(says_hello_by_user_id, ("credentials.secrecy",)),
    "saves nothing": Fault(saves_nothing, ("status.killed",)),
    # outcomes
    "keeps the UTR": Fault(keeps_the_utr, ("paid.told",)),
    "says paid when declined": Fault(
        says(Outcome.DECLINED, ExitCode.OK),
        (*(f"declined.{reason}" for reason in _REASONS), "open.declined_later", "status.declined"),
    ),
    "says paid when in doubt": Fault(
        says(Outcome.UNKNOWN, ExitCode.OK), ("open.never_answered", "status.pending", "cut.always")
    ),
    "gives up when open": Fault(
        gives_up_when_open,
        (
            *("open.pending", "open.pending_for_long", "open.unknown", "open.too_many_requests"),
            *("open.shutting_down", "open.error_to_status"),
        ),
    ),
    "asks ten times a second": Fault(waits("POLL_MS", 100, core_module), ("open.pending_for_long",)),
    "gives up when cut": Fault(gives_up_when_cut, ("cut.after_sending", "cut.closing_error", "cut.damaged_answer")),
    "gives up when cut twice": Fault(gives_up_when_cut_twice, ("cut.again",)),
    "pays again when cut": Fault(pays_again_when_cut, ("cut.after_sending",)),
    "connects again without a wait": Fault(waits("RECONNECT_DELAYS_MS", (1,), core_module), ("cut.always",)),
    "asks for another payment": Fault(asks_for_another_payment, ("status.paid", "status.receipt_wins")),
    "takes refused questions for refusals": Fault(takes_refused_questions_for_refusals, ("status.question_refused",)),
    # receipts
    "checks no receipt's signature": Fault(
        checks_no_signature(seal_module.LABEL_RECEIPT_ROOT),
        (
            *("receipt.forged", "receipt.altered", "receipt.borrowed_key_id", "receipt.wrong_path"),
            *("receipt.wrong_index", "receipt.wrong_count", "receipt.declined_forged"),
        ),
    ),
    "takes any receipt key": Fault(takes_any_receipt_key, ("receipt.other_key",)),
    "checks no tree": Fault(checks_no_tree, ("receipt.short_path", "receipt.long_path")),
    "passes over what is left of a path": Fault(passes_over_what_is_left_of_a_path, ("receipt.long_path",)),
    "knows lone leaves only": Fault(
        knows_lone_leaves_only, ("receipt.tree_0_of_2", "receipt.tree_5_of_7", "receipt.tree_4_of_5")
    ),
    "trusts the gateway": Fault(trusts_the_gateway, ("receipt.garbage", "receipt.forged")),
    **{
        f"compares no {field.name}": Fault(matches_all_terms_but(field.name), (f"receipt.other_{field.name}",))
        for field in fields(Terms)
    },
    "compares no envelope": Fault(compares_no_envelope, ("receipt.other_envelope", "status.lie")),
    "compares answer and receipt in nothing": Fault(
        compares_answer_and_receipt_in_nothing,
        (
            *("receipt.other_utr", "receipt.paid_by_declined", "receipt.paid_by_fenced"),
            *("receipt.declined_by_posted", "receipt.other_reason"),
        ),
    ),
    "takes another payment's answer": Fault(
        judges(lambda answer, payment: replace(answer, payment_id=payment.payment_id)), ("receipt.answer_of_other",)
    ),
}
"""Every bug by its name."""
