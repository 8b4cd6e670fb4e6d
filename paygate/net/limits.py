"""Every limit of the network layer, with its reason. Sizes are bytes, counts are things, times are ms."""

from dataclasses import dataclass

# One read takes at most this much, so no peer gets more than 64 KiB of a tick (R21). It also holds the largest
# frame that a 16-bit length can ask for.
READ_SIZE = 64 * 1024

# The most that any read may take: one buffer of this size serves them all.
READ_SIZE_MAX = 256 * 1024

# T26: a peer that vanished is probed after 20 s of silence, every 5 s, and given up at 40 s; unanswered output is
# given up at 40 s too. Both stay below a minute even if a probe is late.
KEEPALIVE_IDLE_S = 20
KEEPALIVE_INTERVAL_S = 5
KEEPALIVE_PROBE_COUNT = 4
USER_TIMEOUT_MS = 40_000


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What one connection may hold and for how long (T27), and how much of a tick it gets."""

    # Bytes that one read takes.
    read_size: int = READ_SIZE
    # Above this much unsent output the peer's requests are not read: it must first take the answers it has.
    output_size_high: int = 64 * 1024
    # Reading goes on below this; the gap keeps a connection from switching at every frame.
    output_size_low: int = 16 * 1024
    # The most that one peer can make us hold. Above 4.5 MB, since 4,096 requests may wait for a reply (PG-LNK-6), a
    # reply has up to 1,087 bytes (PG-FRM-4), and the end of one payment may be the answer to all of them at once.
    output_size_max: int = 5 * 1024 * 1024
    # A peer that takes no byte of its output for so long isn't reading: a session lasts 30 s in all (R10).
    output_stall_ms: int = 15_000
    # A graceful close waits this long in all for the peer to take the rest and to close its side. It outlasts a
    # lost packet's retransmissions and does not hold up a drain (R12).
    linger_ms: int = 3_000

    def __post_init__(self) -> None:
        assert 0 < self.read_size <= READ_SIZE_MAX
        assert 0 <= self.output_size_low < self.output_size_high < self.output_size_max


# A stranger's connection.
PEER_LIMITS = ConnectionLimits()

# The link between gateway and bank carries every customer's payments at once, and both ends are ours: 64 MiB
# holds a burst of ten thousand requests many times over. One read takes all that some hundred of them ask at once, so
# that they share a commit.
LINK_LIMITS = ConnectionLimits(
    read_size=READ_SIZE_MAX,
    output_size_high=8 * 1024 * 1024,
    output_size_low=2 * 1024 * 1024,
    output_size_max=64 * 1024 * 1024,
)


@dataclass(frozen=True, slots=True)
class ListenLimits:
    """What one listener lets in (T25)."""

    # The kernel's queue of connections not yet accepted; the kernel cuts it to its own limit.
    backlog_count: int = 1024
    # So many accepts a tick, so that a flood of connections leaves time for the live ones (R21).
    accept_count_per_tick: int = 64
    # Ten thousand slow peers (T23) and as many honest ones again.
    connection_count_max: int = 20_000
    # One address gets a share, not all; behind one address there may be an office or a carrier's NAT.
    connection_count_per_address_max: int = 2_000
    # After running out of descriptors, time for some to be freed: a listener that is always ready would spin.
    pause_ms: int = 250


LISTEN_LIMITS = ListenLimits()

# A child is ours, so this bounds only our own failure to hold back: 16 MiB is tens of thousands of envelopes.
CHILD_OUTPUT_SIZE_MAX = 16 * 1024 * 1024

# A pipe of the system's usual 64 KiB holds forty of the larger envelopes, and a tick has some hundred. 1 MiB is what
# Linux lets anybody ask for.
CHILD_PIPE_SIZE = 1024 * 1024

# How often an exit is looked for where the system has no pidfd: late by less than a person notices.
CHILD_POLL_MS = 50
