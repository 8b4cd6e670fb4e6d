"""`python -I -S prepared_start.py PATH ARGUMENT...`: a program that the server of `prepared.py` at this path forks.

It imports no more than it must: its own start is all that a run still costs.
"""

import json
import os
import signal
import socket
import sys

NOBODY = 70
"""Exit code: the server is gone."""


def main() -> int:
    """Ask, and end as the fork has ended."""
    request = {"arguments": sys.argv[2:], "environment": dict(os.environ), "directory": os.getcwd()}  # noqa: PTH109
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.connect(sys.argv[1])
        socket.send_fds(server, [json.dumps(request).encode()], [0, 1, 2])
        told = server.recv(16)
    if not told:
        print("whoever prepares the programs is gone", file=sys.stderr)
        return NOBODY
    code = int(told)
    if code < 0:
        if -code != signal.SIGKILL:  # which nobody catches, and so nobody may set
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    sys.exit(main())
