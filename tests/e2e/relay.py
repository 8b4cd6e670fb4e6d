"""A TCP relay for tests: it records what passes, and can withhold what one side says."""

import select
import socket
import threading


class Relay:
    """Listens on a port of its own and joins each connection to `target_port`.

    `seen` is every byte that passed, either way. While `swallows_answers` is set, what the target says is
    thrown away. `target_port` may be changed; connections made later go there.
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.seen = bytearray()
        self.swallows_answers = False
        self.swallowed = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._wake_read, self._wake_write = socket.socketpair()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Cut everything."""
        self._wake_write.close()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        pairs: dict[socket.socket, tuple[socket.socket, bool]] = {}  # to the other end, and whether it's the target
        while True:
            ready, _, _ = select.select([self._listener, self._wake_read, *pairs], [], [])
            if self._wake_read in ready:
                break
            for sock in ready:
                if sock is self._listener:
                    self._join(pairs)
                elif sock in pairs:
                    self._pass_on(sock, pairs)
        for sock in [self._listener, self._wake_read, *pairs]:
            sock.close()

    def _join(self, pairs: dict[socket.socket, tuple[socket.socket, bool]]) -> None:
        caller, _ = self._listener.accept()
        try:
            target = socket.create_connection(("127.0.0.1", self.target_port), timeout=5)
        except OSError:
            caller.close()
            return
        target.settimeout(None)
        pairs[caller] = (target, False)
        pairs[target] = (caller, True)

    def _pass_on(self, sock: socket.socket, pairs: dict[socket.socket, tuple[socket.socket, bool]]) -> None:
        other, is_target = pairs[sock]
        try:
            data = sock.recv(65536)
            self.seen += data
            if data and is_target and self.swallows_answers:
                self.swallowed.set()
                return
            if data:
                other.sendall(data)
        except OSError:
            data = b""
        if not data:
            for end in (sock, other):
                del pairs[end]
                end.close()
