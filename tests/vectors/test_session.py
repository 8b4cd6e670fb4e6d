"""session.json: every frame, then each whole session through real links and through the three real cores."""

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from specgen.vector_session import payment_steps
from specgen.vector_values import json_of, record_of
from vectors.vector_files import load

from paygate.bank.core import BankCore, Decode
from paygate.bank.ledger import AccountOutcome, BankIdentity, OpenCustomer, OpenMerchant
from paygate.bank.sqlite_ledger import SqliteLedger
from paygate.client.core import Core
from paygate.client.effects import Save, Seal
from paygate.client.effects import Send as ClientSend
from paygate.client.payment import Outcome
from paygate.client.root import BankRoot
from paygate.client.states import State
from paygate.clock import Now
from paygate.codec.codes import KemId, Kind, Role, SealStatus
from paygate.codec.frame import encode_frame
from paygate.codec.messages import MESSAGES, EncryptedCredentials, HelloAck, Message, OpenedEnvelope, TransferRequest
from paygate.codec.seal import (
    SealingKey,
    envelope_hash,
    match_receipt,
    open_envelope,
    password_key,
    verifier_of,
    verify_key_list,
    verify_receipt,
)
from paygate.effects import Commit, Effect, Send
from paygate.gateway.bank_side import GatewayIdentity
from paygate.gateway.core import GatewayCore
from paygate.gateway.sqlite_tokens import SqliteTokens
from paygate.gateway.tokens import IssueToken, Token
from paygate.link import Link

FILE: Final = load("session.json")
SECRETS: Final[dict[str, Any]] = FILE["secrets"]
SESSIONS: Final[list[dict[str, Any]]] = FILE["sessions"]
LINK_KEY: Final = bytes.fromhex(SECRETS["link_key"])
PEPPER: Final = bytes.fromhex(SECRETS["pepper"])
ROOT_PUBLIC_KEY: Final = bytes.fromhex(SECRETS["root_public_key"])
RECEIPT_KEY: Final = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(SECRETS["receipt_private_key"]))
SEALING_KEY: Final = SealingKey.from_private_bytes(KemId.X25519, bytes.fromhex(SECRETS["x25519_private_key"]))
ADDRESS: Final = ("127.0.0.1", 40_000)
ENDS: Final = {"client": (Role.CLIENT, Role.GATEWAY), "bank": (Role.GATEWAY, Role.BANK)}
PARTIES: Final = {Role.CLIENT: "client", Role.GATEWAY: "GW1", Role.BANK: "BANK1"}
OUTCOMES: Final = {"payment": Outcome.PAID, "wrong_password": Outcome.DECLINED, "fenced": Outcome.DECLINED}

each_session = pytest.mark.parametrize("session", SESSIONS, ids=lambda session: session["name"])


def message_of(step: dict[str, Any]) -> Message:
    return record_of(MESSAGES[Kind(step["kind"]["code"])], step["fields"])


def now_at(at_ms: str) -> Now:
    wall_ms = int(at_ms)
    return Now(wall_ms - int(SESSIONS[0]["steps"][0]["at_ms"]) + 1_000_000, wall_ms)


def of_kind(session: dict[str, Any], kind: Kind) -> dict[str, Any]:
    return next(step for step in session["steps"] if step["kind"]["code"] == kind)


@each_session
def test_every_frame_holds_its_fields(session: dict[str, Any]) -> None:
    assert [step["number"] for step in session["steps"]] == list(range(1, len(session["steps"]) + 1))
    for step in session["steps"]:
        message = message_of(step)
        assert type(message).__name__ == step["kind"]["name"]
        assert json_of(message) == step["fields"]
        key = LINK_KEY if step["link"] == "bank" else None
        assert encode_frame(message, int(step["correlation_id"]), key).hex() == step["frame"]


@each_session
def test_the_envelope_opens_to_what_the_customer_typed(session: dict[str, Any]) -> None:
    request = message_of(of_kind(session, Kind.TRANSFER_REQUEST))
    assert isinstance(request, TransferRequest)
    opened = open_envelope(SEALING_KEY, request.key_id, request.terms, request.envelope)
    keys = key_list(session)
    secrets = session["secrets"]
    derived = password_key(keys.password_key, request.terms.bank_id, SECRETS["user_id"], secrets["password_typed"])
    assert (opened.user_id, opened.password_key) == (SECRETS["user_id"], derived)
    assert derived.hex() == secrets["password_key"]
    is_right = verifier_of(PEPPER, derived).hex() == SECRETS["verifier"]
    assert is_right is (session["name"] != "wrong_password")


@each_session
def test_every_receipt_verifies_and_is_of_this_payment(session: dict[str, Any]) -> None:
    request = message_of(of_kind(session, Kind.TRANSFER_REQUEST))
    assert isinstance(request, TransferRequest)
    receipts = [bytes.fromhex(step["fields"]["receipt"]) for step in session["steps"] if "receipt" in step["fields"]]
    assert len(receipts) >= 2
    for receipt in receipts:
        statement = verify_receipt(receipt, key_list(session))
        match_receipt(statement, request.terms, envelope_hash(request.envelope))


def key_list(session: dict[str, Any]) -> Any:
    signed = bytes.fromhex(of_kind(session, Kind.BANK_KEYS)["fields"]["signed_key_list"])
    return verify_key_list(signed, ROOT_PUBLIC_KEY, "BANK1", int(session["steps"][0]["at_ms"]))


def test_the_rendered_steps_are_those_of_the_file() -> None:
    steps = SESSIONS[0]["steps"]
    assert [(s["text"], s["sender"], s["receiver"], bytes.fromhex(s["frame"])) for s in steps] == [*payment_steps()]


# -- links -----------------------------------------------------------------------------------------------


@each_session
def test_real_links_say_the_same_bytes(session: dict[str, Any]) -> None:
    links: dict[tuple[str, str], Link] = {}
    for step in session["steps"]:
        sender, receiver = ((step["connection"], step[end]) for end in ("sender", "receiver"))
        if sender not in links:
            links |= two_ends(step)
        message = message_of(step)
        link = links[sender]
        correlation_id = int(step["correlation_id"])
        if message.kind.is_reply and not isinstance(message, HelloAck):
            link.send_reply(correlation_id, message)
        elif message.kind not in (Kind.HELLO, Kind.HELLO_ACK):
            assert link.send_request(message) == correlation_id
        frame = link.data_to_send()
        assert frame.hex() == step["frame"]
        if step["delivered"]:
            links[receiver].receive_data(frame, now_at(step["at_ms"]).mono_ms)
            assert links[receiver].is_open or message.kind is Kind.HELLO


def two_ends(step: dict[str, Any]) -> dict[tuple[str, str], Link]:
    caller, answering = ENDS[step["link"]]
    is_bank = step["link"] == "bank"
    now_ms = now_at(step["at_ms"]).mono_ms
    calling = Link(
        caller, PARTIES[caller], answering, is_caller=True, now_ms=now_ms, link_key=LINK_KEY if is_bank else None
    )
    key_of = {"GW1": LINK_KEY}.get if is_bank else None
    answerer = Link(answering, PARTIES[answering], caller, is_caller=False, now_ms=now_ms, key_of=key_of)
    connection = step["connection"]
    return {(connection, caller.name.lower()): calling, (connection, answering.name.lower()): answerer}


# -- cores -----------------------------------------------------------------------------------------------


class Cores:
    """Client, gateway and bank with their stores; what each sends waits until the session's step asks for it."""

    def __init__(self, session: dict[str, Any], directory: Path) -> None:
        self.session = session
        self.now = now_at(session["steps"][0]["at_ms"])
        self.sent: dict[tuple[str, str], deque[bytes]] = defaultdict(deque)
        self.link_ids: dict[str, int] = {}
        self.keys = bytes.fromhex(of_kind(session, Kind.BANK_KEYS)["fields"]["signed_key_list"])
        credentials = message_of(of_kind(session, Kind.ENCRYPTED_CREDENTIALS))
        assert isinstance(credentials, EncryptedCredentials)
        self.credentials = credentials
        token = of_kind(session, Kind.TOKEN_ACK)["fields"]
        transaction_id = of_kind(session, Kind.TOKEN_QUERY)["fields"]["transaction_id"]
        passcode = SECRETS["passcode"]
        self.tokens = SqliteTokens(directory / "tokens.sqlite")
        shown = (token["merchant_id"], token["merchant_name"], int(token["amount_minor"]), token["currency"], None)
        self.tokens.apply([IssueToken(Token(transaction_id, passcode, *shown))], self.now)
        identity = GatewayIdentity("GW1", "BANK1", LINK_KEY)
        self.gateway = GatewayCore(identity, lambda _size: credentials.session_id, lambda: 0.5)
        self.ledger = SqliteLedger(directory / "ledger.sqlite", BankIdentity("BANK1", "PGBK", "INR"), RECEIPT_KEY)
        verifier = bytes.fromhex(SECRETS["verifier"])
        customer = OpenCustomer("C-1", SECRETS["user_id"], verifier, 5_000_000)
        merchant = OpenMerchant(token["merchant_id"], "Books", 0)
        assert self.ledger.apply([customer, merchant], self.now) == [AccountOutcome.OPENED] * 2
        self.bank = BankCore("BANK1", self.keys, {"GW1": LINK_KEY}.get)
        self.client = Core(
            root=BankRoot("BANK1", ROOT_PUBLIC_KEY),
            gateway="127.0.0.1:15000",
            transaction_id=transaction_id,
            passcode=passcode,
            serial_min=0,
            randomness=Random(1),
        )
        self.perform_client(self.client.start(self.now))

    def play(self) -> None:
        for step in self.session["steps"]:
            self.set_time(now_at(step["at_ms"]))
            if step["connection"] not in self.link_ids:
                self.connect(step["connection"])
            if step["kind"]["code"] == Kind.ENCRYPTED_CREDENTIALS:
                self.authorise()
            frame = bytes.fromhex(step["frame"])
            if step["sender"] != "client" or self.client.state is not State.ENDED:
                assert self.sent[(step["connection"], step["sender"])].popleft() == frame, step["text"]
            if step["delivered"]:
                self.deliver(step["connection"], step["receiver"], frame)
            else:
                self.cut(step["connection"])
        assert not any(self.sent.values())

    def set_time(self, now: Now) -> None:
        if now != self.now:
            self.now = now
            self.perform_gateway(self.gateway.receive_timer(now))

    def connect(self, connection: str) -> None:
        link_id = self.link_ids[connection] = len(self.link_ids) + 1
        if connection.startswith("bank"):
            self.perform_bank(self.bank.link_connected(link_id, ADDRESS, self.now))
            self.perform_gateway(self.gateway.bank_connected(link_id, self.now))
        else:
            self.perform_gateway(self.gateway.link_connected(link_id, ADDRESS, self.now))
            self.perform_client(self.client.connected(self.now))

    def cut(self, connection: str) -> None:
        link_id = self.link_ids[connection]
        self.perform_gateway(self.gateway.link_closed(link_id, "reset by peer", self.now))
        self.perform_bank(self.bank.link_closed(link_id, "reset by peer", self.now))

    def authorise(self) -> None:
        typed = self.session["secrets"]["password_typed"]
        payment_id = self.credentials.payment_id
        self.perform_client(self.client.authorise(SECRETS["user_id"], typed, payment_id, self.now))

    def deliver(self, connection: str, receiver: str, frame: bytes) -> None:
        link_id = self.link_ids[connection]
        if receiver == "client":
            self.perform_client(self.client.receive_data(frame, self.now))
        elif receiver == "bank":
            self.perform_bank(self.bank.receive_data(link_id, frame, self.now))
        else:
            self.perform_gateway(self.gateway.receive_data(link_id, frame, self.now))
            self.perform_gateway(self.gateway.receive_timer(self.now))  # once a tick, as the shell does

    def perform_client(self, effects: Sequence[Any]) -> None:
        for effect in effects:
            if isinstance(effect, ClientSend):
                self.queue("client-1", "client", effect.data)
            elif isinstance(effect, Seal):
                self.perform_client(self.client.sealed(self.credentials.envelope, self.now))
            elif isinstance(effect, Save):
                self.perform_client(self.client.saved(self.now))

    def perform_gateway(self, effects: Sequence[Effect]) -> None:
        for effect in committed(effects, self.tokens, self.gateway, self.now):
            if isinstance(effect, Send):
                self.queue(self.connection_of(effect.link_id), "gateway", effect.data)

    def perform_bank(self, effects: Sequence[Effect]) -> None:
        for effect in committed(effects, self.ledger, self.bank, self.now):
            if isinstance(effect, Send):
                self.queue(self.connection_of(effect.link_id), "bank", effect.data)
            elif isinstance(effect, Decode):
                request = effect.request
                opened = open_envelope(SEALING_KEY, request.key_id, request.terms, request.envelope)
                verifier = verifier_of(PEPPER, opened.password_key)
                answer = OpenedEnvelope(SealStatus.DONE, opened.user_id, verifier)
                self.set_bank_time()
                self.perform_bank(self.bank.decoded(effect.tag, answer, self.now))

    def set_bank_time(self) -> None:
        """The bank decides when its answer leaves, by the session's clock."""
        answered = next((s for s in self.session["steps"] if s["kind"]["code"] == Kind.TRANSFER_RESULT), None)
        assert answered is not None
        self.now = now_at(answered["at_ms"])

    def connection_of(self, link_id: int) -> str:
        return next(connection for connection, known in self.link_ids.items() if known == link_id)

    def queue(self, connection: str, sender: str, data: bytes) -> None:
        self.sent[(connection, sender)].extend(frames_in(data))


def committed(effects: Sequence[Effect], store: Any, core: Any, now: Now) -> Iterator[Effect]:
    """Commits first, then what they led to, and last what is sent, as the shell does."""
    while effects:
        operations = [e.operation for e in effects if isinstance(e, Commit)]
        yield from (e for e in effects if not isinstance(e, Commit))
        effects = core.committed(store.apply(operations, now), now) if operations else []
    yield from core.link_effects()


def frames_in(data: bytes) -> Iterator[bytes]:
    while data:
        size = 20 + int.from_bytes(data[6:8]) + (16 if data[5] & 1 else 0)
        yield data[:size]
        data = data[size:]


@each_session
def test_the_real_cores_say_the_same_bytes(session: dict[str, Any], tmp_path: Path) -> None:
    cores = Cores(session, tmp_path)
    try:
        cores.play()
    finally:
        cores.tokens.close()
        cores.ledger.close()
    result = cores.client.result
    assert result is not None
    assert result.outcome is OUTCOMES[session["name"]]
