"""Our client with a bug: `BUG pay ...` is `paygate-client pay ...` with one thing patched.

Its encoder is no program of its own but a call, and no interpreter is started for a run (`prepared.py`): both cost more
than the run itself. `broken_client.py PATH` serves such runs at this path.
"""

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from conform.client_faults import FAULTS, VARIANTS
from conform.client_patches import put_in
from conform.prepared import serve
from forking import prepare_forks

from paygate.client import session
from paygate.client.__main__ import main
from paygate.codec.messages import SealCredentials
from paygate.codec.seal import seal_request
from paygate.net.loop import Loop


class InlineEncoder:
    """Seals where it is asked to, in place of `session.Encoder`."""

    def __init__(self, loop: Loop, on_sealed: Callable[[bytes], None], *_unused: object) -> None:
        self._loop = loop
        self._on_sealed = on_sealed

    def seal(self, request: SealCredentials) -> None:
        """Tell the envelope at the end of the tick, as an answer of a child would come."""
        self._loop.call_soon(partial(self._on_sealed, seal_request(request, os.urandom(16))))

    def close(self) -> None:
        """Nothing is left open."""


def run(arguments: list[str]) -> int:
    """The client with the bug that the first argument names."""
    bug, *sys.argv[1:] = arguments
    put_in(session, "Encoder", InlineEncoder)
    (FAULTS | VARIANTS)[bug].patch()
    return main()


if __name__ == "__main__":
    prepare_forks()
    serve(Path(sys.argv[1]), run)
