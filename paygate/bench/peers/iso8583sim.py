"""iso8583sim's own server (`iso8583sim serve`) as a peer: a program of others, run and never imported."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from paygate.bench.peers.child import run
from paygate.bench.peers.iso8583 import Iso8583Peer
from paygate.bench.peers.loopback import HOST
from paygate.bench.peers.peer import Missing

PROGRAM: Final = "iso8583sim"
_VERSION_S_MAX: Final = 30


class Iso8583Sim(Iso8583Peer):
    """iso8583sim's mock issuer with its default rule."""

    name = "iso8583sim"
    title = "iso8583sim serve (asyncio): approves every request; no balance, no disk, no crypto"

    def _command(self, directory: Path) -> Sequence[str]:
        # Beside the Python that runs us first: that is where pip put it, whether or not PATH has it.
        program = shutil.which(PROGRAM, path=Path(sys.executable).parent) or shutil.which(PROGRAM)
        if program is None:
            raise Missing(f"{PROGRAM} is not installed", f"pip install {PROGRAM}")
        self.version = run((program, "version"), _VERSION_S_MAX, cwd=directory).strip()
        return (program, "serve", "--host", HOST, "--port", "0", "--format", "ascii-binary", "--header", "2b")
