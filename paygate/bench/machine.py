"""What the machine itself can do: syncs, opened envelopes and loopback round trips a second, the limits of any payment.

    python -m paygate.bench.machine echo                         a server that sends back what it gets
    python -m paygate.bench.machine hpke SUITE SECONDS           opens envelopes, and says how many a second

Both are for this module, which starts them, and end with their stdin.
"""

import contextlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from paygate.bench.orders import suite_name
from paygate.bench.peers.child import Child
from paygate.bench.peers.loopback import READY, SIZE_SIZE, ClosedLoop, framed, serve
from paygate.bench.peers.peer import PeerFailed
from paygate.children import child_argv
from paygate.codec import limits
from paygate.codec.codes import KemId
from paygate.codec.seal import SealingKey, open_envelope, seal_credentials
from paygate.codec.sealed import Terms

SECONDS: Final = 1.0
WRITE_SIZE: Final = 4096
"""What a sync is measured with: a page, as databases append them."""
ECHO_CONNECTION_COUNT: Final = 64
ECHO_SIZE: Final = 374
"""A frame of encrypted credentials with X25519 in the codec's examples; the largest that a client sends with it."""
_MODULE: Final = "paygate.bench.machine"
_WARM_UP_COUNT: Final = 100
_SPARE_S: Final = 30
"""What a child may take beyond its measurement."""


def measure_limits(directory: Path, seconds: float = SECONDS) -> dict[str, float]:
    """All limits by name, per second; `seconds` each, one after the other. Files go below `directory`, which exists.

    Raises PeerFailed.
    """
    limits_per_second = {f"append {WRITE_SIZE // 1024} KiB and fdatasync": sync_rate(directory, seconds)}
    for kem_id in KemId:
        for process_count, processes in ((1, "one process"), (2, "two processes")):
            name = f"open HPKE envelopes, {suite_name(kem_id)}, {processes}"
            limits_per_second[name] = hpke_open_rate(directory, kem_id, process_count, seconds)
    name = f"echo {ECHO_SIZE} bytes over loopback, {ECHO_CONNECTION_COUNT} connections"
    limits_per_second[name] = echo_rate(directory, seconds=seconds)
    return limits_per_second


def sync_rate(directory: Path, seconds: float = SECONDS) -> float:
    """Appends of WRITE_SIZE bytes to one file, each followed by fdatasync: a durable commit needs at least one."""
    path = directory / "sync"
    page = bytes(WRITE_SIZE)
    count = 0
    try:
        with path.open("wb", buffering=0) as file:
            began_s = time.perf_counter()
            while (second := time.perf_counter() - began_s) < seconds:
                file.write(page)
                os.fdatasync(file.fileno())
                count += 1
    finally:
        path.unlink(missing_ok=True)
    return count / second


def hpke_open_rate(directory: Path, kem_id: KemId, process_count: int, seconds: float = SECONDS) -> float:
    """Envelopes opened and decoded as the bank's decoder does, by so many processes at once. Raises PeerFailed."""
    argv = child_argv(_MODULE, "hpke", kem_id.name, str(seconds))
    with contextlib.ExitStack() as stack:
        children = [
            stack.enter_context(Child(argv, directory / f"hpke-{n}.log", rb"ready\n")) for n in range(process_count)
        ]
        for child in children:
            child.say(b"go\n")
        return sum(_rate_of(child.wait(seconds + _SPARE_S)) for child in children)


def echo_rate(
    directory: Path,
    connection_count: int = ECHO_CONNECTION_COUNT,
    size: int = ECHO_SIZE,
    seconds: float = SECONDS,
) -> float:
    """Round trips of `size` bytes between this process and an epoll server that sends back what it gets.

    Each connection has one under way. Raises PeerFailed.
    """
    request = framed(bytes(size - SIZE_SIZE))
    with Child(child_argv(_MODULE, "echo"), directory / "echo.log", READY) as server:
        load = ClosedLoop(int(server.ready_match[1]), [request], request[SIZE_SIZE:])
        return load.measure(connection_count, seconds).rate


def _rate_of(log: str) -> float:
    try:
        return float(log.splitlines()[-1])
    except (IndexError, ValueError):
        raise PeerFailed(f"a child that opens envelopes said {log[-200:]!r}") from None


# -- the children ------------------------------------------------------------------------------------------


def _echo(data: bytes) -> tuple[bytes, bytes]:
    return data, b""


def _open_for(kem_id: KemId, seconds: float) -> float:
    """How many are opened per second, from when our parent says so."""
    key = SealingKey.generate(kem_id)
    suite_key = key.public_suite_key()
    terms = Terms(
        bank_id="BENCHBANK",
        gateway_id="bench-gateway",
        merchant_id="M000",
        transaction_id="T000001",
        payment_id=b"\1" * limits.PAYMENT_ID_SIZE,
        session_id=b"\1" * limits.SESSION_ID_SIZE,
        amount_minor=1_250,
        currency="INR",
        authorised_at_ms=0,
    )
    password_key, nonce = b"\1" * limits.PASSWORD_KEY_SIZE, b"\1" * limits.ENVELOPE_NONCE_SIZE
    envelope = seal_credentials(suite_key, terms, "customer", password_key, nonce)
    for _ in range(_WARM_UP_COUNT):
        open_envelope(key, suite_key.key_id, terms, envelope)
    _say("ready")
    sys.stdin.readline()
    count = 0
    began_s = time.perf_counter()
    while (second := time.perf_counter() - began_s) < seconds:
        open_envelope(key, suite_key.key_id, terms, envelope)
        count += 1
    return count / second


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _main(arguments: Sequence[str]) -> None:
    match arguments:
        case ["echo"]:
            serve(_echo)
        case ["hpke", suite, seconds]:
            _say(str(_open_for(KemId[suite], float(seconds))))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    _main(sys.argv[1:])
