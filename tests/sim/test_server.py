"""Servers' lives in a run: where they die, what ends them, and that what should not be survived is not."""

from collections.abc import Iterator

import pytest
from sim.agenda import MS, SECOND
from sim.faults import Conditions, FaultKind, fair
from sim.model import Model
from sim.server import START_AGAIN_US, ProcessDied
from sim.world import World

from paygate.codec.codes import Kind
from paygate.files.sqlite import StoreCorrupt, StoreFull

CALM = Conditions((), fair, 200)


@pytest.fixture
def world() -> Iterator[World]:
    """A world in which nothing fails but what a test says, a second after its beginning."""
    world = World(3, Model(), conditions=CALM)
    world._begin()
    world.agenda.run_until(SECOND)
    yield world
    world.close()


def run_on(world: World, us: int = 30 * SECOND) -> None:
    """Let time go by."""
    world.agenda.run_until(world.agenda.now_us + us)


@pytest.mark.parametrize("steps", range(6))
@pytest.mark.parametrize("loses_power", [False, True])
def test_a_server_dies_before_the_operation_that_was_said(world: World, steps: int, loses_power: bool) -> None:
    bank = world.bank
    first_life = bank.process
    kind = FaultKind.POWER_CUT if loses_power else FaultKind.KILL
    bank.die_after(steps, kind, loses_power=loses_power, down_us=5 * SECOND, at_disk=True)
    before = bank.disk.write_count
    while bank.process is first_life:
        run_on(world, 5 * MS)
        assert world.agenda.now_us < 60 * SECOND, "nothing was written"
    assert bank.disk.write_count - before <= steps
    assert world.counts[kind.value] == 1
    run_on(world, 4 * SECOND)
    assert bank.process is None
    run_on(world, SECOND)
    assert bank.process is not None
    assert bank.process is not first_life
    assert world.counts["restarts"] == 1


def test_a_failed_fsync_ends_a_server_once(world: World) -> None:
    world.bank.fail_fsync()
    while not world.counts[FaultKind.FSYNC_ERROR.value]:
        run_on(world, MS)
    assert world.bank.process is None
    run_on(world, START_AGAIN_US)
    assert world.bank.process is not None
    run_on(world)
    assert world.counts[FaultKind.FSYNC_ERROR.value] == world.counts["restarts"] == 1


def test_a_drained_server_starts_again(world: World) -> None:
    gateway = world.gateways[0]
    process = gateway.process
    assert process is not None
    gateway.run(process, process.begin_drain)
    run_on(world, 60 * SECOND)
    assert gateway.process is not process
    assert gateway.process is not None
    assert gateway.process.core.bank.is_open
    assert world.counts["restarts"] == 1


@pytest.mark.parametrize("error", [StoreCorrupt("it is damaged"), StoreFull("no room"), RuntimeError("a bug")])
def test_what_no_fault_explains_ends_the_run(world: World, error: Exception) -> None:
    process = world.bank.process
    assert process is not None

    def act() -> None:
        raise error

    with pytest.raises(type(error)):
        world.bank.run(process, act)
    assert world.bank.process is process


def test_a_full_disk_is_survived_and_explains_no_damage(world: World) -> None:
    bank = world.bank
    bank.fill_disk(None, 10 * SECOND)
    process = bank.process
    assert process is not None

    def act() -> None:
        raise StoreCorrupt("it is damaged")

    with pytest.raises(StoreCorrupt):
        bank.run(process, act)
    run_on(world, 11 * SECOND)
    assert bank.process is process
    assert not bank.disk.is_full


def test_a_customer_keeps_what_was_saved_and_no_more() -> None:
    world = World(3, Model(), conditions=CALM)
    try:
        customer = world.customers["C0"]
        customer.die_after(2)
        for _ in range(2):
            customer.step()
        with pytest.raises(ProcessDied):
            customer.step()
        customer.step()
    finally:
        world.close()


def test_a_liar_that_uses_an_honest_payment_id_is_noticed(world: World) -> None:
    judge = world.judge
    assert isinstance(judge, Model)
    world.authorised_us[b"p" * 16] = 0
    frame = bytes(3) + bytes([Kind.ENCRYPTED_CREDENTIALS]) + b"p" * 16
    question = bytes(3) + bytes([Kind.STATUS_QUERY]) + b"p" * 16
    world._look_for_meddling(question)
    assert judge.clients.meddled == set()
    world._look_for_meddling(frame)
    assert judge.clients.meddled == {b"p" * 16}
    assert all(b"p" * 16 in gateway.meddled for gateway in judge.gateways.values())
