"""Bugs of a bank in framing, links, requests and refusals; which case each must fail stands in `bugs`."""

import dataclasses
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from conform.double import Fault, Pipe, correlation_of, frames_in, is_kind, message_of, remade

from paygate.codec import limits
from paygate.codec.codes import Kind
from paygate.codec.errors import ErrorCode
from paygate.codec.frame import MAGIC, frame_checksum, frame_mac
from paygate.codec.messages import Echo, EchoReply, Error, Hello, Message
from paygate.codec.record_codec import encode_record
from paygate.conform.craft import body_with, draft

# -- how a bank refuses ----------------------------------------------------------------------------------


class WrongCode(Fault):
    """Every Error that closes says INTERNAL."""

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        message = message_of(frame)
        if isinstance(message, Error) and message.closes:
            body = encode_record(dataclasses.replace(message, code=ErrorCode.INTERNAL))
            frame = remade(frame, pipe.link_key, body=body)
        pipe.to_kit(frame)


class Tolerates(Fault):
    """No Error is sent and no link is closed: what is wrong is passed over."""

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        if not is_kind(frame, Kind.ERROR):
            pipe.to_kit(frame)

    def bank_ended(self, pipe: Pipe) -> None:
        pass


class NeverCloses(Fault):
    """After an Error that closes the link stays open."""

    def bank_ended(self, pipe: Pipe) -> None:
        pass


class ClosesSilently(Fault):
    """The link is closed without an Error."""

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        if not is_kind(frame, Kind.ERROR):
            pipe.to_kit(frame)


class NumbersErrors(Fault):
    """An Error that closes carries another correlation ID than 0."""

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        pipe.to_kit(remade(frame, pipe.link_key, correlation_id=1) if is_kind(frame, Kind.ERROR) else frame)


class SaysItGoesOn(Fault):
    """An Error that closes says that it does not."""

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        message = message_of(frame)
        if isinstance(message, Error):
            frame = remade(frame, pipe.link_key, body=body_with(message, "closes", b"\0"))
        pipe.to_kit(frame)


class WaitsForBody(Fault):
    """A frame is looked at only when it is there as a whole."""

    def from_kit(self, pipe: Pipe, data: bytes) -> None:
        pipe.held.append(data)
        frames = frames_in(b"".join(pipe.held))
        # The last one may be unfinished; what is no frame at all is passed on.
        rest = frames.pop() if frames and frames[-1][:2] == MAGIC and not _is_whole(frames[-1]) else b""
        pipe.held[:] = [rest] if rest else []
        pipe.to_bank(b"".join(frames))


def _is_whole(frame: bytes) -> bool:
    return len(frames_in(frame)) == 1 and len(frame) >= limits.HEADER_SIZE and _declared_size(frame) == len(frame)


def _declared_size(frame: bytes) -> int:
    authenticated = limits.MAC_SIZE if frame[5] & 1 else 0
    return limits.HEADER_SIZE + int.from_bytes(frame[6:8]) + authenticated


# -- frames ----------------------------------------------------------------------------------------------


class _OfFrames(Fault):
    """Alters the frames of what the kit sends; what is no frame passes."""

    def from_kit(self, pipe: Pipe, data: bytes) -> None:
        pipe.to_bank(b"".join(self.altered(pipe, frame) for frame in frames_in(data)))

    def altered(self, pipe: Pipe, frame: bytes) -> bytes:
        raise NotImplementedError


class TakesAnyChecksum(_OfFrames):
    """The checksum is not looked at: a wrong one is repaired, and the frame served."""

    def altered(self, pipe: Pipe, frame: bytes) -> bytes:
        if len(frame) < limits.HEADER_SIZE + limits.MAC_SIZE or pipe.link_key is None:
            return frame
        signed = frame[: -limits.MAC_SIZE]
        if frame[-limits.MAC_SIZE :] != frame_mac(pipe.link_key, signed):
            return frame  # for another check
        signed = signed[:16] + frame_checksum(signed).to_bytes(4) + signed[limits.HEADER_SIZE :]
        return signed + frame_mac(pipe.link_key, signed)


class TakesAnyMac(_OfFrames):
    """The MAC is not looked at: whatever it is, the frame is served."""

    def altered(self, pipe: Pipe, frame: bytes) -> bytes:
        if len(frame) < limits.HEADER_SIZE + limits.MAC_SIZE or pipe.link_key is None or not frame[5] & 1:
            return frame
        return frame[: -limits.MAC_SIZE] + frame_mac(pipe.link_key, frame[: -limits.MAC_SIZE])


class ComparesHalfTheMac(_OfFrames):
    """Only the first 8 bytes of the MAC are compared."""

    def altered(self, pipe: Pipe, frame: bytes) -> bytes:
        if len(frame) < limits.HEADER_SIZE + limits.MAC_SIZE or pipe.link_key is None or not frame[5] & 1:
            return frame
        right = frame_mac(pipe.link_key, frame[: -limits.MAC_SIZE])
        return frame[:-8] + right[8:]


class OneFrameASegment(Fault):
    """Of what comes in one segment only the first frame is seen."""

    def from_kit(self, pipe: Pipe, data: bytes) -> None:
        pipe.to_bank(frames_in(data)[0])


class SegmentIsFrame(Fault):
    """A segment is taken for a frame: one that is shorter than a header is refused."""

    def from_kit(self, pipe: Pipe, data: bytes) -> None:
        if len(data) < limits.HEADER_SIZE:
            pipe.fail(ErrorCode.TRUNCATED_FIELD)
        else:
            pipe.to_bank(data)


class SmallBuffer(Fault):
    """Frames above 1 KiB are refused as too large."""

    def from_kit(self, pipe: Pipe, data: bytes) -> None:
        if len(data) > 1_024:
            pipe.fail(ErrorCode.BODY_TOO_LARGE)
        else:
            pipe.to_bank(data)


class NoMacOnReplies(Fault):
    """Replies carry no MAC."""

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        made = draft(message, None, correlation_of(frame)).encode() if (message := message_of(frame)) else frame
        pipe.to_kit(made)


class ChecksumOverMac(Fault):
    """The checksum of what the bank sends is wrong by a bit."""

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        assert pipe.link_key is not None or is_kind(frame, Kind.ERROR)
        pipe.to_kit(remade(frame, pipe.link_key, checksum=frame_checksum(frame[:-16]) ^ 1))


# -- hello, links, requests ------------------------------------------------------------------------------


@dataclasses.dataclass
class AltersReply(Fault):
    """Alters the bank's messages of one class."""

    cls: type[Message]
    alter: Callable[[Any], Message]

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        message = message_of(frame)
        if isinstance(message, self.cls):
            frame = remade(frame, pipe.link_key, body=encode_record(self.alter(message)))
        pipe.to_kit(frame)


class FirstVersionOnly(Fault):
    """Only the first of the versions in a Hello is looked at."""

    def from_kit(self, pipe: Pipe, data: bytes) -> None:
        message = message_of(data)
        if isinstance(message, Hello) and message.versions[0] != 1:
            pipe.fail(ErrorCode.NO_COMMON_VERSION)
        else:
            pipe.to_bank(data)


class ShortCorrelation(Fault):
    """Correlation IDs are kept in 32 bits."""

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        pipe.to_kit(remade(frame, pipe.link_key, correlation_id=correlation_of(frame) & 0xFFFF_FFFF))


class ZeroIsNoCorrelation(Fault):
    """A request with correlation ID 0 is refused."""

    def from_kit(self, pipe: Pipe, data: bytes) -> None:
        if correlation_of(data) == 0:
            pipe.fail(ErrorCode.BAD_VALUE)
        else:
            pipe.to_bank(data)


class NumbersAreUsedUp(Fault):
    """A correlation ID may be used only once on a link."""

    def __init__(self) -> None:
        self._used: set[tuple[Pipe, int]] = set()

    def from_kit(self, pipe: Pipe, data: bytes) -> None:
        key = (pipe, correlation_of(data))
        if key in self._used:
            pipe.fail(ErrorCode.DUPLICATE_CORRELATION)
        else:
            self._used.add(key)
            pipe.to_bank(data)


class OverwritesDuplicate(Fault):
    """A second request under a waiting correlation ID takes the first one's place, without a word."""

    def from_kit(self, pipe: Pipe, data: bytes) -> None:
        frames = frames_in(data)
        pipe.to_bank(b"".join({correlation_of(frame): frame for frame in frames}.values()))


class AnswersInOrder(Fault):
    """Two replies in a row have each other's correlation IDs."""

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        if not is_kind(frame, Kind.BANK_KEYS):
            pipe.to_kit(frame)
            return
        pipe.held.append(frame)
        if len(pipe.held) == 2:
            first, second = pipe.held
            pipe.to_kit(remade(first, pipe.link_key, correlation_id=correlation_of(second)))
            pipe.to_kit(remade(second, pipe.link_key, correlation_id=correlation_of(first)))
            pipe.held.clear()


class LosesAReply(Fault):
    """Of a hundred EchoReplies one is lost."""

    def __init__(self, of_count: int = 50) -> None:
        self._of_count = of_count
        self._seen: Counter[Pipe] = Counter()

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        self._seen[pipe] += is_kind(frame, Kind.ECHO_REPLY)
        if not is_kind(frame, Kind.ECHO_REPLY) or self._seen[pipe] % self._of_count:
            pipe.to_kit(frame)


class AnswersErrors(Fault):
    """An Error is answered by an Error."""

    def from_kit(self, pipe: Pipe, data: bytes) -> None:
        if is_kind(data, Kind.ERROR):
            pipe.fail(ErrorCode.INTERNAL)
        else:
            pipe.to_bank(data)


class OneForAll(Fault):
    """When one link fails, all links are closed."""

    def bank_ended(self, pipe: Pipe) -> None:
        for other in pipe.double.pipes:
            other.close()


class ReadsOn(Fault):
    """After an Error that closes the rest is served all the same."""

    def from_kit(self, pipe: Pipe, data: bytes) -> None:
        later = [frame for frame in (data[20:44], data[20:64]) if isinstance(message_of(frame), Echo)]
        pipe.held += later
        pipe.to_bank(data)

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        pipe.to_kit(frame)
        if is_kind(frame, Kind.ERROR) and pipe.held:
            echo = message_of(pipe.held[0])
            assert isinstance(echo, Echo)
            pipe.message_to_kit(EchoReply(echo.echo_data), correlation_of(pipe.held[0]))


class ForgetsQueued(Fault):
    """What was queued when a fault is found is thrown away."""

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        if is_kind(frame, Kind.ECHO_REPLY):
            pipe.held.append(frame)
        else:
            pipe.to_kit(frame)


class TakesBack(Fault):
    """A fault in a segment takes back what was asked before it in the same segment."""

    def from_kit(self, pipe: Pipe, data: bytes) -> None:
        frames = frames_in(data)
        pipe.to_bank(data if message_of(frames[-1]) else frames[-1])


class NeverHearsTheEnd(Fault):
    """The end of the stream is not noticed."""

    def kit_ended(self, pipe: Pipe) -> None:
        pass


class EndIsAFault(Fault):
    """The end of the stream between two frames is answered by an Error."""

    def kit_ended(self, pipe: Pipe) -> None:
        pipe.fail(ErrorCode.TRUNCATED_FRAME)


class EndCancels(Fault):
    """The end of a link cancels what it asked for."""

    def from_kit(self, pipe: Pipe, data: bytes) -> None:
        if is_kind(data, Kind.TRANSFER_REQUEST):
            pipe.double.loop.call_later(200, partial(pipe.to_bank_unless_closed, data))
        else:
            pipe.to_bank(data)

    def kit_ended(self, pipe: Pipe) -> None:
        pipe.close()


class TooManyRequests(Fault):
    """After a thousand requests on one link the next are refused."""

    def __init__(self) -> None:
        self._seen: Counter[Pipe] = Counter()

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        self._seen[pipe] += 1
        if self._seen[pipe] > 1_000:
            error = Error(ErrorCode.TOO_MANY_REQUESTS, closes=False, text="")
            pipe.message_to_kit(error, correlation_of(frame))
        else:
            pipe.to_kit(frame)


@dataclasses.dataclass
class TimesOut(Fault):
    """Fails a link with this code so long after it connected."""

    code: ErrorCode
    after_ms: int

    def from_kit(self, pipe: Pipe, data: bytes) -> None:
        self._arm(pipe)
        pipe.to_bank(data)

    def _arm(self, pipe: Pipe) -> None:
        if not pipe.held:
            pipe.held.append(b"armed")
            pipe.double.loop.call_later(self.after_ms, partial(pipe.fail, self.code))
