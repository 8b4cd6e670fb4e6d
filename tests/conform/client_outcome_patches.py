"""More bugs of a client: in what it makes of answers and receipts."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from conform.client_patches import Patch, put_in, wrap, wrap_method

from paygate.cli import ExitCode
from paygate.client import core as core_module
from paygate.client import pay as pay_module
from paygate.client import payment as payment_module
from paygate.client import verdict as verdict_module
from paygate.client.core import Core
from paygate.client.payment import Outcome
from paygate.client.states import State
from paygate.client.verdict import TrustedKeys
from paygate.codec import seal as seal_module
from paygate.codec.messages import (
    EncryptedCredentials,
    StatusAck,
    StatusQuery,
)
from paygate.codec.record_codec import decode_record
from paygate.codec.sealed import KeyList, Receipt, SignedKeyList, Terms

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
        assert self.payment is not None
        credentials = self.payment.credentials(self.payment.terms.authorised_at_ms)
        assert credentials is not None
        self._link.send_request(replace(credentials, payment_id=b"another payment!"))
        return effects

    wrap_method(Core, "_opened", opened)


def pays_when_asked_later() -> None:
    """The later question is a payment."""

    def ask_status(method: Any, self: Core, now: Any) -> Any:
        if not self._asks_once:
            return method(self, now)
        assert self._link is not None
        assert self.payment is not None
        terms = self.payment.terms
        again = EncryptedCredentials(terms.session_id, terms.payment_id, terms.authorised_at_ms, bytes(8), bytes(304))
        self._link.send_request(again)
        return None

    wrap_method(Core, "_ask_status", ask_status)


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


def knows_one_receipt_key() -> None:
    """Only the first listed key is looked for."""
    wrap(
        verdict_module,
        "verify_receipt",
        lambda real, receipt, keys: real(receipt, replace(keys, receipt_keys=keys.receipt_keys[:1])),
    )


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


def finds_every_key_id_right() -> None:
    """A listed key's ID need not be the hash of the key."""

    def verify(real: Any, receipt: bytes, key_list: KeyList) -> Any:
        stated = decode_record(Receipt, receipt).statement.receipt_key_id
        put_in(seal_module, "key_id_of", lambda _public_key: stated)
        return real(receipt, key_list)

    wrap(verdict_module, "verify_receipt", verify)


# -- answers to questions --------------------------------------------------------------------------------


def reads(receipt: bytes, _keys: KeyList) -> Any:
    """What a receipt states, whoever made it."""
    return decode_record(Receipt, receipt).statement


def passes(*_checked: Any) -> None:
    """Find everything right."""


def checks_in_payment_acks_only(name: str, lax: Callable[..., Any]) -> Patch:
    """A check is made in a PaymentAck, and is lax in a StatusAck."""

    def judge(real: Any, answer: Any, *rest: Any) -> Any:
        strict = getattr(verdict_module, name)
        if isinstance(answer, StatusAck):
            put_in(verdict_module, name, lax)
        result = real(answer, *rest)
        put_in(verdict_module, name, strict)
        return result

    return lambda: wrap(core_module, "judge", judge)


def names_the_payment(answer: Any, payment: Any) -> Any:
    """A StatusAck is taken for one of the payment that was asked for."""
    return replace(answer, payment_id=payment.payment_id) if isinstance(answer, StatusAck) else answer


def trusts_when_asked(trust: Callable[[Any, Core, bytes, Any], Any]) -> Patch:
    """A list that comes to a later question is taken in this way."""

    def trusted(method: Any, self: Core, signed_key_list: bytes, now: Any) -> Any:
        if self._asks_once:
            return trust(method, self, signed_key_list, now)
        return method(self, signed_key_list, now)

    return lambda: wrap_method(Core, "_trust", trusted)


def takes_any_keys(_method: Any, self: Core, signed_key_list: bytes, _now: Any) -> list[Any]:
    """Neither signature nor serial of the list is looked at."""
    key_list = decode_record(KeyList, decode_record(SignedKeyList, signed_key_list).key_list)
    self._keys.append(TrustedKeys(signed_key_list, key_list))
    return []


def takes_no_keys(*_given: Any) -> list[Any]:
    """The list is not looked at."""
    return []


def takes_new_keys_only(method: Any, self: Core, signed_key_list: bytes, now: Any) -> Any:
    """The list that was kept with the payment is dropped."""
    self._keys.clear()
    return method(self, signed_key_list, now)
