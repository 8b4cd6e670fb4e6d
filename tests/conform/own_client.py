"""Our own client as it is, and its encoder, both forked where they are prepared (`prepared.py`).

`own_client.py PATH` serves both at this path: `client pay ...` is `paygate-client pay ...`, but for the command that
starts its encoder.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any

from conform.client_patches import put_in
from conform.prepared import serve, starting
from forking import prepare_forks

from paygate.cli import run
from paygate.client import encoder, session
from paygate.client.__main__ import main


class ForkedEncoder(session.Encoder):
    """Starts the encoder that is prepared, and not an interpreter for it."""

    def __init__(self, path: Path, loop: Any, on_sealed: Any, on_failed: Any, argv: Any) -> None:
        assert argv == session.ENCODER_ARGV
        super().__init__(loop, on_sealed, on_failed, starting(path, "encoder"))


def become(path: Path, arguments: list[str]) -> int:
    """The client, or the encoder that such a client asks for."""
    program, *sys.argv[1:] = arguments
    if program == "encoder":
        return run(encoder.PROGRAM, encoder.main)
    assert program == "client"
    put_in(session, "Encoder", partial(ForkedEncoder, path))
    return main()


if __name__ == "__main__":
    prepare_forks()
    serve(Path(sys.argv[1]), partial(become, Path(sys.argv[1])))
