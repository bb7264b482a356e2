"""A TCP proxy between pulse and its broker that can reset, swallow or slow down what passes."""

import socket
import struct
import threading

CHUNK = 16384


class Proxy:
    """Listens on a free port and passes everything on to target_port, both of this machine.

    reset() cuts every connection with RST; black_hole() leaves connections open, takes new ones and
    passes nothing; slow(bytes_per_second, latency) narrows the link; clear() is an ordinary link
    again, also for what was held back meanwhile."""

    def __init__(self, target_port=None):
        self.target_port = target_port
        self.accepted = 0
        self._open = threading.Event()
        self._open.set()
        self._over = threading.Event()
        self._rate = self._latency = 0
        self._lock = threading.Lock()
        self._sockets = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    # --- what happens to the link

    def reset(self):
        with self._lock:
            doomed, self._sockets = self._sockets, set()
        for one in doomed:
            _cut(one)

    def black_hole(self):
        self._open.clear()

    def slow(self, bytes_per_second=0, latency=0.0):
        self._rate, self._latency = bytes_per_second, latency

    def clear(self):
        self._rate = self._latency = 0
        self._open.set()

    def close(self):
        self._over.set()
        self._open.set()
        self._listener.close()
        self.reset()

    # --- its threads

    def _accept(self):
        while not self._over.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target_port), timeout=5)
            except OSError:  # the broker is away: so is this address
                _cut(client)
                continue
            server.settimeout(None)
            self.accepted += 1
            with self._lock:
                self._sockets |= {client, server}
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source, sink):
        try:
            while data := source.recv(CHUNK):
                pause = self._latency + (len(data) / self._rate if self._rate else 0)
                if pause:
                    self._over.wait(pause)
                self._open.wait()
                sink.sendall(data)
        except OSError:  # one of them is gone
            pass
        with self._lock:
            self._sockets -= {source, sink}
        for one in (source, sink):
            _close(one)


def _cut(one):
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.shutdown(socket.SHUT_RD)  # wakes whoever reads
    except OSError:
        pass
    _close(one)


def _close(one):
    try:
        one.close()
    except OSError:
        pass
