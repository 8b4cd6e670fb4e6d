"""Captures damaged at random, sent through all of `paygate-dump`: it may find what it likes, but never fail or grow,
and its JSON follows its schema.

`python -m dump.mutations --seed N --count M` (from `tests/`, as `make dump-fuzz` does) runs a campaign and replays it.
"""

import argparse
import gzip
import io
import json
import random
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from typing import Final

from builders import example
from dump.builders import (
    ETHERNET,
    RAW,
    SLL2,
    USER0,
    Captured,
    ethernet,
    ipv4,
    linux_sll2,
    pcap_bytes,
    pcapng_bytes,
    tcp_packet,
    tcp_segment,
)
from jsonschema import Draft202012Validator

from paygate.codec.codes import Kind
from paygate.codec.frame import encode_frame
from paygate.codec.messages import MESSAGES
from paygate.dump import schema
from paygate.dump.json_lines import JsonLines
from paygate.dump.ladder import Ladder
from paygate.dump.lines import Lines
from paygate.dump.mermaid import Mermaid
from paygate.dump.model import Finding, Packet, SeenFrame
from paygate.dump.output import Colours, Output
from paygate.dump.pipeline import Pipeline
from paygate.dump.source import InputError, read_source
from paygate.dump.stats import Stats
from paygate.dump.svg import Svg
from paygate.dump.tree import Tree

MEMORY_MAX: Final = 0x400000
"""Bytes that one small capture may take at most: two chunks of reading, a frame's largest size for some flows, and
what an output keeps. Whatever a number in it asks for is far more."""

OUTPUT_COUNT: Final = 7
JSON_INDEX: Final = 2
"""Of `_outputs`."""
_JSON_CHECKED_MAX: Final = 20
"""Objects of one capture that are held against the schema, which takes longer than all else."""

_PAYMENT: Final = Path(__file__).parents[2] / "data" / "payment.pcap"
_TELLING: Final = (0, 1, 2, 4, 12, 16, 20, 40, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0xFFFF, 0x40000, 0x7FFFFFFF, 0xFFFFFFFF)
"""Sizes at and beyond limits, for the places where sizes stand."""


@cache
def frames() -> list[bytes]:
    """A frame of every kind, half of them with a MAC."""
    return [
        encode_frame(example(kind), number, b"k" * 32 if number % 2 else None)
        for number, kind in enumerate(MESSAGES, start=1)
        if kind in Kind
    ]


@cache
def payment() -> list[Captured]:
    """The packets of a real payment, Ethernet frames."""
    with _PAYMENT.open("rb") as stream:
        found = [p for p in read_source(stream, count(1)) if isinstance(p, Packet)]
    assert found
    return [Captured(p.data, p.time_ns, p.original_size) for p in found]


def _conversation(rng: random.Random) -> list[bytes]:
    """IP packets with frames of every kind, cut into segments anywhere."""
    stream = b"".join(rng.sample(frames(), 6))
    sent, at = [], 0
    while at < len(stream):
        size = rng.choice((1, 20, 100, 300, 1_400))
        sent.append(tcp_packet(stream[at : at + size], sequence=1 + at))
        at += size
    return sent


def _fragmented(rng: random.Random) -> list[bytes]:
    """Frames in IPv4 fragments."""
    sent = []
    sequence = 1
    for number, frame in enumerate(rng.sample(frames(), 4)):
        segment = tcp_segment(frame, sequence=sequence)
        sequence += len(frame)
        for at in range(0, len(segment), 64):
            more = at + 64 < len(segment)
            sent.append(ipv4(segment[at : at + 64], identification=number, fragment_offset=at, more_fragments=more))
    return sent


def _shaken(packets: list[Captured], rng: random.Random) -> list[Captured]:
    """Packets swapped, left out, doubled, cut, and changed in their first bytes, where headers are."""
    packets = list(packets)
    for _ in range(rng.choice((0, 1, 1, 3, 8))):
        if not packets:
            break
        at, other = rng.randrange(len(packets)), rng.randrange(len(packets))
        packet = packets[at]
        match rng.randrange(6):
            case 0:
                packets[at], packets[other] = packets[other], packets[at]
            case 1:
                del packets[at]
            case 2:
                packets.insert(other, packet)
            case 3:
                kept = rng.randrange(len(packet.data) + 1)
                original_size = rng.choice((None, len(packet.data), 1 << 31))
                packets[at] = packet._replace(data=packet.data[:kept], original_size=original_size)
            case 4:
                packets[at] = packet._replace(time_ns=rng.choice((0, 1, 1 << 60, (1 << 62) - 1 - (1 << 60))))
            case _:
                data = bytearray(packet.data)
                _damage(data, rng, end=80)
                packets[at] = packet._replace(data=bytes(data))
    return packets


def _damage(data: bytearray, rng: random.Random, end: int | None = None) -> None:
    """One change, somewhere before `end`."""
    at = rng.randrange(min(len(data), end or len(data)) + 1)
    size = rng.choice((1, 1, 2, 4, 16, 100))
    match rng.randrange(7):
        case 0 if at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        case 1:
            del data[at : at + size]
        case 2:
            del data[at:]
        case 3:
            data[at:at] = rng.randbytes(size)
        case 4:
            data[at:at] = data[at : at + size]
        case 5:
            width = rng.choice((2, 4))
            value = rng.choice(_TELLING) & (1 << 8 * width) - 1
            data[at : at + width] = value.to_bytes(width, rng.choice(("little", "big")))
        case _:
            data[at : at + size] = rng.randbytes(size)


def _container(rng: random.Random) -> bytes:
    """A whole input of some sort."""
    order = rng.choice("<>")
    sort = rng.randrange(8)
    if sort == 0:
        return pcap_bytes(_shaken(payment(), rng), link_type=ETHERNET, order="<", is_nanosecond=rng.random() < 0.5)
    if sort == 1:
        return pcapng_bytes(_shaken(payment(), rng), link_types=(ETHERNET,), order=order)
    if sort == 2:
        packets = [Captured(p) for p in _fragmented(rng) + _conversation(rng)]
        return pcap_bytes(_shaken(packets, rng), link_type=RAW, order="<")
    if sort == 3:
        mixed = [
            Captured(wrap(p), interface=interface)
            for p in _conversation(rng)
            for interface, wrap in [rng.choice(((0, ethernet), (1, linux_sll2)))]
        ]
        return pcapng_bytes(_shaken(mixed, rng), link_types=(ETHERNET, SLL2), order=order, resolution=6)
    if sort == 4:
        said = [Captured(f, direction=rng.randrange(3)) for f in rng.sample(frames(), 8)]
        return pcapng_bytes(_shaken(said, rng), link_types=(USER0,), order=order)
    stream = b"".join(rng.sample(frames(), 5))
    if sort == 5:
        return stream
    if sort == 6:
        rows = range(0, len(stream), 16)
        return "".join(f"{at:08x}  {stream[at : at + 16].hex(' ')}  what it is\n" for at in rows).encode()
    return b"\n".join(f.hex(" ", 2).encode() for f in rng.sample(frames(), 5))


def mutated(rng: random.Random) -> bytes:
    """An input with damage at its packets, at its bytes, at what compresses it, at several of these or at none."""
    data = bytearray(_container(rng))
    for _ in range(rng.choice((0, 1, 1, 2, 5, 20))):
        _damage(data, rng)
    if rng.random() < 0.15:
        data = bytearray(gzip.compress(bytes(data), mtime=0))
        if rng.random() < 0.5:
            _damage(data, rng)
    return bytes(data)


@dataclass
class Tally:
    """What a campaign saw."""

    capture_count: int = 0
    refused_count: int = 0
    frame_count: int = 0
    json_count: int = 0
    """Objects of JSON that follow the schema."""
    findings: Counter[str] = field(default_factory=Counter)
    memory_max: int = 0
    """The most that one capture took, in bytes, beside what there was before it."""
    seconds_max: float = 0.0
    """The longest that one capture took, in seconds."""


def _outputs(pipeline: Pipeline, write: Callable[[str], None]) -> list[Output]:
    plain = Colours()
    return [
        Lines(write, plain, show_secrets=False),
        Tree(write, plain, show_secrets=False),
        JsonLines(write, show_secrets=True),
        Ladder(write, plain, width=100, show_secrets=False),
        Mermaid(write, show_secrets=False),
        Svg(write, show_secrets=False),
        Stats(write, plain, is_json=False, streams=pipeline.reassembler.counts, ignored=pipeline.decapsulator.ignored),
    ]


def dump(data: bytes, output_index: int, tally: Tally, write: Callable[[str], None] = lambda _: None) -> None:
    """Send an input through the pipeline and one of the outputs."""
    pipeline = Pipeline(link_keys=(b"k" * 32,))
    output = _outputs(pipeline, write)[output_index]
    try:
        for items in (pipeline.read(io.BytesIO(data)), pipeline.finish()):
            for item in items:
                output.receive(item)
                tally.frame_count += isinstance(item, SeenFrame)
                tally.findings.update([item.name] if isinstance(item, Finding) else [])
    except InputError:
        tally.refused_count += 1
    output.finish()


@cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(schema.schema())


def check_json(data: bytes, rng: random.Random) -> int:
    """Hold some of the objects that `--json` prints of an input against the schema. Returns how many."""
    parts: list[str] = []
    dump(data, JSON_INDEX, Tally(), parts.append)
    lines = "".join(parts).splitlines()
    checked = rng.sample(lines, min(len(lines), _JSON_CHECKED_MAX))
    for line in checked:
        _validator().validate(json.loads(line))
    return len(checked)


def campaign(seed: int, capture_count: int) -> Tally:
    """Make so many captures and dump them. Whatever fails is noted with the seed and the number that replay it."""
    tally = Tally()
    tracemalloc.start()
    try:
        for number in range(capture_count):
            rng = random.Random(f"{seed} {number}")
            data, output_index = mutated(rng), rng.randrange(OUTPUT_COUNT)
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            begin = time.perf_counter()
            try:
                dump(data, output_index, tally)
                tally.seconds_max = max(tally.seconds_max, time.perf_counter() - begin)
                taken = tracemalloc.get_traced_memory()[1] - before
                if output_index == JSON_INDEX:
                    tally.json_count += check_json(data, rng)
            except Exception as error:
                error.add_note(f"seed {seed}, capture {number}, output {output_index}")
                raise
            tally.capture_count += 1
            tally.memory_max = max(tally.memory_max, taken)
            assert taken <= MEMORY_MAX, f"seed {seed}, capture {number}: {taken} bytes"
    finally:
        tracemalloc.stop()
    return tally


def main() -> int:
    """Run a campaign as the command line says."""
    parser = argparse.ArgumentParser(description="Send damaged captures through paygate-dump.")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--count", type=int, default=10_000)
    options = parser.parse_args()
    print(f"seed {options.seed}: {options.count} captures", flush=True)
    tally = campaign(options.seed, options.count)
    print(
        f"{tally.capture_count} captures, {tally.refused_count} refused as no input, {tally.frame_count} frames, "
        f"{tally.json_count} objects of JSON held against the schema, "
        f"at most {tally.memory_max:,} bytes and {tally.seconds_max * 1_000:.0f} ms for one"
    )
    for name, number in tally.findings.most_common():
        print(f"{number:8} {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
