"""The decoder child: alone holds the bank's sealing keys and the pepper (R23).

    python -m paygate.bank.decoder --state DIR            frames on stdin and stdout, for the bank
    python -m paygate.bank.decoder --text --state DIR     one JSON object a line, for people

It reads all that is there, answers it in one write, and ends when its stdin does. It is started by the bank that it
serves, so a malformed frame is a bug of ours: it ends with an error, and never tries to go on. What an envelope
holds comes from strangers: whatever is wrong with one is an answer.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from paygate.bank.keys import decoder_secrets_mtime_ns, load_pepper, load_sealing_keys
from paygate.cli import ExitCode, PaygateExit, run
from paygate.codec import limits
from paygate.codec.buffer import FrameBuffer, take_messages
from paygate.codec.codes import Kind, SealStatus
from paygate.codec.errors import RemoteProtocolError
from paygate.codec.frame import encode_frame
from paygate.codec.jsonform import BadJson, from_json, to_json
from paygate.codec.messages import MakeVerifier, Message, OpenedEnvelope, OpenEnvelope, Verifier
from paygate.codec.seal import NotOpened, decrypt_envelope, password_key, read_credentials, verifier_of
from paygate.files.durable import write_all
from paygate.hardening import protect_process
from paygate.making import maker_of

PROGRAM: Final = "paygate-decoder"
READ_SIZE: Final = 64 * 1024
"""What a pipe holds; some forty envelopes a read."""

_STDIN, _STDOUT = 0, 1
_REQUESTS: Final = frozenset({Kind.OPEN_ENVELOPE, Kind.MAKE_VERIFIER})
_make_opened: Final = maker_of(OpenedEnvelope)
_SETTLE_NS: Final = 1_000_000_000  # a directory changed so recently may change again within its timestamp's step


class Decoder:
    """Opens envelopes and makes verifiers."""

    def __init__(self, directory: Path) -> None:
        """Load the secrets of a bank's state directory. Raises StateError."""
        self._directory = directory
        self._pepper = load_pepper(directory)
        self._load_keys()

    def reload_if_changed(self) -> None:
        """Take new and retired keys over (T12): one stat. Raises StateError."""
        if decoder_secrets_mtime_ns(self._directory) != self._loaded_mtime_ns:
            self._load_keys()

    def answer(self, request: Message) -> Message:
        """The reply to a request. Raises PaygateExit for a message that a decoder isn't asked."""
        return self.answers([request])[0]

    def answers(self, requests: Iterable[Message]) -> list[Message]:
        """The replies to some requests, in their order. Raises PaygateExit for a message that a decoder isn't asked."""
        # First all envelopes are decrypted, then all else is done, since the processor's caches hold the code of either
        # and not of both: an envelope takes a sixth less time.
        found = [self._look(request) for request in requests]
        return [self._reply(one) for one in found]

    def _look(self, request: Message) -> bytes | SealStatus | Verifier:
        """What was sealed in an envelope, why that can't be told, or a new password's verifier."""
        if isinstance(request, OpenEnvelope):
            key = self._keys.get(request.key_id)
            if key is None:
                return SealStatus.KEY_RETIRED
            try:
                return decrypt_envelope(key, request.key_id, request.terms, request.envelope)
            except NotOpened:
                return SealStatus.NOT_OPENED
        if isinstance(request, MakeVerifier):
            key_of_password = password_key(request.password_key, request.bank_id, request.user_id, request.password)
            return Verifier(verifier_of(self._pepper, key_of_password))
        raise PaygateExit(f"expected OPEN_ENVELOPE or MAKE_VERIFIER, got {request.kind.name}")

    def _reply(self, found: bytes | SealStatus | Verifier) -> Message:
        if isinstance(found, bytes):
            try:
                credentials = read_credentials(found)
            except NotOpened:
                return _failed(SealStatus.NOT_OPENED)
            verifier = verifier_of(self._pepper, credentials.password_key)
            return _make_opened(SealStatus.DONE, credentials.user_id, verifier)
        return found if isinstance(found, Verifier) else _failed(found)

    def _load_keys(self) -> None:
        mtime_ns = decoder_secrets_mtime_ns(self._directory)
        self._keys = load_sealing_keys(self._directory)
        self._loaded_mtime_ns = mtime_ns if time.time_ns() - mtime_ns > _SETTLE_NS else None


def _failed(status: SealStatus) -> OpenedEnvelope:
    return OpenedEnvelope(status, "-", bytes(limits.VERIFIER_SIZE))


def serve_frames(decoder: Decoder, read: Callable[[], bytes], write: Callable[[bytes], None]) -> None:
    """Answer frames until `read` gives nothing. Raises PaygateExit for a malformed one."""
    buffer = FrameBuffer()
    try:
        while data := read():
            requests = list(take_messages(buffer, data, _REQUESTS))
            if requests:
                decoder.reload_if_changed()
                replies = decoder.answers([message for _, _, message in requests])
                tags = [tag for _, tag, _ in requests]
                write(b"".join(map(encode_frame, replies, tags)))
        buffer.receive_eof()
    except RemoteProtocolError as error:
        raise PaygateExit(f"malformed frame on stdin: {error.text}") from None


def serve_text(decoder: Decoder, lines: Sequence[str] | None = None) -> None:
    """Open one envelope a line, as `scripts/encode` prints them, until stdin ends. Raises PaygateExit."""
    for number, line in enumerate(sys.stdin if lines is None else lines, 1):
        if not line.strip():
            continue
        try:
            request = from_json(OpenEnvelope, json.loads(line))
        except BadJson as error:
            raise PaygateExit(f"line {number}: {error}", ExitCode.USAGE) from None
        except (ValueError, RecursionError):
            raise PaygateExit(f"line {number}: expected one JSON object", ExitCode.USAGE) from None
        sys.stdout.write(json.dumps(to_json(decoder.answer(request))) + "\n")
        sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Returns its exit code."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description="Opens envelopes with the bank's keys.")
    parser.add_argument("--state", required=True, type=Path, metavar="DIR", help="the bank's state directory")
    parser.add_argument("--text", action="store_true", help="one JSON object a line instead of frames")
    options = parser.parse_args(arguments)
    protect_process()  # T20: not inherited through exec
    decoder = Decoder(options.state)
    if options.text:
        serve_text(decoder)
    else:
        serve_frames(decoder, partial(os.read, _STDIN, READ_SIZE), partial(write_all, _STDOUT))
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(run(PROGRAM, main))
