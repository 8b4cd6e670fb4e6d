"""The encoder: a child program that alone turns a password into an envelope (R4, R23).

It speaks the ordinary frames over its stdin and stdout: SealCredentials in, SealedCredentials out, matched by
correlation ID; it ends when its stdin ends. A process of its own keeps countdown and SIGALRM prompt while
Argon2id runs. With `--text` it speaks to people instead: `encoder_text.py`.
"""

import os
import sys

from paygate.cli import PaygateExit, run
from paygate.codec import limits
from paygate.codec.buffer import FrameBuffer
from paygate.codec.errors import RemoteProtocolError
from paygate.codec.frame import Frame, encode_frame
from paygate.codec.messages import SealCredentials, SealedCredentials
from paygate.codec.seal import SealError, seal_request
from paygate.files.durable import write_all
from paygate.hardening import HardeningError, protect_process

PROGRAM = "paygate-encoder"
READ_SIZE = 65_536
_STDIN, _STDOUT = 0, 1


def answer(frame: Frame) -> bytes:
    """The frame that answers one request. Raises PaygateExit: the only peer is our own parent."""
    try:
        request = frame.message()
    except RemoteProtocolError as error:
        raise PaygateExit(f"a request could not be read: {error.text}") from None
    if not isinstance(request, SealCredentials) or frame.mac:
        raise PaygateExit(f"a {frame.kind.name} came, and only SEAL_CREDENTIALS can be served")
    try:
        envelope = seal_request(request, os.urandom(limits.ENVELOPE_NONCE_SIZE))
    except SealError as error:
        raise PaygateExit(str(error)) from None
    return encode_frame(SealedCredentials(envelope), frame.correlation_id)


def serve() -> int:
    """Answer requests from stdin until it ends."""
    buffer = FrameBuffer()
    while data := os.read(_STDIN, READ_SIZE):
        buffer.receive_data(data)
        try:
            while (frame := buffer.next_frame()) is not None:
                write_all(_STDOUT, answer(frame))
        except RemoteProtocolError as error:
            raise PaygateExit(f"a request could not be read: {error.text}") from None
    return 0


def main() -> int:
    """The program. T20: neither core file nor debugger may see what it holds."""
    try:
        protect_process()
    except HardeningError as error:
        raise PaygateExit(str(error)) from None
    if "--text" in sys.argv[1:]:
        from paygate.client.encoder_text import text_main

        return text_main(sys.argv[1:])
    return serve()


if __name__ == "__main__":
    sys.exit(run(PROGRAM, main))
