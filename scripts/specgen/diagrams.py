"""State diagrams (Mermaid), drawn from the transition tables that the cores run."""

from collections.abc import Iterable
from typing import Final

from paygate.client import states as client_states
from paygate.gateway.payment import TOKEN_TRANSITIONS
from paygate.gateway.tokens import TokenState
from paygate.link_states import TRANSITIONS as LINK_TRANSITIONS
from paygate.link_states import LinkState
from specgen.tables import table


def state_diagram(starts: dict[str, str], steps: Iterable[tuple[str, str, str]]) -> str:
    """A fenced Mermaid state diagram; what leads from one state to another is drawn as one arrow.

    `starts`: each first state, and who begins there; empty if there is only one.
    """
    arrows: dict[tuple[str, str], list[str]] = {}
    for source, label, target in steps:
        arrows.setdefault((source, target), []).append(label)
    lines = ["```mermaid", "stateDiagram-v2"]
    lines += [f"    [*] --> {start}{f': {who}' if who else ''}" for start, who in starts.items()]
    lines += [f"    {source} --> {target}: {' / '.join(labels)}" for (source, target), labels in arrows.items()]
    return "\n".join([*lines, "```"])


def link_diagram() -> str:
    """Both ends of a link, from the table that `paygate/link.py` runs."""
    steps = [
        (state.name, entered.value, after.name)
        for state, row in LINK_TRANSITIONS.items()
        for entered, after in row.items()
        if state is not after
    ]
    starts = {LinkState.WAIT_HELLO: "answering end", LinkState.WAIT_HELLO_ACK: "caller, sends Hello"}
    return state_diagram({state.name: who for state, who in starts.items()}, steps)


def token_diagram() -> str:
    """A token at the gateway, from the table that `paygate/gateway/payment.py` runs."""
    steps = [
        (state.name, event.value, after.name)
        for state, row in TOKEN_TRANSITIONS.items()
        for event, after in row.items()
        if state is not after
    ]
    return state_diagram({TokenState.UNPAID.name: ""}, steps)


CLIENT_STATES: Final = client_states.State
CLIENT_EVENTS: Final = client_states.Event


def client_diagram() -> str:
    """The client's session, from the table that `paygate/client/states.py` runs."""
    steps = [
        (state.name, event.name, after.name)
        for state, row in client_states.TRANSITIONS.items()
        for event, after in row.items()
        if state is not after
    ]
    return state_diagram({client_states.State.CONNECTING.name: ""}, steps)


def client_events_table() -> str:
    """The words of the client's events."""
    return table(["event", "meaning"], [[event.name, event.value] for event in CLIENT_EVENTS])
