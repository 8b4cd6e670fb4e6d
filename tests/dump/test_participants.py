"""Who stands where in a diagram: order, identity, and more of one role than a diagram has room for."""

from paygate.codec.codes import Role
from paygate.dump.model import Endpoint, Flow, FlowKind, Side
from paygate.dump.participants import (
    ANSWERERS_MAX,
    LIFELINES_PER_ROLE_MAX,
    Ends,
    Lifeline,
    Lifelines,
    Roles,
    lifelines_of,
)

CLIENT_CALLS = Ends(Role.CLIENT, Role.GATEWAY)
GATEWAY_CALLS = Ends(Role.GATEWAY, Role.BANK)


def flow_to(port: int, *roles: Role | None, number: int = 1, party_ids: tuple[str, str] = ("", "")) -> Flow:
    """A connection to a port of which the roles are known."""
    flow = Flow(number, FlowKind.TCP, Endpoint("10.0.0.1", 40_000 + number), Endpoint("10.0.0.2", port))
    flow.roles = list(roles) or [None, None]
    flow.party_ids = list(party_ids)
    return flow


def test_one_role_that_is_known_tells_the_other() -> None:
    for flow, ends in (
        (flow_to(1, Role.CLIENT, None), CLIENT_CALLS),
        (flow_to(1, None, Role.GATEWAY), CLIENT_CALLS),
        (flow_to(1, Role.GATEWAY, None), GATEWAY_CALLS),
        (flow_to(1, None, Role.BANK), GATEWAY_CALLS),
    ):
        assert Roles().ends(flow, Side.CALLER, None) == ends
        assert Roles().ends(flow, Side.ANSWERER, None) == ends.swapped


def test_two_roles_that_have_no_link_are_strangers() -> None:
    for roles in ((Role.CLIENT, Role.BANK), (Role.GATEWAY, Role.GATEWAY), (Role.BANK, Role.CLIENT)):
        assert Roles().ends(flow_to(15_000, *roles), Side.CALLER, GATEWAY_CALLS) is None


def test_what_the_flow_tells_counts_more_than_the_message_and_that_more_than_the_port() -> None:
    assert Roles().ends(flow_to(15_001, Role.CLIENT, Role.GATEWAY), Side.CALLER, GATEWAY_CALLS) == CLIENT_CALLS
    assert Roles().ends(flow_to(15_001), Side.CALLER, CLIENT_CALLS) == CLIENT_CALLS
    assert Roles().ends(flow_to(15_001), Side.CALLER, None) == GATEWAY_CALLS
    assert Roles().ends(flow_to(15_000), Side.ANSWERER, None) == CLIENT_CALLS.swapped
    assert Roles().ends(flow_to(7_000), Side.CALLER, None) is None


def test_an_answerer_that_was_seen_is_known_again_up_to_a_bound() -> None:
    roles = Roles()
    for port in range(1, ANSWERERS_MAX + 2):
        assert roles.ends(flow_to(port, Role.GATEWAY, Role.BANK), Side.CALLER, None) == GATEWAY_CALLS
    assert roles.ends(flow_to(ANSWERERS_MAX), Side.CALLER, None) == GATEWAY_CALLS
    assert roles.ends(flow_to(ANSWERERS_MAX + 1), Side.CALLER, None) is None


def crossings(*flows: Flow) -> list[tuple[Lifeline, Lifeline]]:
    """Each flow's lifelines when its caller sends."""
    return [lifelines_of(flow, Side.CALLER, Roles().ends(flow, Side.CALLER, None)) for flow in flows]


def test_clients_stand_left_and_banks_right_whoever_came_first() -> None:
    lines = crossings(
        flow_to(15_001, Role.GATEWAY, Role.BANK, party_ids=("GW1", "BANK1")),
        flow_to(7_000, number=2),
        flow_to(15_000, Role.CLIENT, Role.GATEWAY, number=3, party_ids=("x", "GW1")),
        flow_to(15_000, Role.CLIENT, Role.GATEWAY, number=4, party_ids=("x", "GW1")),
    )
    drawn = Lifelines(lines)
    assert drawn.labels == ["client #3", "client #4", "gateway GW1", "bank BANK1", "10.0.0.1:40002", "10.0.0.2:7000"]
    assert [(drawn.column(a), drawn.column(b)) for a, b in lines] == [(2, 3), (4, 5), (0, 2), (1, 2)]


def test_a_party_without_an_id_is_the_only_one_that_has_one() -> None:
    lines = crossings(
        flow_to(15_001, Role.GATEWAY, Role.BANK, party_ids=("GW1", "")),
        flow_to(15_001, Role.GATEWAY, Role.BANK, number=2),
    )
    assert Lifelines(lines).labels == ["gateway GW1", "bank"]
    two = crossings(
        *(flow_to(15_001, Role.GATEWAY, Role.BANK, number=n, party_ids=(f"GW{n}", "")) for n in (1, 2)),
        flow_to(15_001, Role.GATEWAY, Role.BANK, number=3),
    )
    assert Lifelines(two).labels == ["gateway GW1", "gateway GW2", "gateway", "bank"]


def test_more_of_one_role_than_have_room_stand_on_one_lifeline() -> None:
    many = LIFELINES_PER_ROLE_MAX + 1
    lines = crossings(*(flow_to(15_000, Role.CLIENT, Role.GATEWAY, number=n) for n in range(1, many + 1)))
    assert Lifelines(lines[:-1]).labels == ["client #1", "client #2", "client #3", "client #4", "gateway"]
    drawn = Lifelines(lines)
    assert drawn.labels == ["5 clients", "gateway"]
    assert {drawn.column(client) for client, _ in lines} == {0}
