"""What a session is to pay, and the payment that is made of it: only what was shown, and what we made (R3, T2)."""

import unicodedata
from dataclasses import replace
from typing import Final

from paygate.client.payment import Outcome, Payment, PaymentResult
from paygate.client.root import BankRoot
from paygate.client.verdict import NOTHING_SENT, TrustedKeys
from paygate.clock import Now
from paygate.codec.codes import KemId, KeysStatus
from paygate.codec.fields import PASSWORD, USER_ID, Field
from paygate.codec.messages import BankKeys, SealCredentials, TokenAck
from paygate.codec.seal import choose_suite_key, envelope_hash
from paygate.codec.sealed import SuiteKey, Terms

_CREDENTIALS: Final[tuple[tuple[str, Field], ...]] = (("user ID", USER_ID), ("password", PASSWORD))


class BadInput(ValueError):
    """User ID or password can't be sent; the text names which and what is expected, never what was typed."""


class Order:
    """One token of one gateway, to be paid by one bank. It knows neither link nor time nor the session's state.

    In this order: `maybe_refusal`, `accept`, `authorise`, `payment`.
    """

    def __init__(
        self, *, root: BankRoot, gateway: str, transaction_id: str, passcode: str, kem_id: KemId | None
    ) -> None:
        """`gateway` is only written down. `kem_id`: use this suite and no better one."""
        self.root = root
        self.transaction_id = transaction_id
        self.passcode = passcode
        self._gateway = gateway
        self._kem_id = kem_id
        self._token: TokenAck | None = None
        self._trusted: TrustedKeys | None = None
        self._suite_key: SuiteKey | None = None
        self._terms: Terms | None = None

    def maybe_refusal(self, token: TokenAck, answer: BankKeys) -> PaymentResult | None:
        """Why this bank's keys are not to be had for a valid token, if they are not."""
        if token.bank_id != self.root.bank_id:
            why = f"The gateway pays through bank {token.bank_id}; the root key is of {self.root.bank_id}."
            return PaymentResult(Outcome.UNTRUSTED, f"{why} {NOTHING_SENT}")
        if answer.status is not KeysStatus.AVAILABLE:
            why = f"The gateway has no keys of bank {self.root.bank_id} now; pay again later."
            return PaymentResult(Outcome.REFUSED, f"{why} {NOTHING_SENT}")
        return None

    def accept(self, token: TokenAck, trusted: TrustedKeys) -> None:
        """Take what the customer is shown, and choose the key to seal for. Raises BadKeyList."""
        key_list = trusted.key_list
        if self._kem_id is not None:
            wanted = tuple(k for k in key_list.suite_keys if k.kem_id is self._kem_id)
            key_list = replace(key_list, suite_keys=wanted)
        self._suite_key = choose_suite_key(key_list)
        self._token, self._trusted = token, trusted

    def authorise(self, user_id: str, password: str, payment_id: bytes, now: Now) -> SealCredentials:
        """What the encoder is to seal. Raises BadInput, and then nothing has changed."""
        assert self._token is not None
        assert self._trusted is not None
        assert self._suite_key is not None
        given: tuple[object, ...] = (user_id, password)
        for (name, _), value in zip(_CREDENTIALS, given, strict=True):
            if not isinstance(value, str):
                raise BadInput(f"{name}: expected a str, not {type(value).__name__}")
        # Keyboards differ in how they compose a letter; the bank knows one form (spec 8.3).
        user_id, password = (unicodedata.normalize("NFC", text) for text in (user_id, password))
        for (name, field), text in zip(_CREDENTIALS, (user_id, password), strict=True):
            if not field.is_legal(text):
                raise BadInput(f"{name}: expected {field.expected}")
        # T2: only what the customer was shown, and what we made ourselves.
        self._terms = Terms(
            bank_id=self.root.bank_id,
            gateway_id=self._token.gateway_id,
            merchant_id=self._token.merchant_id,
            transaction_id=self.transaction_id,
            payment_id=payment_id,
            session_id=self._token.session_id,
            amount_minor=self._token.amount_minor,
            currency=self._token.currency,
            authorised_at_ms=now.wall_ms,
        )
        password_key = self._trusted.key_list.password_key
        return SealCredentials(self._suite_key, password_key, self._terms, user_id, password)

    def payment(self, envelope: bytes) -> Payment:
        """What is written down before a byte of it leaves."""
        assert self._token is not None
        assert self._trusted is not None
        assert self._suite_key is not None
        assert self._terms is not None
        return Payment(
            terms=self._terms,
            envelope_hash=envelope_hash(envelope),
            passcode=self.passcode,
            merchant_name=self._token.merchant_name,
            gateway=self._gateway,
            root=self.root,
            signed_key_list=self._trusted.signed,
            key_id=self._suite_key.key_id,
            envelope=envelope,
        )
