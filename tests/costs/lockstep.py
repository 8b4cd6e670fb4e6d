"""Two real servers and a decoder in lock step, and the shoppers that pay through them.

A batch of n payments is n clients that each pay once, all at the same time. It is answered in five ticks: the
gateway's for the n token queries; its one for the n credentials; the bank's, which hands the envelopes to its decoder;
the bank's, which posts them; and the gateway's, which settles them. Then each has one in which it writes its text
records. Every byte of a batch is in a server's sockets before the tick for it begins.
"""

import contextlib
import json
import os
import random
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from unittest import mock

from builders import build_terms
from costs.counted_program import FREE, GO, HOLD, LATER, PRELOADED
from costs.faults import NO_FAULT
from costs.system_calls import SystemCall, read_ticks, strace_argv
from costs.wire import Unsteady, read_frame

from paygate.bank.keys import load_key_list
from paygate.bench.orders import (
    Order,
    Sealed,
    check_paid,
    decode_ack,
    decode_answer,
    make_customers,
    seal,
    suite_key_of,
)
from paygate.bench.system import CUSTOMER_COUNT, GATEWAY_ID, BenchSystem, order_of
from paygate.client.root import read_root
from paygate.clock import system_now
from paygate.codec import limits
from paygate.codec.buffer import FrameBuffer
from paygate.codec.codes import KemId, Role, SealStatus
from paygate.codec.frame import encode_frame
from paygate.codec.messages import BankKeys, BankKeysQuery, Hello, HelloAck, OpenedEnvelope, OpenEnvelope
from paygate.codec.seal import seal_credentials, verify_key_list
from paygate.files.state_dir import StateDir
from paygate.gateway.settings import read_identity
from paygate.link import Link
from paygate.net.addresses import Address
from paygate.net.listen import raise_descriptor_limit

ANSWER_S_MAX: Final = 30
"""For one tick: far above what the slowest machine takes, so that a program that hangs fails the test."""
_TESTS: Final = Path(__file__).parent.parent


@dataclass(slots=True)
class Tick:
    """What one tick of one program did."""

    counted: dict[str, int]
    """What the program's own hooks counted."""
    calls: list[SystemCall] = field(default_factory=list)
    """Its system calls, in order; filled in from strace's log at the end. Empty in a run that counts memory."""


class Program:
    """A counted program that is held before each of its ticks."""

    def __init__(self, role: str, directory: Path, library: Path | None) -> None:
        """`library`: the compiled `counting.c` if memory is to be counted; otherwise calls are."""
        directory.mkdir()
        self.role = role
        self.ticks: list[Tick] = []
        self.descriptors: dict[int, str] = {}
        """What it had open when it was held: paths, and `socket:[...]` for a socket."""
        self._log_path = directory / "strace.log"
        self._is_traced = library is None
        for name in ("go", "told"):
            os.mkfifo(directory / name)
        self._go_fd = os.open(directory / "go", os.O_RDWR)  # both ways, so that it waits for nobody
        self._told_fd = os.open(directory / "told", os.O_RDWR)
        path = os.pathsep.join(filter(None, (str(_TESTS), str(_TESTS.parent), os.environ.get("PYTHONPATH"))))
        # A fixed seed of hashes: sets and dicts of strings otherwise differ from run to run.
        env = [f"PYTHONPATH={path}", "PYTHONHASHSEED=0"]
        if library is not None:
            env += ["PYTHONMALLOC=malloc", f"LD_PRELOAD={library}", f"{PRELOADED}={library}"]
        tracer = strace_argv(self._log_path) if self._is_traced else []
        program = [sys.executable, "-P", "-m", "costs.counted_program", role, str(directory), "--"]
        self.argv = ["env", *env, *tracer, *program]
        """The command, to which the program's own arguments are added."""

    def hold(self) -> None:
        """Stop it before its next tick."""
        os.write(self._go_fd, HOLD)
        self.descriptors = {int(fd): path for fd, path in self._hear().items()}

    def step(self) -> Tick:
        """Let it do one tick."""
        os.write(self._go_fd, GO)
        tick = Tick(self._hear())
        self.ticks.append(tick)
        return tick

    def write_records(self) -> None:
        """Let it do the tick in which its text records are due."""
        os.write(self._go_fd, LATER)
        self.step()

    def put_in(self, fault: bytes = NO_FAULT) -> None:
        """Put a fault in, and take the one before out."""
        os.write(self._go_fd, fault)

    def free(self) -> None:
        """Let it run, to its end."""
        os.write(self._go_fd, FREE)

    def close(self) -> None:
        """After its end: take the system calls from the log."""
        os.close(self._go_fd)
        os.close(self._told_fd)
        if self._is_traced and self.ticks:
            for tick, calls in zip(self.ticks, read_ticks(self._log_path), strict=True):
                tick.calls = calls

    def _hear(self) -> dict[str, Any]:
        text = b""
        while not text.endswith(b"\n"):
            if not select.select([self._told_fd], [], [], ANSWER_S_MAX)[0]:
                raise TimeoutError(f"the {self.role} did not come to the end of a tick within {ANSWER_S_MAX} s")
            text += os.read(self._told_fd, 65_536)
        found: dict[str, Any] = json.loads(text)
        return found


def create(root: Path, order_count: int) -> list[Order]:
    """Make a bank and a gateway with accounts and tokens; gives the orders that can be paid, once each."""
    system = BenchSystem(root)
    system.create()
    customers = make_customers(CUSTOMER_COUNT, seed=1)
    system.add_accounts(customers)
    orders = [order_of(number, customers) for number in range(order_count)]
    system.add_orders(orders)
    return orders


class Lockstep:
    """A gateway and a bank, started and held."""

    def __init__(self, root: Path, orders: list[Order], library: Path | None) -> None:
        """`root`, `orders`: as `create` made them; no server ran there before."""
        self.system = BenchSystem(root)
        self.orders = iter(orders)
        self.gateway = Program("gateway", root / "counted-gateway", library)
        self.bank = Program("bank", root / "counted-bank", library)
        self.system.gateway_argv = self.gateway.argv
        self.system.bank_argv = self.bank.argv

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """The servers, held before their ticks; ended with the with block."""
        programs = (self.gateway, self.bank)
        try:
            self.system.start()
            for program in programs:
                program.hold()
            yield
        finally:
            for program in programs:
                program.free()
            self.system.stop()
            for program in programs:
                program.close()

    def decoder_is_idle(self) -> bool:
        """Whether the bank's decoder waits for envelopes: it sleeps nowhere else."""
        assert self.system.bank is not None
        pid = self.system.bank.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return all(_state_of(int(child)) == "S" for child in children)


class Shoppers:
    """Clients on links of their own, which pay all at once."""

    def __init__(self, lockstep: Lockstep, count: int) -> None:
        self._lockstep = lockstep
        self._rng = random.Random(2)
        self._socks = idle_clients(lockstep, count)
        root = read_root(lockstep.system.root_key_path)
        self._socks[0].sendall(encode_frame(BankKeysQuery(root.bank_id), 2))
        lockstep.gateway.step()
        keys = decode_answer(read_frame(self._socks[0]))
        assert isinstance(keys, BankKeys)
        self._now_ms = system_now().wall_ms
        self._key_list = verify_key_list(keys.signed_key_list, root.public_key, root.bank_id, self._now_ms)
        self._suite_key = suite_key_of(self._key_list, KemId.X25519)

    def pay(self, count: int) -> None:
        """The first `count` of them pay. Raises Unsteady; WrongAnswer if a payment is not paid."""
        gateway, bank = self._lockstep.gateway, self._lockstep.bank
        socks = self._socks[:count]
        orders = [next(self._lockstep.orders) for _ in socks]
        for sock, order in zip(socks, orders, strict=True):
            sock.sendall(order.query_frame())
        gateway.step()
        with mock.patch("os.urandom", self._rng.randbytes):  # the same random bits in each run
            sealed = [self._seal(order, read_frame(sock)) for sock, order in zip(socks, orders, strict=True)]
        for sock, one in zip(socks, sealed, strict=True):
            sock.sendall(one.frame)
        gateway.step()
        bank.step()
        wait_until(self._lockstep.decoder_is_idle)
        bank.step()
        gateway.step()
        for sock, one in zip(socks, sealed, strict=True):
            check_paid(read_frame(sock), one, self._key_list)
        gateway.write_records()
        bank.write_records()

    def _seal(self, order: Order, ack: bytes) -> Sealed:
        self._now_ms += 1  # so that payment IDs are in the order of the payments, as they mostly are
        return seal(order, decode_ack(ack), self._suite_key, self._now_ms)

    def close(self) -> None:
        """Close every link."""
        for sock in self._socks:
            sock.close()


class Decoder:
    """A decoder by itself, held, with the test in the place of its bank."""

    def __init__(self, root: Path, library: Path | None) -> None:
        """`root`: where a bank's state directory is."""
        self.program = Program("decoder", root / "counted-decoder", library)
        self._state = root / "bank"
        self._suite_key = suite_key_of(load_key_list(self._state), KemId.X25519)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """The decoder, held before its reads; ended with the with block."""
        argv = [*self.program.argv, "--state", str(self._state)]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        with self._process:
            try:
                self.program.hold()
                yield
            finally:
                self.program.free()
                assert self._process.stdin is not None
                self._process.stdin.close()
        self.program.close()

    def open(self, count: int) -> None:
        """Have a batch of envelopes opened, in one tick. Raises Unsteady."""
        frames = b"".join(self._frame(number) for number in range(count))
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        assert os.write(stdin.fileno(), frames) == len(frames), "a pipe holds a batch"
        self.program.step()
        buffer = FrameBuffer()
        buffer.receive_data(os.read(stdout.fileno(), 65_536))
        for _ in range(count):
            frame = buffer.next_frame()
            if frame is None:
                raise Unsteady("the decoder answered a part of a batch")
            message = frame.message()
            assert isinstance(message, OpenedEnvelope)
            assert message.status is SealStatus.DONE

    def _frame(self, number: int) -> bytes:
        terms = build_terms(payment_id=os.urandom(limits.PAYMENT_ID_SIZE))
        envelope = seal_credentials(self._suite_key, terms, f"user{number:07}", bytes(32), os.urandom(16))
        return encode_frame(OpenEnvelope(self._suite_key.key_id, terms, envelope), number)


# -- links -----------------------------------------------------------------------------------------------


def idle_clients(lockstep: Lockstep, count: int) -> list[socket.socket]:
    """Clients that have said hello to the gateway and then nothing."""
    assert lockstep.system.gateway is not None
    hello = encode_frame(Hello(role=Role.CLIENT, party_id="idle", versions=(limits.PROTOCOL_VERSION,)), 1)
    return greeted(lockstep.gateway, lockstep.system.gateway.address, count, hello)


def idle_gateways(lockstep: Lockstep, count: int) -> list[socket.socket]:
    """Links of the gateway that have said hello to the bank and then nothing."""
    assert lockstep.system.bank is not None
    key = read_identity(StateDir(lockstep.system.root / "gateway")).link_key
    link = Link(Role.GATEWAY, GATEWAY_ID, Role.BANK, is_caller=True, now_ms=0, link_key=key)
    return greeted(lockstep.bank, lockstep.system.bank.address, count, link.data_to_send())


def greeted(program: Program, address: Address, count: int, hello: bytes) -> list[socket.socket]:
    """Links on which `hello` was said and answered with HelloAck."""
    raise_descriptor_limit(count + 256)
    socks = []
    for _ in range(count):
        sock = socket.create_connection(address, ANSWER_S_MAX)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(hello)
        sock.setblocking(False)
        socks.append(sock)
    for sock in socks:
        while True:
            try:
                assert isinstance(decode_answer(read_frame(sock)), HelloAck)
            except Unsteady:  # A listener takes only some in at a tick.
                program.step()
            else:
                break
    return socks


def wait_until(condition: Callable[[], bool]) -> None:
    """Look again and again. Raises TimeoutError."""
    deadline_s = time.monotonic() + ANSWER_S_MAX
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"not within {ANSWER_S_MAX} s: {condition}")
        time.sleep(0.000_5)


def _state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
