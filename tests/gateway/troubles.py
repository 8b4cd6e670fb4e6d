"""What may be the matter when a payment comes, and what it is told when it is refused."""

from gateway.world import World, payment_id

from paygate.codec.codes import PaymentStatus, Reason
from paygate.codec.messages import PaymentAck


def refused(payment: str, reason: Reason, utr: str = "") -> PaymentAck:
    """The refusal of the payment of that name."""
    return PaymentAck(payment_id(payment), PaymentStatus.REFUSED, reason, utr, b"")


def bank_is_away(world: World) -> None:
    """Its link is lost."""
    world.cut(world.bank)


def gateway_drains(world: World) -> None:
    """It is shutting down."""
    world.effects += world.core.drain(world.now)


def session_is_over(world: World) -> None:
    """Nothing is taken in it any more, and who waits has been told PENDING."""
    world.advance(28_000)


def gateway_restarts(world: World) -> None:
    """It is killed and started again, and has forgotten its sessions."""
    world.restart()


def disk_is_full(world: World) -> None:
    """No room from now on."""
    world.disk.is_full = True


TROUBLES = [bank_is_away, gateway_drains, session_is_over, gateway_restarts, disk_is_full]
