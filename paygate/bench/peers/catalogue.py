"""The peers that the bench measures."""

from paygate.bench.peers.iso8583_server import PyIso8583
from paygate.bench.peers.iso8583sim import Iso8583Sim
from paygate.bench.peers.peer import Peer
from paygate.bench.peers.postgres import OneCall, TpcB


def make_peers() -> list[Peer]:
    """All of them, none started: what is not installed tells so when it is."""
    return [TpcB(), OneCall(), PyIso8583(), Iso8583Sim()]
