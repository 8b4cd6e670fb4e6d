"""A payment's own file: the client's record of it, readable, private, and refused by the field that was changed."""

import json
import re
from dataclasses import replace
from typing import Any, Final

from paygate.client.json_file import any_text_in, bytes_in, json_text, read_json, terms_in, text_in
from paygate.client.payment import Payment, PaymentState
from paygate.client.root import BadRoot, BankRoot, parse_root
from paygate.clock import parse_utc, utc_text
from paygate.codec import limits
from paygate.codec.codes import Reason
from paygate.codec.fields import (
    HASH,
    KEY_ID,
    MERCHANT_NAME_OR_EMPTY,
    PASSCODE,
    RECEIPT_OR_EMPTY,
    UTR_OR_EMPTY,
    Blob,
)
from paygate.codec.jsonform import BadJson, to_json
from paygate.codec.seal import envelope_hash
from paygate.net.addresses import AddressError, parse_host_port

FORMAT: Final = "paygate payment 2"
_FORMAT_BEFORE: Final = "paygate payment 1"
"""Knew nothing of sending again; read, and never written any more."""
_FORMAT_OF_ANY_VERSION: Final = re.compile(r"paygate payment [1-9][0-9]{0,3}")
_SIGNED_KEY_LIST: Final = Blob(1, limits.BODY_SIZE_MAX)
_ENVELOPE_OR_EMPTY: Final = Blob(0, limits.ENVELOPE_SIZE_MAX)
_FIELD_NAMES: Final = (
    "format",
    "state",
    "terms",
    "merchant_name",
    "envelope_hash",
    "passcode",
    "gateway",
    "bank_root",
    "signed_key_list",
    "reason",
    "utr",
    "receipt",
    "ended",
    "key_id",
    "envelope",
)
_FIELD_COUNT_BEFORE: Final = len(_FIELD_NAMES) - 2


class UnknownVersion(BadJson):
    """A payment's file of a format that another paygate than this one writes."""

    def __init__(self, file_format: str) -> None:
        super().__init__("format", f'"{FORMAT}" or "{_FORMAT_BEFORE}", and it is "{file_format}"')


def payment_to_json(payment: Payment) -> bytes:
    """The text of a payment's file."""
    fields: dict[str, Any] = {
        "format": FORMAT,
        "state": payment.state.value,
        "terms": to_json(payment.terms),
        "merchant_name": payment.merchant_name,
        "envelope_hash": payment.envelope_hash.hex(),
        "passcode": payment.passcode,
        "gateway": payment.gateway,
        "bank_root": str(payment.root),
        "signed_key_list": payment.signed_key_list.hex(),
        "reason": payment.reason.name,
        "utr": payment.utr,
        "receipt": payment.receipt.hex(),
        "ended": utc_text(payment.ended_ms) if payment.ended_ms else "",
        "key_id": payment.key_id.hex(),
        "envelope": payment.envelope.hex(),
    }
    assert tuple(fields) == _FIELD_NAMES
    return json_text(fields)


def payment_from_json(data: bytes) -> Payment:
    """Read a payment's file. Raises BadJson naming the field, UnknownVersion for a format of another paygate."""
    fields = _read_fields(data)
    reason = Reason.__members__.get(any_text_in(fields, "reason"))
    if reason is None:
        raise BadJson("reason", f"one of {', '.join(Reason.__members__)}")
    try:
        state = PaymentState(any_text_in(fields, "state"))
    except ValueError:
        raise BadJson("state", f"one of {', '.join(s.value for s in PaymentState)}") from None
    payment = Payment(
        terms=terms_in(fields),
        envelope_hash=bytes_in(fields, "envelope_hash", HASH),
        passcode=text_in(fields, "passcode", PASSCODE),
        merchant_name=text_in(fields, "merchant_name", MERCHANT_NAME_OR_EMPTY),
        gateway=_gateway(any_text_in(fields, "gateway")),
        root=_root(any_text_in(fields, "bank_root")),
        signed_key_list=bytes_in(fields, "signed_key_list", _SIGNED_KEY_LIST),
        state=state,
        reason=reason,
        utr=text_in(fields, "utr", UTR_OR_EMPTY),
        receipt=bytes_in(fields, "receipt", RECEIPT_OR_EMPTY),
        key_id=bytes_in(fields, "key_id", KEY_ID),
        envelope=bytes_in(fields, "envelope", _ENVELOPE_OR_EMPTY),
    )
    if payment.envelope and (
        state is not PaymentState.PENDING or envelope_hash(payment.envelope) != payment.envelope_hash
    ):
        raise BadJson("envelope", "the one whose hash the record has while it is pending, and none otherwise")
    if bool(payment.receipt) is not (state in (PaymentState.PAID, PaymentState.DECLINED)):
        raise BadJson("receipt", "a receipt with paid and declined and none otherwise")
    ended = any_text_in(fields, "ended")
    try:
        return replace(payment, ended_ms=parse_utc(ended) if ended else 0)
    except ValueError:
        raise BadJson("ended", "a UTC time such as 2026-12-31T23:59:59Z, or nothing") from None


def _read_fields(data: bytes) -> dict[str, Any]:
    try:
        return read_json(data, FORMAT, _FIELD_NAMES)
    except BadJson as error:
        if error.path != "format":
            raise
        try:
            fields = read_json(data, _FORMAT_BEFORE, _FIELD_NAMES[:_FIELD_COUNT_BEFORE])
        except BadJson as error_before:
            raise (_unknown_format(data) or error if error_before.path == "format" else error_before) from None
    return {**fields, "key_id": bytes(limits.KEY_ID_SIZE).hex(), "envelope": ""}


def _unknown_format(data: bytes) -> UnknownVersion | None:
    fields = json.loads(data)  # It was read before, up to its format.
    named = fields.get("format") if isinstance(fields, dict) else None
    if isinstance(named, str) and _FORMAT_OF_ANY_VERSION.fullmatch(named):
        return UnknownVersion(named)
    return None


def _gateway(text: str) -> str:
    try:
        parse_host_port(text)
    except AddressError:
        raise BadJson("gateway", "host:port") from None
    return text


def _root(text: str) -> BankRoot:
    try:
        return parse_root(text)
    except BadRoot as error:
        raise BadJson("bank_root", str(error)) from None
