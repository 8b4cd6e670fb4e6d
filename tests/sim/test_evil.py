"""Those who lie do all that they can, and their victims lose nothing; what each lie needs to work is a mutant's job."""

import random
from collections import Counter
from dataclasses import replace

import pytest
from sim.evil import make_evil
from sim.invariants import Invariant
from sim.model import Model
from sim.plan import GatewayPlan, Plan, TokenPlan, draw_plan
from sim.world import World

from paygate.client.payment import Outcome

RUN_COUNT = 8
GATEWAY_TRICKS = {
    *("forward", "repeat", "alter", "hold", "resolve first", "lie at once", "use an accomplice", "keep for others"),
    *("pose as another", "break the link", "swallow", "false answers"),
}
CLIENT_TRICKS = {"replay", "replay altered", "ask", "pay", "throw", "ask for tokens"}


def _evil_plan(seed: int) -> Plan:
    """The seed's people, with a liar in the place of every second token's gateway, and one who listens."""
    source = random.Random(f"{seed}/evil plan")
    plan = draw_plan(source)
    honest = tuple(gateway for gateway in plan.gateways if not gateway.is_evil)
    liar = GatewayPlan("GWX", source.randbytes(32), True)
    moved: dict[str, TokenPlan] = {
        token.token.transaction_id: replace(token, gateway_id="GWX" if n % 2 else honest[0].gateway_id)
        for n, token in enumerate(plan.tokens)
    }
    shopping = tuple(replace(one, token=moved[one.token.token.transaction_id]) for one in plan.shopping)
    return replace(
        plan, gateways=(*honest, liar), tokens=tuple(moved.values()), shopping=shopping, has_evil_client=True
    )


@pytest.fixture(scope="module")
def worlds() -> list[World]:
    """Runs with both liars in them, judged."""
    made = []
    for seed in range(RUN_COUNT):  # one at a time, since their disks have the same names
        made.append(World(seed, Model(), make_evil=make_evil, plan=_evil_plan(seed)))
        made[-1].run()
    return made


def test_every_lie_is_told(worlds: list[World]) -> None:
    counts: Counter[str] = sum((world.counts for world in worlds), Counter())
    for name, tricks in (("evil gateway", GATEWAY_TRICKS), ("evil client", CLIENT_TRICKS)):
        told = {key.partition(": ")[2] for key in counts if key.startswith(f"{name}: ")}
        assert told == tricks


def test_victims_pay_and_doubt_and_are_never_believed_to_have_paid_what_they_did_not(worlds: list[World]) -> None:
    outcomes: Counter[Outcome] = Counter()
    for world in worlds:
        model = world.judge
        assert isinstance(model, Model)
        for payment_id, authorisation in model.clients.payments.items():
            if authorisation.terms.gateway_id == "GWX":
                outcomes[model.clients.last.get(payment_id, Outcome.FAILED)] += 1
    # The model has held each of these against the ledger; here is that there was something to hold.
    assert outcomes[Outcome.PAID] > 10
    assert outcomes[Outcome.DECLINED] > 3
    assert outcomes[Outcome.UNTRUSTED] + outcomes[Outcome.UNKNOWN] + outcomes[Outcome.REFUSED] > 10


def test_a_liar_with_the_same_seed_tells_the_same_lies() -> None:
    digests = set()
    for _ in range(2):
        world = World(5, Model(), make_evil=make_evil, plan=_evil_plan(5))
        world.run()
        digests.add(world.digest())
    assert len(digests) == 1


def test_every_invariant_says_what_it_means() -> None:
    assert {invariant.name for invariant in Invariant} >= {f"I{n}" for n in range(1, 11)}
    assert len({invariant.meaning for invariant in Invariant}) == len(Invariant)
