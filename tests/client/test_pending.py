"""What the client keeps on disk: private, durable, readable, and refused when somebody changed it."""

import errno
import fcntl
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from builders import ROOT_PUBLIC_KEY, UTR, build_receipt, build_signed_key_list, build_statement, build_terms
from client_world import ROOT, World

from paygate.cli import ExitCode, PaygateExit
from paygate.client.payment import Payment, PaymentState
from paygate.client.payment_file import payment_from_json, payment_to_json
from paygate.client.pending import PendingStore
from paygate.client.root import BadRoot, BankRoot, parse_root, read_root
from paygate.codec.codes import Reason
from paygate.codec.jsonform import BadJson
from paygate.codec.seal import envelope_hash
from paygate.files.state_dir import StateError


@pytest.fixture
def payment() -> Payment:
    return Payment(
        terms=build_terms(),
        envelope_hash=envelope_hash(b"envelope"),
        passcode="4321",
        merchant_name="Bücher & Töchter",
        gateway="127.0.0.1:15000",
        root=ROOT,
        signed_key_list=build_signed_key_list(),
    )


@pytest.fixture
def store(tmp_path: Path) -> PendingStore:
    store = PendingStore(tmp_path / "client")
    store.create()
    return store


def paid(payment: Payment) -> Payment:
    receipt = build_receipt(build_statement(envelope_hash=payment.envelope_hash))
    return replace(payment, state=PaymentState.PAID, utr=UTR, receipt=receipt, ended_ms=1_767_312_000_123)


def test_what_is_saved_is_loaded(store: PendingStore, payment: Payment) -> None:
    for state in (payment, replace(payment, state=PaymentState.REFUSED, reason=Reason.SESSION), paid(payment)):
        store.save(state)
        assert store.load(payment.payment_id) == state
    assert store.load_all() == [state]


@pytest.mark.pg("PG-CLI-4")
def test_another_clients_receipt_is_not_overwritten_with_a_gateways_word(store: PendingStore, payment: Payment) -> None:
    store.save(paid(payment))
    for word in (payment, replace(payment, state=PaymentState.REFUSED, reason=Reason.SESSION)):
        PendingStore(store.path).save(word)
        assert store.load(payment.payment_id) == paid(payment)


def test_everything_is_private(store: PendingStore, payment: Payment) -> None:
    store.save(payment)
    store.keep_serial(ROOT, 7)
    store.save_receipt(paid(payment), b"{}")
    paths = [store.path, *store.path.rglob("*")]
    assert len(paths) == 7
    for path in paths:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_a_directory_that_others_can_read_is_refused_with_the_command_that_mends_it(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(StateError, match=r"chmod 700 .*open"):
        PendingStore(tmp_path / "open").create()
    PendingStore(tmp_path / "client").create()
    (tmp_path / "client").chmod(0o750)
    with pytest.raises(StateError, match=r"chmod 700 .*client"):
        PendingStore(tmp_path / "client").load_all()


def test_asking_makes_no_directory_and_says_that_there_is_none(tmp_path: Path, payment: Payment) -> None:
    nowhere = PendingStore(tmp_path / "nope")
    for ask in (nowhere.load_all, lambda: nowhere.load(payment.payment_id)):
        with pytest.raises(StateError, match=r"there is no state directory .*nope"):
            ask()
    # A private directory of something else holds no payments either, and that is no answer.
    (tmp_path / "home").mkdir(mode=0o700)
    with pytest.raises(StateError, match=r"home is no client's state directory"):
        PendingStore(tmp_path / "home").load_all()
    assert [path.name for path in tmp_path.rglob("*")] == ["home"]


def test_a_directory_that_goes_away_is_told_as_such(store: PendingStore, payment: Payment) -> None:
    (store.path / "payments").rmdir()
    with pytest.raises(StateError, match="could not use the state directory"):
        store.save(payment)


def test_a_payment_file_that_others_can_read_is_refused(store: PendingStore, payment: Payment) -> None:
    store.save(payment)
    path = store.path / "payments" / f"{payment.payment_id.hex()}.json"
    path.chmod(0o644)
    with pytest.raises(StateError, match="chmod 600"):
        store.load(payment.payment_id)


def test_the_file_is_readable_and_holds_no_credentials(payment: Payment) -> None:
    world = World().send()
    text = payment_to_json(world.payment).decode()
    fields = json.loads(text)
    assert fields["state"] == "pending"
    assert fields["terms"]["transaction_id"] == "TX-1001"
    assert "Bücher & Töchter" in text
    for secret in ("asha", "correct horse"):
        assert secret not in text
        assert secret.encode().hex() not in text
    assert "4321" not in repr(payment)


@pytest.mark.pg("PG-PAY-1")
def test_a_crash_leaves_the_old_file_or_the_new_one(
    store: PendingStore, payment: Payment, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = replace(payment, state=PaymentState.REFUSED)
    store.save(payment)
    done: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def noted_fsync(fd: int) -> None:
        done.append("fsync")
        fsync(fd)

    def noted_rename(path: Path, target: Path) -> Path:
        done.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    store.save(refused)
    # The contents are on disk before the name is theirs, and the name before anybody is told.
    assert done == ["fsync", "rename", "fsync"]

    def failing_fsync(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", failing_fsync)
    with pytest.raises(StateError, match="No space left"):
        store.save(paid(payment))
    assert store.load(payment.payment_id) == refused


def test_an_unknown_payment_is_a_usage_error(store: PendingStore) -> None:
    with pytest.raises(PaygateExit, match=r"no payment .*`list` shows those that are there") as error:
        store.load(b"x" * 16)
    assert error.value.code is ExitCode.USAGE


def test_a_broken_link_is_no_payment_that_was_never_sent(store: PendingStore, payment: Payment) -> None:
    path = store.path / "payments" / f"{payment.payment_id.hex()}.json"
    path.symlink_to("nowhere")
    for ask in (store.load_all, lambda: store.load(payment.payment_id)):
        with pytest.raises(StateError, match=f"could not read the record {path}: it is a symbolic link"):
            ask()


CHANGES: list[tuple[str, Callable[[dict[str, object]], object]]] = [
    ("state", lambda f: f.update(state="settled")),
    ("terms.amount_minor", lambda f: f["terms"].update(amount_minor="1")),  # type: ignore[attr-defined]
    ("terms.payment_id", lambda f: f["terms"].update(payment_id="xy")),  # type: ignore[attr-defined]
    ("terms", lambda f: f.update(terms=[])),
    ("envelope_hash", lambda f: f.update(envelope_hash="00")),
    ("passcode", lambda f: f.update(passcode="a b")),
    ("gateway", lambda f: f.update(gateway="nowhere")),
    ("bank_root", lambda f: f.update(bank_root="BANK1 12")),
    ("signed_key_list", lambda f: f.update(signed_key_list="")),
    ("reason", lambda f: f.update(reason="WHIM")),
    ("utr", lambda f: f.update(utr=UTR[:-1])),
    ("receipt", lambda f: f.update(state="paid")),
    ("ended", lambda f: f.update(ended="yesterday")),
    ("merchant_name", lambda f: f.update(merchant_name=3)),
    ("no fields but", lambda f: f.update(note="hello")),
    ("passcode", lambda f: f.pop("passcode")),
    ("format", lambda f: f.update(format="paygate payment 3")),
]


@pytest.mark.parametrize(("word", "change"), CHANGES)
def test_a_file_that_was_changed_by_hand_is_refused_by_the_fields_name(
    store: PendingStore, payment: Payment, word: str, change: Callable[[dict[str, object]], object]
) -> None:
    store.save(payment)
    path = store.path / "payments" / f"{payment.payment_id.hex()}.json"
    fields = json.loads(path.read_bytes())
    change(fields)
    path.write_text(json.dumps(fields), encoding="utf-8")
    with pytest.raises(StateError, match=word) as error:
        store.load_all()
    assert path.name in str(error.value)
    assert error.value.code is ExitCode.BAD_STATE


def test_a_file_under_another_name_is_refused(store: PendingStore, payment: Payment) -> None:
    store.save(payment)
    name, directory = f"{payment.payment_id.hex()}.json", store.path / "payments"
    (directory / name).rename(directory / f"{'ab' * 16}.json")
    with pytest.raises(StateError, match=f"another payment than its name says; name it {name} if there is none"):
        store.load(b"\xab" * 16)


def test_a_file_of_another_version_is_no_damage(store: PendingStore, payment: Payment) -> None:
    store.save(payment)
    path = store.path / "payments" / f"{payment.payment_id.hex()}.json"
    path.write_bytes(path.read_bytes().replace(b"paygate payment 2", b"paygate payment 10"))
    with pytest.raises(StateError, match=r'it is "paygate payment 10"; ask with the paygate that wrote it') as error:
        store.load(payment.payment_id)
    assert "damaged" not in str(error.value)


def spoil(path: Path, how: str) -> str:
    """Make a record useless; gives the words that it is told by."""
    if how == "garbage":
        path.write_bytes(path.read_bytes()[:-9])
        return "was changed or damaged: the object: expected JSON; restore it from a backup. No money is lost"
    if how == "open to others":
        path.chmod(0o644)
        return f"is open to other users (mode 0644): chmod 600 {path}"
    path.unlink()
    path.mkdir(mode=0o700)
    return f"the record {path} is no regular file; put the file itself there"


@pytest.mark.parametrize("how", ["garbage", "open to others", "directory"])
def test_one_record_that_can_not_be_used_hides_no_other(store: PendingStore, payment: Payment, how: str) -> None:
    ids = [bytes([number]) * 16 for number in (1, 2, 3)]
    payments = [replace(payment, terms=build_terms(payment_id=payment_id)) for payment_id in ids]
    for each in payments:
        store.save(each)
    paths = [store.path / "payments" / f"{payment_id.hex()}.json" for payment_id in ids]
    words = spoil(paths[1], how)
    before = [path.read_bytes() for path in paths if path.is_file()]
    damaged: list[StateError] = []
    transaction_id = payment.terms.transaction_id
    assert store.load_all(damaged.append) == [payments[0], payments[2]]
    assert store.load_of_token(transaction_id, damaged.append) == [payments[0], payments[2]]
    error, again = damaged
    assert str(again) == str(error)
    assert str(paths[1]) in str(error)
    assert words in str(error)
    assert error.code is ExitCode.BAD_STATE
    with pytest.raises(StateError):
        store.load_all()  # who does not ask for the damaged ones can't take some payments for all
    assert [path.read_bytes() for path in paths if path.is_file()] == before


def test_a_damaged_record_keeps_no_envelope_of_another(store: PendingStore, payment: Payment) -> None:
    payments = []
    for number in (1, 2):
        terms = build_terms(payment_id=bytes([number]) * 16)
        payments.append(replace(payment, terms=terms, key_id=b"k" * 8, envelope=b"envelope"))
        store.save(payments[-1])
    (store.path / "payments" / f"{'01' * 16}.json").write_bytes(b"{")
    store.forget_envelopes(payments[1].session_end_ms)
    assert store.load(b"\x02" * 16) == payments[1].without_envelope()


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(BadJson):
        payment_from_json(data)


@pytest.mark.pg("PG-KEY-5")
def test_a_serial_only_goes_up_and_belongs_to_one_root_key(store: PendingStore) -> None:
    other = BankRoot(ROOT.bank_id, b"o" * 32)
    assert store.serial_min(ROOT) == 0
    for serial in (7, 9, 8):
        store.keep_serial(ROOT, serial)
    assert PendingStore(store.path).serial_min(ROOT) == 9
    assert store.serial_min(other) == 0
    (path,) = (store.path / "serials").iterdir()
    for text in ("seven", "", "-7", "9" * 5_000):  # Python makes no number of that many digits.
        path.write_text(text, encoding="ascii")
        with pytest.raises(StateError, match="does not hold a serial number; restore it from a backup"):
            store.serial_min(ROOT)


def test_a_root_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "root.txt"
    path.write_text(f"# from the branch office\n\n{ROOT}\n", encoding="ascii")
    assert read_root(path) == ROOT == BankRoot("BANK1", ROOT_PUBLIC_KEY)
    for text in ("", "BANK1", f"BANK1 {'0' * 63}", f"BANK1 {'x' * 64}", f"{ROOT} {ROOT}", f"-x {'0' * 64}"):
        with pytest.raises(BadRoot):
            parse_root(text)
    with pytest.raises(BadRoot, match="could not read"):
        read_root(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadRoot, match=r"pipe: it is no regular file"):
        read_root(tmp_path / "pipe")
    with pytest.raises(BadRoot, match="Is a directory"):
        read_root(tmp_path)


def test_a_directory_that_fails_is_told(store: PendingStore, payment: Payment, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save(payment)

    def broken(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def fails(doing: Callable[[], object], place: object, name: str) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(place, name, broken)
            with pytest.raises(StateError, match=r"could not use the state directory .*: Input/output error"):
                doing()

    fails(lambda: store.save(payment), fcntl, "flock")
    fails(lambda: store.save(payment), Path, "exists")
    fails(lambda: store.load(payment.payment_id), Path, "lstat")
    fails(store.load_all, Path, "glob")
    fails(lambda: store.serial_min(ROOT), Path, "exists")
    assert store.load_all() == [payment]
