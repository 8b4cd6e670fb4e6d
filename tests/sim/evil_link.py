"""One connection of somebody who lies: an honest `Link` for what must hold, and the end itself for what need not."""

from collections.abc import Callable

from sim.agenda import MS
from sim.network import End

from paygate.codec.errors import LocalProtocolError
from paygate.codec.messages import Message
from paygate.link import Link
from paygate.link_events import LinkFailed, Opened, PeerClosed, ReplyReceived, RequestReceived

OnRequest = Callable[["EvilLink", int, Message], None]
"""The link, the correlation ID and what is asked."""
OnReply = Callable[["EvilLink", Message | None, Message], None]
"""The link, what was asked, and what is answered."""


class EvilLink:
    """Speaks the protocol, so that its lies are taken for words."""

    def __init__(
        self, end: End, link: Link, on_opened: Callable[["EvilLink"], None], on_request: OnRequest, on_reply: OnReply
    ) -> None:
        self.end = end
        self.link = link
        self._on_opened = on_opened
        self._on_request = on_request
        self._on_reply = on_reply
        self._asked: dict[int, Message] = {}

    def receive(self, data: bytes, now_us: int) -> None:
        """Bytes came."""
        for event in self.link.receive_data(data, now_us // MS):
            if isinstance(event, Opened):
                self._on_opened(self)
            elif isinstance(event, RequestReceived):
                self._on_request(self, event.correlation_id, event.message)
            elif isinstance(event, ReplyReceived):
                self._on_reply(self, self._asked.pop(event.correlation_id, None), event.message)
            elif isinstance(event, LinkFailed | PeerClosed):
                self.end.close_after_flush()
        self.flush()

    def ask(self, message: Message) -> None:
        """Send a request, if the link is open."""
        if self.link.is_open:
            self._asked[self.link.send_request(message)] = message
            self.flush()

    def answer(self, correlation_id: int, message: Message) -> None:
        """Answer a request; one that is answered already, or whose link is gone, is not answered again."""
        try:
            self.link.send_reply(correlation_id, message)
        except LocalProtocolError:
            return
        self.flush()

    def throw(self, data: bytes) -> None:
        """Send bytes that are no word of the link's."""
        self.flush()
        self.end.send(data)

    def flush(self) -> None:
        """Send what the link has queued."""
        self.end.send(self.link.data_to_send())
