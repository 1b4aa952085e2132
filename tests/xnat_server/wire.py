"""Sends one answer over a connection.

Imitates Tomcat 9's output: chunks of its 8 KB buffer, a length where the whole body fits into it.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from typing import Any

from .answers import Request
from .archives import Piece, Silence

BUFFER = 8192  # Tomcat's response buffer, and so the size of its chunks


class Wire:
    """Sends one answer: frames its body, and keeps to a rate if there is one."""

    BATCH = 500  # chunks handed to the system at once; it takes 1024 buffers

    def __init__(self, sock: Any, record: Request, framed: bool, rate: float | None) -> None:
        self.sock, self.record, self.framed, self.rate = sock, record, framed, rate
        self.buffers: list[Any] = []
        self.pending = bytearray()
        self.queued = 0  # bytes of the body in self.buffers
        self.first = True
        self.limit = self.BATCH * BUFFER if not rate else max(BUFFER, int(rate / 50))
        self.started = time.monotonic()

    def head(self, data: bytes) -> None:
        self.buffers.append(data)

    def write(self, piece: bytes | memoryview) -> None:
        """Take a piece of the body; what fills chunks goes out, the rest waits."""
        view = memoryview(piece)
        if not self.framed:
            for start in range(0, len(view), self.limit):  # so that a rate is kept to in small steps
                self.queue(view[start : start + self.limit])
            return
        if self.pending:
            room = BUFFER - len(self.pending)
            self.pending += view[:room]
            view = view[room:]
            if len(self.pending) == BUFFER:
                self.chunk(bytes(self.pending))
                self.pending.clear()
        whole = len(view) - len(view) % BUFFER
        for start in range(0, whole, BUFFER):
            self.chunk(view[start : start + BUFFER])
        self.pending += view[whole:]

    def chunk(self, data: bytes | memoryview) -> None:
        self.buffers.append(b"2000\r\n" if self.first else b"\r\n2000\r\n")
        self.first = False
        self.queue(data)

    def queue(self, data: bytes | memoryview) -> None:
        self.buffers.append(data)
        self.queued += len(data)
        if self.queued >= self.limit or len(self.buffers) >= 1000:
            self.flush()

    def flush(self) -> None:
        """Hand everything to the system, waiting as the rate demands."""
        self.record.bytes_sent += self.queued
        if self.buffers:
            self.send()
        self.queued = 0
        self.buffers = []
        if self.rate:
            due = self.started + self.record.bytes_sent / self.rate
            time.sleep(max(0.0, due - time.monotonic()))

    def push(self) -> None:
        """Hand everything to the system, a chunk that is not full too, as a front end does."""
        if self.framed and self.pending:
            self.rest()
        self.flush()

    def rest(self) -> None:
        """Queue what does not fill a chunk as one."""
        self.buffers.append(b"" if self.first else b"\r\n")
        self.buffers.append(b"%x\r\n" % len(self.pending))
        self.first = False
        self.queue(bytes(self.pending))
        self.pending.clear()

    def send(self) -> None:
        if isinstance(self.sock, ssl.SSLSocket) or not hasattr(self.sock, "sendmsg"):
            self.sock.sendall(b"".join(self.buffers))
            return
        total = sum(map(len, self.buffers))
        sent = self.sock.sendmsg(self.buffers)
        if sent < total:
            self.sock.sendall(b"".join(self.buffers)[sent:])

    def finish_body(self) -> None:
        """Send what is left of a whole body, but for its last line."""
        if self.framed and self.pending:
            self.rest()
        if self.framed:
            self.flush()

    def finish(self) -> None:
        """Send the last line, or what has a length."""
        if self.framed:
            self.buffers.append(b"0\r\n\r\n" if self.first else b"\r\n0\r\n\r\n")
        self.flush()

    def break_off(self) -> None:
        """Send what there is, the last chunk shorter than it says."""
        if self.framed and self.pending:
            self.buffers.append(b"2000\r\n" if self.first else b"\r\n2000\r\n")
            self.queue(bytes(self.pending))
        self.flush()


def head_start(pieces: Iterator[Piece]) -> tuple[list[Piece], bool]:
    """The first pieces, more than Tomcat's buffer holds; and whether that was all."""
    start: list[Piece] = []
    size = 0
    for piece in pieces:
        start.append(piece)
        size += 0 if isinstance(piece, Silence) else len(piece)
        if isinstance(piece, Silence):
            time.sleep(piece.seconds)
            start.pop()
        if size > BUFFER:
            return start, False
    return start, True
