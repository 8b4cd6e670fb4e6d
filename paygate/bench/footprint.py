"""What a process takes of the machine: its memory, for each idle connection too, and its processor time."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from paygate.bank.keys import find_link_key
from paygate.bench.load import Links
from paygate.bench.system import GATEWAY_ID, BenchSystem, Server, running
from paygate.codec.codes import Role

SETTLE_S: Final = 1.0
"""After the last hello, until a server's memory is read."""


def idle_bytes(directory: Path, connections: int) -> dict[str, float]:
    """What each server's memory grows by for each of so many connections that said hello and ask nothing.

    On servers of their own that hold nothing: what a start needs and gives back would be used again, and hide the
    growth. Raises PaygateExit.
    """
    system = BenchSystem(directory)
    system.create()
    with running(system):
        return _idle_bytes_of(system, connections)


def _idle_bytes_of(system: BenchSystem, connections: int) -> dict[str, float]:
    bank, gateway = system.bank, system.gateway
    assert bank is not None
    assert gateway is not None
    link_key = find_link_key(system.root / "bank", GATEWAY_ID)
    return {
        "gateway": _idle_bytes(gateway, lambda: Links(gateway.address, connections)),
        "bank": _idle_bytes(
            bank,
            lambda: Links(bank.address, connections, role=Role.GATEWAY, party_id=GATEWAY_ID, link_key=link_key),
        ),
    }


def _idle_bytes(server: Server, connect: Callable[[], Links]) -> float:
    before = resident_bytes(server.process.pid)
    links = connect()
    try:
        time.sleep(SETTLE_S)
        return (resident_bytes(server.process.pid) - before) / len(links)
    finally:
        links.close()


def resident_bytes(pid: int) -> int:
    """The memory of a process that it shares with no other (Linux)."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in rollup}
    return (sizes["Private_Clean"] + sizes["Private_Dirty"]) * 1024


def processor_ns(pid: int) -> int:
    """The processor time of a process's one thread so far (Linux)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[0])


def children(pid: int) -> list[int]:
    """The processes that a process's one thread started (Linux)."""
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def text_bytes(root: Path) -> int:
    """How long the text records of the servers below a directory are, all together."""
    return sum(path.stat().st_size for path in root.glob("*/*.txt"))
