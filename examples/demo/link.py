"""The network between device and hub: a TCP relay on loopback that can be cut and mended."""

from __future__ import annotations

import contextlib
import socket
import threading


class Link:
    """Relays connections to `hub_port`. While cut, open connections are dropped and new ones are refused."""

    def __init__(self, hub_port: int) -> None:
        self._hub = ("127.0.0.1", hub_port)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._whole = True
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Drop every connection and refuse new ones."""
        with self._lock:
            self._whole = False
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Let connections through again."""
        with self._lock:
            self._whole = True

    def close(self) -> None:
        """Stop relaying for good."""
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                device, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._relay, args=(device,), daemon=True).start()

    def _relay(self, device: socket.socket) -> None:
        with device, contextlib.suppress(OSError), socket.create_connection(self._hub) as hub:
            with self._lock:
                if not self._whole:
                    return
                self._open |= {device, hub}
            back = threading.Thread(target=_copy, args=(hub, device), daemon=True)
            back.start()
            _copy(device, hub)
            back.join()
            with self._lock:
                self._open -= {device, hub}


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
