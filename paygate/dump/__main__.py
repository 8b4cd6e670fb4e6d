"""`paygate-dump`: what happened, from a capture of any kind (R24)."""

import argparse
import io
import os
import shutil
import signal
import stat
import sys
from collections.abc import Callable
from typing import Final

from paygate.cli import ExitCode, PaygateExit, drop_stdout, run
from paygate.dump import args, encode, kinds, schema
from paygate.dump.args import PROGRAM
from paygate.dump.envelopes import EnvelopeOpener, load_decode_key
from paygate.dump.filters import Filter
from paygate.dump.follow import Follow
from paygate.dump.json_lines import JsonLines
from paygate.dump.keys import load_link_key
from paygate.dump.ladder import Ladder, glyphs_for
from paygate.dump.lines import Lines
from paygate.dump.mermaid import Mermaid
from paygate.dump.model import Item
from paygate.dump.output import Colours, Output
from paygate.dump.pipeline import PORTS_DEFAULT, Pipeline
from paygate.dump.source import open_input
from paygate.dump.stats import Stats
from paygate.dump.svg import Svg
from paygate.dump.tree import Tree

WIDTH_DEFAULT: Final = 100
"""Columns of a ladder where there is no terminal to ask."""
_PIECE_SIZE: Final = 65_536
"""Characters that are printed at once where nobody waits for the single line."""


def main() -> int:
    """Entry point of the console script."""
    # As every filter: who has seen enough (`| head`, a pager) ends us without a word.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    for output in (sys.stdout, sys.stderr):
        if isinstance(output, io.TextIOWrapper):
            # What an output can't encode must not end the program; everything shown is escaped already.
            output.reconfigure(errors="backslashreplace")
    return run(PROGRAM, _main)


def _main() -> int:
    words = sys.argv[1:]
    command = _COMMANDS.get(words[0]) if words else None
    # A descriptor that was closed (`>&-`) is None here.
    for name, stream in (("input", sys.stdin), ("output", sys.stdout)):
        if stream is None:
            raise PaygateExit(f"standard {name} is closed; open it, if only on /dev/null", ExitCode.USAGE)
    try:
        code = command(words[1:]) if command is not None else _dump(words)
        sys.stdout.flush()
    except OSError as error:
        # Inputs tell of their own errors as findings, keys as refusals: what is left is the output.
        drop_stdout()
        raise PaygateExit(f"the output could not be written: {error.strerror}", ExitCode.INTERNAL) from None
    return code


def _describe(words: list[str]) -> int:
    name = args.describe_parser().parse_args(words).name
    sys.stdout.write(kinds.describe(name))
    return ExitCode.OK


def _encode(words: list[str]) -> int:
    options = args.encode_parser().parse_args(words)
    link_key = load_link_key(options.link_key) if options.link_key else None
    return encode.run_encode(options.file, link_key=link_key, is_hex=options.hex)


def _schema(words: list[str]) -> int:
    args.schema_parser().parse_args(words)
    sys.stdout.write(schema.text())
    return ExitCode.OK


_COMMANDS: Final[dict[str, Callable[[list[str]], int]]] = {
    "describe": _describe,
    "encode": _encode,
    "schema": _schema,
}


def _dump(words: list[str]) -> int:
    parser = args.parser()
    options = parser.parse_args(words)
    if options.json and (options.verbose or options.ladder or options.mermaid or options.svg):
        parser.error("--json goes alone or with --stats")
    if options.width and not options.ladder:
        parser.error("--width is of a --ladder")
    if options.file is None and sys.stdin.isatty():
        parser.error("give a FILE, or pipe a capture in: tcpdump -i lo -U -w - | paygate-dump -")
    pipeline = _pipeline(options)
    follow = Follow(options.follow) if options.follow is not None else None
    with open_input(options.file or "-") as stream:
        out = _Out(is_live=not stat.S_ISREG(os.fstat(stream.fileno()).st_mode) or sys.stdout.isatty())
        output = _output(options, out.write, pipeline)
        chosen = _filter(options)
        show = _shower(chosen, follow, output)
        try:
            for item in pipeline.read(stream, chosen.begin):
                show(item)
        except KeyboardInterrupt:
            # As with tcpdump, whose end a live capture waits for: what was seen up to now is told.
            pass
        for item in pipeline.finish():
            show(item)
    if follow is not None and not follow.story_summary():
        follow.finish()  # Nothing was found; no output need say so too.
    output.finish()
    if follow is not None and not (options.json or options.mermaid or options.svg or options.stats):
        out.write("".join(f"{line}\n" for line in ("", *follow.story_summary())))
    out.flush()
    if follow is not None:
        follow.finish()
    elif not out.was_used and chosen.is_everything:
        _tell_of_nothing(pipeline)
    return ExitCode.OK


def _tell_of_nothing(pipeline: Pipeline) -> None:
    """An input in which nothing was seen must not look like one that was not read."""
    ignored = [f"{count} {reason}" for reason, count in pipeline.decapsulator.ignored.most_common()]
    if pipeline.frames.foreign_flow_count:
        ignored.append(f"{pipeline.frames.foreign_flow_count} connections of other protocols")
    passed = f", but {', '.join(ignored)}" if ignored else ""
    sys.stderr.write(f"{PROGRAM}: nothing of paygate in {pipeline.packet_count} packets{passed}\n")


def _pipeline(options: argparse.Namespace) -> Pipeline:
    opener = EnvelopeOpener([load_decode_key(path) for path in options.decode_key]) if options.decode_key else None
    return Pipeline(
        PORTS_DEFAULT | frozenset(options.port),
        link_keys=tuple(load_link_key(path) for path in options.link_key),
        opener=opener,
    )


def _filter(options: argparse.Namespace) -> Filter:
    return Filter(
        kinds=options.kind,
        flows=options.flow,
        payment=options.payment or "",
        transaction=options.transaction,
        since=options.since,
        until=options.until,
        outcomes=options.outcome,
        findings_only=options.findings,
    )


def _output(options: argparse.Namespace, write: Callable[[str], None], pipeline: Pipeline) -> Output:
    is_terminal = sys.stdout.isatty()
    is_coloured = options.color == "always" or (
        options.color == "auto" and is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )
    colours = Colours(is_coloured)
    show_secrets: bool = options.show_secrets
    if options.stats:
        return Stats(
            write,
            colours,
            is_json=options.json,
            streams=pipeline.reassembler.counts,
            ignored=pipeline.decapsulator.ignored,
        )
    if options.json:
        return JsonLines(write, show_secrets=show_secrets)
    if options.verbose:
        return Tree(write, colours, show_secrets=show_secrets)
    if options.ladder:
        width = options.width or (shutil.get_terminal_size().columns if is_terminal else WIDTH_DEFAULT)
        glyphs = glyphs_for(sys.stdout.encoding)
        return Ladder(write, colours, width=width, show_secrets=show_secrets, glyphs=glyphs)
    if options.mermaid:
        return Mermaid(write, show_secrets=show_secrets)
    return Svg(write, show_secrets=show_secrets) if options.svg else Lines(write, colours, show_secrets=show_secrets)


def _shower(chosen: Filter, follow: Follow | None, output: Output) -> Callable[[Item], None]:
    """What is done with each item; without filters nothing stands between the pipeline and the output."""
    receive = output.receive
    if follow is None and chosen.is_everything:
        return receive

    def show(item: Item) -> None:
        for told in (item,) if follow is None else follow.receive(item):
            if chosen.passes(told):
                receive(told)

    return show


class _Out:
    """Standard output: line by line while somebody waits for it, in large pieces otherwise."""

    def __init__(self, *, is_live: bool) -> None:
        self.was_used = False
        self._piece_size = 0 if is_live else _PIECE_SIZE
        self._texts: list[str] = []
        self._size = 0

    def write(self, text: str) -> None:
        """Print, now or soon."""
        self.was_used = True
        self._texts.append(text)
        self._size += len(text)
        if self._size >= self._piece_size:
            self.flush()

    def flush(self) -> None:
        """Print what waits."""
        sys.stdout.write("".join(self._texts))
        sys.stdout.flush()
        self._texts.clear()
        self._size = 0


if __name__ == "__main__":
    sys.exit(main())
