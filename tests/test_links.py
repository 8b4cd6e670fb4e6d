"""The table of a server's links: deadlines, effects of touched links only, and idle links that cost nothing."""

from collections import Counter
from typing import Any, ClassVar

import pytest
from builders import BANK_ID, GATEWAY_ID, LINK_KEY, build_token_ack, example
from hypothesis import given
from hypothesis import strategies as st

from paygate.codec.codes import Kind, Role
from paygate.codec.errors import ErrorCode, LocalProtocolError
from paygate.codec.frame import encode_frame
from paygate.codec.messages import BankKeysQuery, Echo, EchoReply, Hello
from paygate.effects import CloseLink, Send
from paygate.link import Link
from paygate.link_events import LinkFailed, Opened, PeerClosed, RequestReceived
from paygate.link_states import ECHO_AFTER_MS, ECHO_TIMEOUT_MS, FRAME_TIMEOUT_MS, HELLO_TIMEOUT_MS, IDLE_TIMEOUT_MS
from paygate.links import LinkTable

NOW_MS = 1_000_000
HELLO = encode_frame(Hello(role=Role.CLIENT, party_id="client", versions=(1,)), 1)
TOKEN_QUERY = example(Kind.TOKEN_QUERY)


def query(correlation_id: int) -> bytes:
    return encode_frame(TOKEN_QUERY, correlation_id)


def gateway_end(now_ms: int = NOW_MS, cls: type[Link] = Link) -> Link:
    return cls(Role.GATEWAY, GATEWAY_ID, Role.CLIENT, is_caller=False, now_ms=now_ms)


def table_with(count: int) -> LinkTable:
    """Open client links 1 to `count`; nothing waits to be sent."""
    table = LinkTable()
    for link_id in range(1, count + 1):
        table.add(link_id, gateway_end())
        assert table.receive_data(link_id, HELLO, NOW_MS) == [Opened(Role.CLIENT, "client")]
    table.effects()
    return table


# -- effects ---------------------------------------------------------------------------------------------


def test_what_links_say_is_sent_in_the_order_in_which_they_were_touched() -> None:
    table = table_with(3)
    for link_id in (3, 1):
        table.receive_data(link_id, encode_frame(Echo(b"12345678"), 9), NOW_MS)
    reply = encode_frame(EchoReply(b"12345678"), 9)
    assert table.effects() == [Send(3, reply), Send(1, reply)]
    assert table.effects() == []


def test_several_replies_of_one_link_leave_together() -> None:
    table = table_with(1)
    table.receive_data(1, query(5) + query(6), NOW_MS)
    for correlation_id in (6, 5):
        table.send_reply(1, correlation_id, build_token_ack())
    replies = encode_frame(build_token_ack(), 6) + encode_frame(build_token_ack(), 5)
    assert table.effects() == [Send(1, replies)]


def test_requests_leave_once_the_link_is_open_and_not_before() -> None:
    table = LinkTable()
    gateway = Link(Role.GATEWAY, GATEWAY_ID, Role.BANK, is_caller=True, now_ms=NOW_MS, link_key=LINK_KEY)
    bank = Link(Role.BANK, BANK_ID, Role.GATEWAY, is_caller=False, now_ms=NOW_MS, key_of={GATEWAY_ID: LINK_KEY}.get)
    table.add(1, gateway)
    (hello,) = table.effects()
    assert isinstance(hello, Send)
    table.send_request(1, BankKeysQuery(BANK_ID))
    assert table.effects() == []
    bank.receive_data(hello.data, NOW_MS)
    table.receive_data(1, bank.data_to_send(), NOW_MS)
    table.send_request(1, BankKeysQuery(BANK_ID))
    table.send_request(1, BankKeysQuery("another"))
    asked = [encode_frame(BankKeysQuery(bank_id), n, LINK_KEY) for n, bank_id in ((2, BANK_ID), (3, "another"))]
    assert table.effects() == [Send(1, b"".join(asked))]
    with pytest.raises(LocalProtocolError):
        table.send_request(1, TOKEN_QUERY)
    table.close(1, "done")
    table.send_request(1, BankKeysQuery(BANK_ID))
    assert table.effects() == [CloseLink(1, "done")]
    table.remove(1)
    table.send_request(1, BankKeysQuery(BANK_ID))
    assert table.effects() == []


def test_a_new_link_that_calls_says_hello() -> None:
    table = LinkTable()
    link = Link(Role.GATEWAY, GATEWAY_ID, Role.BANK, is_caller=True, now_ms=NOW_MS, link_key=LINK_KEY)
    table.add(7, link)
    hello = encode_frame(Hello(role=Role.GATEWAY, party_id=GATEWAY_ID, versions=(1,)), 1, LINK_KEY)
    assert table.effects() == [Send(7, hello)]


@pytest.mark.pg("PG-ERR-4", "PG-LNK-14", "PG-LNK-15")
def test_a_fault_sends_the_error_and_then_closes() -> None:
    table = table_with(2)
    events = table.receive_data(1, b"x" * 20, NOW_MS)
    assert [type(event) for event in events] == [LinkFailed]
    send, close = table.effects()
    assert isinstance(send, Send)
    assert close == CloseLink(1, "protocol: bad magic at magic: expected the letters PG")
    # The other link never notices (T35).
    assert table.receive_data(2, query(5), NOW_MS) == [RequestReceived(5, TOKEN_QUERY)]


def test_reasons_of_closing_are_kept_for_the_records() -> None:
    table = table_with(4)
    assert table.receive_eof(1) == [PeerClosed("end of stream")]
    table.close(2, "shutting down")
    link = table.get(3)
    assert link is not None
    link.close()
    table.receive_eof(4)
    table.close(4, "too late to be the reason")
    assert table.effects() == [
        CloseLink(1, "end of stream"),
        CloseLink(2, "shutting down"),
        CloseLink(3, "closed by us"),
        CloseLink(4, "end of stream"),
    ]


@pytest.mark.pg("PG-LNK-14")
def test_what_is_queued_leaves_before_the_close() -> None:
    table = table_with(1)
    table.receive_data(1, query(5), NOW_MS)
    table.send_reply(1, 5, build_token_ack())
    table.close(1, "done")
    assert table.effects() == [Send(1, encode_frame(build_token_ack(), 5)), CloseLink(1, "done")]


def test_a_reply_on_a_link_that_has_closed_is_swallowed() -> None:
    table = table_with(1)
    table.receive_data(1, query(5), NOW_MS)
    table.close(1, "done")
    table.send_reply(1, 5, build_token_ack())
    assert table.effects() == [CloseLink(1, "done")]


def test_a_reply_to_nothing_is_our_own_fault() -> None:
    table = table_with(1)
    table.receive_data(1, query(5), NOW_MS)
    with pytest.raises(LocalProtocolError):
        table.send_reply(1, 6, build_token_ack())
    with pytest.raises(LocalProtocolError):
        table.send_reply(1, 5, EchoReply(b"12345678"))


def test_a_link_that_is_gone_takes_and_gives_nothing() -> None:
    table = table_with(2)
    table.receive_data(1, query(5), NOW_MS)
    table.remove(1)
    table.remove(1)
    assert (len(table), 1 in table, 2 in table) == (1, False, True)
    assert table.get(1) is None
    assert table.receive_data(1, query(6), NOW_MS) == []
    assert table.receive_eof(1) == []
    table.send_reply(1, 5, build_token_ack())
    table.close(1, "gone")
    assert table.effects() == []
    assert table.receive_timer(NOW_MS + 10 * IDLE_TIMEOUT_MS)[0][0] == 2


def test_link_ids_are_used_once() -> None:
    table = table_with(1)
    with pytest.raises(AssertionError):
        table.add(1, gateway_end())


# -- deadlines -------------------------------------------------------------------------------------------


def test_no_links_no_deadline() -> None:
    table = LinkTable()
    assert table.next_deadline_ms() is None
    assert table.receive_timer(NOW_MS) == []


def test_each_link_has_its_own_deadline() -> None:
    table = LinkTable()
    for link_id in (1, 2, 3):
        table.add(link_id, gateway_end(NOW_MS + 100 * link_id))
    table.effects()
    assert table.next_deadline_ms() == NOW_MS + 100 + HELLO_TIMEOUT_MS
    table.receive_data(2, HELLO, NOW_MS + 250)
    table.effects()
    now_ms = NOW_MS + 300 + HELLO_TIMEOUT_MS
    assert table.receive_timer(now_ms - 201) == []
    told = table.receive_timer(now_ms)
    assert [link_id for link_id, _ in told] == [1, 3]
    for _, event in told:
        assert isinstance(event, LinkFailed)
        assert event.error.code is ErrorCode.HELLO_TIMEOUT
    assert [type(effect) for effect in table.effects()] == [Send, CloseLink, Send, CloseLink]
    # Link 2 said hello, so its next deadline is that of an idle link.
    assert table.receive_timer(NOW_MS + 250 + IDLE_TIMEOUT_MS - 1) == []
    assert [link_id for link_id, _ in table.receive_timer(NOW_MS + 250 + IDLE_TIMEOUT_MS)] == [2]


def test_a_dripping_frame_fails_in_time_though_the_idle_deadline_was_armed_first() -> None:
    table = table_with(1)
    table.receive_timer(NOW_MS + HELLO_TIMEOUT_MS)  # the hello's entry comes up; what is left is the idle deadline
    now_ms = NOW_MS + HELLO_TIMEOUT_MS + 1
    table.receive_data(1, b"P", now_ms)
    table.effects()
    assert table.next_deadline_ms() == now_ms + FRAME_TIMEOUT_MS
    ((link_id, event),) = table.receive_timer(now_ms + FRAME_TIMEOUT_MS)
    assert link_id == 1
    assert isinstance(event, LinkFailed)
    assert event.error.code is ErrorCode.FRAME_TIMEOUT


def test_a_link_test_leaves_by_itself() -> None:
    table = LinkTable()
    gateway = Link(Role.GATEWAY, GATEWAY_ID, Role.BANK, is_caller=True, now_ms=NOW_MS, link_key=LINK_KEY)
    bank = Link(Role.BANK, BANK_ID, Role.GATEWAY, is_caller=False, now_ms=NOW_MS, key_of={GATEWAY_ID: LINK_KEY}.get)
    table.add(1, gateway)
    bank.receive_data(gateway.data_to_send(), NOW_MS)
    table.receive_data(1, bank.data_to_send(), NOW_MS)
    assert table.effects() == []
    table.receive_timer(NOW_MS + HELLO_TIMEOUT_MS)
    assert table.receive_timer(NOW_MS + ECHO_AFTER_MS) == []
    echo = Echo((NOW_MS + ECHO_AFTER_MS).to_bytes(8))
    assert table.effects() == [Send(1, encode_frame(echo, 2, LINK_KEY))]
    assert table.next_deadline_ms() == NOW_MS + ECHO_AFTER_MS + ECHO_TIMEOUT_MS


def test_a_closed_link_has_no_deadline_left() -> None:
    table = table_with(1)
    table.close(1, "done")
    assert table.effects() == [CloseLink(1, "done")]
    assert table.receive_timer(NOW_MS + 10 * IDLE_TIMEOUT_MS) == []
    assert table.effects() == []


def test_a_link_that_waits_for_us_is_timed_again_once_answered() -> None:
    table = table_with(1)
    table.receive_data(1, query(5), NOW_MS)
    table.effects()
    assert table.receive_timer(NOW_MS + IDLE_TIMEOUT_MS) == []  # not idle: we owe it an answer
    link = table.get(1)
    assert link is not None
    link.send_reply(5, build_token_ack())
    table.effects()
    table.receive_data(1, query(6), NOW_MS + IDLE_TIMEOUT_MS + 1)
    link.send_reply(6, build_token_ack())
    table.effects()
    ((link_id, _),) = table.receive_timer(NOW_MS + 2 * IDLE_TIMEOUT_MS + 1)
    assert link_id == 1


# -- cost ------------------------------------------------------------------------------------------------


class CountingLink(Link):
    """A link that counts what the table asks of it."""

    calls: ClassVar[Counter[str]] = Counter()

    def data_to_send(self) -> bytes:
        self.calls["data_to_send"] += 1
        return super().data_to_send()

    def next_deadline_ms(self) -> int | None:
        self.calls["next_deadline_ms"] += 1
        return super().next_deadline_ms()

    def receive_timer(self, now_ms: int) -> list[Any]:
        self.calls["receive_timer"] += 1
        return super().receive_timer(now_ms)


def test_many_idle_links_cost_nothing() -> None:
    table = LinkTable()
    for link_id in range(5_000):
        table.add(link_id, gateway_end(cls=CountingLink))
        table.receive_data(link_id, HELLO, NOW_MS)
    table.effects()
    CountingLink.calls.clear()
    for tick in range(100):
        table.receive_data(42, encode_frame(Echo(b"12345678"), 9), NOW_MS + tick)
        table.receive_timer(NOW_MS + tick)
        assert [type(effect) for effect in table.effects()] == [Send]
        assert table.next_deadline_ms() is not None
    # One link was touched a hundred times; the 4,999 others were not looked at.
    # And its deadline only moved off, so it was not asked for.
    assert CountingLink.calls == {"data_to_send": 100}


def test_a_busy_link_does_not_pile_up_deadlines() -> None:
    # Each request is answered in a later tick, so between the two the link has no deadline at all.
    table = table_with(1)
    for i in range(1_000):
        table.receive_data(1, query(i), NOW_MS + i)
        table.effects()
        table.send_reply(1, i, build_token_ack())
        table.effects()
        table.receive_data(1, b"P", NOW_MS + i)  # a frame begins, and ends
        table.effects()
        table.receive_data(1, encode_frame(Echo(b"12345678"), 9)[1:], NOW_MS + i)
        table.effects()
    assert len(table._deadlines) <= 4
    ((link_id, event),) = table.receive_timer(NOW_MS + 999 + IDLE_TIMEOUT_MS)
    assert link_id == 1
    assert isinstance(event, LinkFailed)
    assert event.error.code is ErrorCode.IDLE_TIMEOUT


# -- whatever comes --------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "remove", "close", "eof", "reply", "tick", "data", "data"]),
        st.integers(1, 4),
        st.sampled_from([HELLO, query(5), query(6), query(7)[:30], b"P", b"x" * 20, query(5)[1:]]),
        st.integers(0, 20_000),
    ),
    max_size=40,
)


@given(STEPS)
def test_no_deadline_is_ever_missed(steps: list[tuple[str, int, bytes, int]]) -> None:
    table = LinkTable()
    links: dict[int, Link] = {}  # the same links, looked at without the table
    now_ms = NOW_MS
    for step, place, data, after_ms in steps:
        link_id = len(links) - len(links) % 4 + place if links else place
        link_id = link_id if link_id in links else max(links, default=0)
        if step == "add":
            link_id = max(links, default=0) + 1
            links[link_id] = gateway_end(now_ms)
            table.add(link_id, links[link_id])
        elif step == "remove":
            table.remove(link_id)
        elif step == "close":
            table.close(link_id, "a test")
        elif step == "eof":
            table.receive_eof(link_id)
        elif step == "data":
            table.receive_data(link_id, data, now_ms)
        elif step == "reply":
            link = table.get(link_id)
            for correlation_id in (5, 6, 7) if link else ():
                assert link is not None
                if correlation_id in link._to_answer:
                    link.send_reply(correlation_id, build_token_ack())
        elif step == "tick":
            now_ms += after_ms
            table.receive_timer(now_ms)
        table.effects()
        live = [link for link_id, link in links.items() if link_id in table]
        wanted = [d for link in live if (d := link.next_deadline_ms()) is not None]
        told = table.next_deadline_ms()
        assert not wanted or (told is not None and told <= min(wanted))
        assert all(deadline_ms > now_ms for deadline_ms in wanted) or step != "tick"
