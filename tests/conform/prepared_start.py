"""`python -I -S prepared_start.py PATH ARGUMENT...`: a program that the server of `prepared.py` at this path forks.

It imports no more than it must: its own start is all that a run still costs. `_socket` and `marshal` are parts of the
interpreter; `socket` and `json` would make that start thrice as long. Both ends are the same Python, as marshal needs.
"""

import _socket
import marshal
import os
import sys
from array import array

NOBODY = 70
"""Exit code: the server is gone."""


def main() -> int:
    """Ask, and end as the fork has ended."""
    request = {"arguments": sys.argv[2:], "environment": dict(os.environ), "directory": os.getcwd()}  # noqa: PTH109
    server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    server.connect(sys.argv[1])
    server.sendmsg([marshal.dumps(request)], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array("i", [0, 1, 2]))])
    told = server.recv(16)
    if not told:
        print("whoever prepares the programs is gone", file=sys.stderr)
        return NOBODY
    code = int(told)
    if code < 0:
        import signal

        if -code != signal.SIGKILL:  # which nobody catches, and so nobody may set
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    sys.exit(main())
