"""The files that are written without a database, under power cuts: old or new, never half, and kept once told so."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from builders import UTR, build_receipt, build_signed_key_list, build_statement, build_terms
from client_world import ROOT
from disk_model import Files
from power.os_trace import OsTrace, image_of, write_out

from paygate.client.payment import Payment, PaymentState
from paygate.client.pending import PendingStore
from paygate.codec.seal import envelope_hash
from paygate.files.durable import replace_file
from paygate.files.state_dir import StateDir

TEARING_COUNT = 12


class Cuts:
    """What a directory may look like after a power cut at any time while something was done to it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.before = image_of(root)
        self.trace = OsTrace(root)
        self.ends: list[int] = []
        """How many operations there had been when each thing that was done was over."""

    def do(self, *actions: Callable[[], object]) -> "Cuts":
        """Do these things, one after the other."""
        with self.trace.recording():
            for action in actions:
                action()
                self.ends.append(len(self.trace.operations))
        self.trace.check(self.before)
        assert self.ends[-1] == len(self.trace.operations) > 0
        return self

    def contents(self, tearing_count: int = TEARING_COUNT) -> Iterator[tuple[int, dict[str, bytes]]]:
        """What is on the disk after each of so many cuts at each point, and how many of the things were over then."""
        files = Files(self.before)
        operations = self.trace.operations
        for point in range(len(operations) + 1):
            done_count = sum(end <= point for end in self.ends)
            for tearing in range(tearing_count):
                image, _ = files.after_cut(Random(f"{point} {tearing}"))
                yield done_count, Files(image).contents()
            if point < len(operations):
                files.do(operations[point])


def contents_by_done(cuts: Cuts, name: str) -> list[set[bytes | None]]:
    """What a file may hold, by how many of the things were over; None if it may be missing."""
    found: list[set[bytes | None]] = [set() for _ in range(len(cuts.ends) + 1)]
    for done_count, contents in cuts.contents():
        found[done_count].add(contents.get(name))
    return found


OLD, NEW = b"old" * 1_000, b"new" * 2_000


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    cuts = Cuts(tmp_path).do(lambda: replace_file(path, [NEW[:1_000], NEW[1_000:]]))
    assert contents_by_done(cuts, "file") == [{OLD, NEW}, {NEW}]


def test_a_secret_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    cuts = Cuts(tmp_path).do(
        lambda: state.write_secret("key", OLD), lambda: state.write_secret("key", NEW, overwrite=True)
    )
    assert contents_by_done(cuts, "key") == [{None, OLD}, {OLD, NEW}, {NEW}]


def test_a_cut_leaves_nothing_in_the_way_of_the_next_try(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    state = StateDir(tmp_path / "state")
    cuts = Cuts(state.path).do(lambda: state.write_secret("key", OLD))
    leftovers = set()
    for number, (_, contents) in enumerate(cuts.contents()):
        other = tmp_path / str(number)
        write_out(contents, other)
        leftovers |= set(contents) - {"key"}
        StateDir(other).write_secret("key", NEW, overwrite="key" in contents)
        assert {p.name: p.read_bytes() for p in other.iterdir()} == {"key": NEW}
        shutil.rmtree(other)
    assert leftovers == {".key.new"}


def test_without_a_sync_or_in_another_order_it_would_be_found(tmp_path: Path) -> None:
    def careless() -> None:
        (tmp_path / "file").unlink()
        (tmp_path / "new").rename(tmp_path / "file")

    (tmp_path / "file").write_bytes(OLD)
    (tmp_path / "new").write_bytes(NEW)
    assert contents_by_done(Cuts(tmp_path).do(careless), "file") == [{OLD, None}, {OLD, NEW, None}]


# -- the client --------------------------------------------------------------------------------------------------


def pending(number: int) -> Payment:
    return Payment(
        terms=build_terms(payment_id=bytes([number] * 16)),
        envelope_hash=envelope_hash(b"envelope"),
        passcode="4321",
        merchant_name="Bücher & Töchter",
        gateway="127.0.0.1:15000",
        root=ROOT,
        signed_key_list=build_signed_key_list(),
    )


def paid(payment: Payment) -> Payment:
    receipt = build_receipt(build_statement(terms=payment.terms, envelope_hash=payment.envelope_hash))
    return replace(payment, state=PaymentState.PAID, utr=UTR, receipt=receipt, ended_ms=1_767_312_000_123)


@pytest.mark.parametrize("place", ["client", "new/newer/client", "left/new/client"])
def test_what_the_client_wrote_down_before_it_paid_is_there_after_any_cut(tmp_path: Path, place: str) -> None:
    root = tmp_path / "disk"
    root.mkdir()
    store = PendingStore(root / place)
    first, second = pending(1), pending(2)
    steps: list[tuple[Callable[[], object], dict[bytes, Payment], int]] = [
        ((root / "left").mkdir, {}, 0),  # as a program that was killed leaves it, without a sync
        (store.create, {}, 0),
        (lambda: store.save(first), {first.payment_id: first}, 0),
        (lambda: store.keep_serial(ROOT, 7), {first.payment_id: first}, 7),
        (lambda: store.save(second), {first.payment_id: first, second.payment_id: second}, 7),
        (lambda: store.save(paid(first)), {first.payment_id: paid(first), second.payment_id: second}, 7),
        (lambda: store.save_receipt(paid(first), b"{}"), {first.payment_id: paid(first), second.payment_id: second}, 7),
        (lambda: store.keep_serial(ROOT, 8), {first.payment_id: paid(first), second.payment_id: second}, 8),
    ]
    cuts = Cuts(root).do(*(action for action, _, _ in steps))
    other = tmp_path / "after"
    for done_count, contents in cuts.contents(3):
        write_out(contents, other)
        after = PendingStore(other / place)
        if done_count > 1:
            allowed = steps[done_count - 1 : done_count + 1]
            found = {payment.payment_id: payment for payment in after.load_all()}
            assert (found, after.serial_min(ROOT)) in [(payments, serial) for _, payments, serial in allowed]
            if done_count > 6:
                assert after.receipt_path(paid(first)).read_bytes() == b"{}"
        after.create()
        after.save(second)
        assert after.load(second.payment_id) == second
        shutil.rmtree(other)
