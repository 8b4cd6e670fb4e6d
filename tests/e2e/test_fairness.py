"""R21, T23: peers that send as much as they can stop nobody else, and least of all the gateway's own bank link."""

import subprocess
import sys

from local_system import LocalSystem

from paygate.cli import ExitCode

ATTACKER_COUNT = 40
ATTACK_S = 40
"""Longer than a session, so that the first payment is made in it or not at all, however slow the machine."""

# Opens connections, says hello on each, and then sends link tests without end, reading every answer.
ATTACKER = """
import selectors, socket, sys, time
from paygate.codec.codes import Role
from paygate.codec.frame import encode_frame
from paygate.codec.messages import Echo, Hello

port, count, seconds = map(int, sys.argv[1:])
hello = encode_frame(Hello(Role.CLIENT, "attacker", (1,)), 1)
flood = b"".join(encode_frame(Echo(b"12345678"), n) for n in range(2, 2_000))
selector = selectors.DefaultSelector()
for _ in range(count):
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(hello)
    sock.setblocking(False)
    selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE)
print("attacking", flush=True)
deadline = time.monotonic() + seconds
while time.monotonic() < deadline and selector.get_map():
    for key, events in selector.select(0.1):
        try:
            if events & selectors.EVENT_READ and not key.fileobj.recv(65536):
                selector.unregister(key.fileobj)
            elif events & selectors.EVENT_WRITE:
                key.fileobj.send(flood)
        except BlockingIOError:
            pass
        except OSError:
            selector.unregister(key.fileobj)
    time.sleep(0.001)
"""


def test_a_flood_of_requests_stops_no_payment_and_not_the_bank_link(system: LocalSystem) -> None:
    assert system.gateway is not None
    arguments = [str(system.gateway.port), str(ATTACKER_COUNT), str(ATTACK_S)]
    attacker = subprocess.Popen([sys.executable, "-c", ATTACKER, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        assert attacker.stdout is not None
        assert attacker.stdout.readline() == "attacking\n"
        paid = 0
        for transaction, passcode in (("TX-1001", "4711"), ("TX-1003", "6502"), ("TX-1004", "68000")):
            run = system.pay(transaction, passcode, "asha", "correct horse battery")
            assert run.exit_code == ExitCode.OK, run.errors
            paid += attacker.poll() is None
        assert paid >= 1, "no payment was made while the attack went on"
    finally:
        attacker.kill()
        attacker.communicate()
    log = (system.root / "gateway.log").read_text(encoding="utf-8")
    assert "is gone" not in log, "the gateway lost its bank link under the flood"
