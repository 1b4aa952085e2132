"""The server: connections, the record of requests, and the faults that wait for them.

Imitates Tomcat 9's connector as far as clients see it: keep-alive, 8 KB of request line at most, what
it refuses in one, and no reason phrase in the status line.
"""

from __future__ import annotations

import itertools
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields
from typing import Any

from .answers import Answer, Request, as_restlet_2, error_page
from .archives import BrokenBodyError, Piece, Silence
from .contents import ReadError
from .faults import FAULTS, ConnectionCutError, Fault, ServerStopsError, afflicted, replaced, with_balancer
from .finding import Call
from .routes import Site
from .tables import Query
from .wire import BUFFER, Wire, head_start
from .world import World

ILLEGAL = re.compile(r'[^!-~]|["<>\\^`{|}\[\]]')  # what Tomcat refuses in a request line


class Connection:
    """One client's connection: its requests, one after the other."""

    def __init__(self, server: XnatServer, sock: Any) -> None:
        self.server, self.sock = server, sock
        self.input = sock.makefile("rb")

    def run(self) -> None:
        """Answer requests until either side has enough."""
        with suppress(OSError, ConnectionCutError, ValueError):
            while self.one_request():
                pass

    def one_request(self) -> bool:
        """Read and answer a request; false when the connection is to end."""
        self.sock.settimeout(self.server.world.keep_alive)
        line = self.input.readline(65536)
        if not line.strip():
            return False
        parts = line.decode("latin-1").split()
        headers = self.read_headers()
        body = self.input.read(int(headers.get("content-length") or 0))
        self.sock.settimeout(None)
        method, target, version = [*parts, "", "", ""][:3]
        record = self.server.arrived(method, target, headers, body)
        try:
            keep = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
            return self.reply(record, version, keep, len(line))
        finally:
            self.server.ended(record)

    def read_headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        while True:
            line = self.input.readline(65536).decode("latin-1").strip()
            if not line:
                return headers
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()

    def reply(self, record: Request, version: str, keep: bool, length: int) -> bool:
        """Find the answer and send it."""
        faults = self.server.struck(record)
        for fault in faults:
            if fault.kind == "silence" and fault.get("after") is None and not fault.get("between"):
                self.server.wait(fault.get("seconds", 0))
            if fault.kind == "continue":
                self.go_on(fault)
        self.server.wait(self.server.latency)
        if length > BUFFER or ILLEGAL.search(record.path):
            answer = error_page(400, "Invalid character found in the request target", "tomcat")
        else:
            answer = self.server.answer_to(record, faults)
        return self.send(record, answer, faults, version, keep and not answer.closes)

    def go_on(self, fault: Fault) -> None:
        """Say 100 Continue as often as the fault wants it, which may be for ever."""
        count = fault.get("count")
        for _ in itertools.repeat(None) if count is None else range(count):
            self.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.server.wait(fault.get("seconds", 0.05))
            if self.server.stopped.is_set():
                raise ConnectionCutError()

    def send(self, record: Request, answer: Answer, faults: list[Fault], version: str, keep: bool) -> bool:
        """Send an answer, as the faults want it; false when the connection is to end."""
        body: Iterator[Piece] = iter([answer.body] if isinstance(answer.body, bytes) else answer.body)
        if record.method != "HEAD" and answer.length is None and not answer.chunked:
            answer, body = self.buffered(answer, body)
            keep = keep and not answer.closes
        for fault in faults:
            body = afflicted(answer, body, fault)
        version = min(version, answer.protocol)
        keep = keep and version == "HTTP/1.1"
        framed = answer.chunked or answer.length is None
        rate = next((f.get("rate") for f in faults if f.kind == "slow"), self.server.rate)
        wire = Wire(self.sock, record, framed and version == "HTTP/1.1", rate)
        self.send_head(wire, self.head(record, answer, framed, version, keep), faults)
        if answer.transfer:
            self.server.began(record)
        if record.method == "HEAD":
            wire.flush()
            return keep
        return self.send_body(wire, body) and keep

    def buffered(self, answer: Answer, body: Iterator[Piece]) -> tuple[Answer, Iterator[Piece]]:
        """As Tomcat does: a short body gets a length, an early failure its own page."""
        try:
            start, whole = head_start(body)
        except BrokenBodyError:
            text = "An exception occured writing the response entity"
            failed = error_page(500, text, "tomcat")
            return failed, iter([failed.body])  # type: ignore[list-item]
        if whole:
            answer.length = sum(len(piece) for piece in start)  # type: ignore[arg-type, misc]
        return answer, itertools.chain(start, body)

    def head(self, record: Request, answer: Answer, framed: bool, version: str, keep: bool) -> bytes:
        """The status line, without a reason, and the headers."""
        record.status = answer.status
        headers = list(answer.headers)
        if framed and version == "HTTP/1.1":
            headers.append(("Transfer-Encoding", "chunked"))
        elif not framed and answer.status not in (204, 304):
            headers.append(("Content-Length", str(answer.length)))
        if not keep:
            headers.append(("Connection", "close"))
        lines = [f"{answer.protocol} {answer.status} ", *(f"{name}: {value}" for name, value in headers)]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8")

    def send_head(self, wire: Wire, head: bytes, faults: list[Fault]) -> None:
        """Send the head, or let it wait for the body; byte by byte where a fault wants it."""
        drip = next((f for f in faults if f.kind == "drip" and f.get("head", True)), None)
        if drip is None:
            wire.head(head)
            return
        for byte in head:
            self.sock.sendall(bytes([byte]))
            self.server.wait(drip.get("seconds", 0.1))

    def send_body(self, wire: Wire, body: Iterator[Piece]) -> bool:
        """Send the pieces; false where the connection cannot be used any more."""
        try:
            for piece in body:
                if isinstance(piece, Silence):
                    (wire.push if piece.pushed else wire.flush)()
                    self.server.wait(piece.seconds)
                else:
                    wire.write(piece)
        except BrokenBodyError:
            pass  # XNAT ends it as if it were whole
        except (ConnectionCutError, ReadError) as error:
            wire.break_off()
            if isinstance(error, ServerStopsError):
                self.server.stop()
            return False
        wire.finish_body()
        self.server.ended(wire.record)
        wire.finish()
        return True


class XnatServer:
    """A World on a loopback port; a context manager.

    `latency` is slept before each answer (seconds), `rate` limits each connection (bytes a
    second). `stop()` breaks every connection, `start()` listens on the same port again.
    `switches` are fields of the World, for short: `XnatServer(world, secure_cookies=True)`.
    """

    def __init__(
        self,
        world: World,
        context: str = "",
        certificate: tuple[str, str] | None = None,
        port: int = 0,
        latency: float = 0,
        rate: float | None = None,
        **switches: Any,
    ) -> None:
        unknown = set(switches) - {each.name for each in fields(world)}
        if unknown:
            raise TypeError(f"no such switch: {sorted(unknown)}")
        for name, value in switches.items():
            setattr(world, name, value)
        self.world, self.context = world, context.rstrip("/")
        self.port, self.latency, self.rate = port, latency, rate
        self.site = Site(world, self.context)
        self.requests: list[Request] = []
        self.most_transfers = self.open_transfers = 0
        self.faults: list[Fault] = []
        self.lock = threading.Lock()
        self.switch = threading.Lock()  # one start or stop at a time
        self.connections: set[Any] = set()
        self.stopped = threading.Event()
        self.tls: ssl.SSLContext | None = None
        if certificate:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(*certificate)

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}{self.context}"

    @property
    def sessions_opened(self) -> int:
        """How many server sessions log-ins (and guests) have opened."""
        return self.site.logins.opened

    @property
    def refused_logins(self) -> list[str]:
        """The accounts whose log-ins were refused, in the order of the refusals."""
        return list(self.site.logins.refused)

    def __enter__(self) -> XnatServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> XnatServer:
        """Listen; after a stop on the same port, with no session left."""
        with self.switch:
            self.listener = socket.socket()
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.listener.bind(("127.0.0.1", self.port))
            self.listener.listen(128)
            self.listener.settimeout(0.2)
            self.port = self.listener.getsockname()[1]
            self.site.logins.expire()
            self.stopped = threading.Event()
            self.thread = threading.Thread(target=self.accept, args=(self.listener,), daemon=True)
            self.thread.start()
        return self

    def stop(self) -> None:
        """Stop in the middle of whatever is going on."""
        with self.switch:
            self.stopped.set()
            with suppress(OSError):
                self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
            self.thread.join()
            with self.lock:
                connections = list(self.connections)
            for sock in connections:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def accept(self, listener: socket.socket) -> None:
        while not self.stopped.is_set():
            try:
                sock, _ = listener.accept()
            except socket.timeout:
                continue
            except OSError:
                return
            with self.lock:
                self.connections.add(sock)
            threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def serve(self, sock: Any) -> None:
        """Serve a connection to its end."""
        raw = sock
        with suppress(OSError):
            sock.settimeout(self.world.keep_alive)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls:
                sock = self.tls.wrap_socket(sock, server_side=True)
                with self.lock:
                    self.connections.add(sock)
            Connection(self, sock).run()
        with self.lock:
            self.connections -= {raw, sock}
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()

    def wait(self, seconds: float) -> None:
        """Sleep, but not beyond a stop."""
        if seconds:
            self.stopped.wait(seconds)

    # The record

    def arrived(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Request:
        record = Request(time.monotonic(), method, target, headers, body)
        with self.lock:
            self.requests.append(record)
        return record

    def began(self, record: Request) -> None:
        """Count a transfer of files."""
        with self.lock:
            record.transfer = True
            self.open_transfers += 1
            self.most_transfers = max(self.most_transfers, self.open_transfers)

    def ended(self, record: Request) -> None:
        """Note the end of an answer, before its last bytes: a client that has it all may
        already ask for more on another connection."""
        with self.lock:
            if record.end_time is None:
                record.end_time = time.monotonic()
                self.open_transfers -= record.transfer

    def clear(self) -> None:
        """Forget the record and the faults."""
        with self.lock:
            self.requests = []
            self.faults = []
            self.most_transfers = self.open_transfers

    def expire_sessions(self) -> None:
        """End every log-in session."""
        self.site.logins.expire()

    # Faults

    def fault(
        self, kind: str, match: str = "", times: int | None = 1, skip: int = 0, **details: Any
    ) -> Fault:
        """Let requests whose `METHOD path?query` match fail; FAULTS has kinds and details."""
        if kind not in FAULTS:
            raise ValueError(f"no such fault: {kind}")
        known = set(re.findall(r"\b(\w+)=", FAULTS[kind]))
        if set(details) - known:
            raise ValueError(f"{kind} takes {sorted(known)}, not {sorted(set(details) - known)}")
        fault = Fault(kind, re.compile(match), times, skip, details)
        with self.lock:
            self.faults.append(fault)
        return fault

    def struck(self, record: Request) -> list[Fault]:
        """The faults that strike this request."""
        with self.lock:
            line = f"{record.method} {record.path}"
            return [fault for fault in self.faults if fault.takes(line)]

    def answer_to(self, record: Request, faults: list[Fault]) -> Answer:
        """The site's answer, or that of a fault, in the form of the Restlet that the site has."""
        answer = self.chosen_answer(record, faults)
        for fault in faults:
            if fault.kind == "balancer":
                with_balancer(answer, fault, record.headers)
        return as_restlet_2(answer, record.method) if self.world.restlet == 2 else answer

    def chosen_answer(self, record: Request, faults: list[Fault]) -> Answer:
        for fault in faults:
            if fault.kind == "expire":
                self.expire_sessions()
            if fault.kind == "call":
                fault.details["action"]()
        for fault in faults:
            answer = replaced(fault, record.path, record.headers)
            if answer:
                return answer
        path, _, query = record.path.partition("?")
        if re.search("%2F", path, re.IGNORECASE):
            return error_page(400, "Invalid URI: noSlash", "tomcat")
        inside = path[len(self.context) :]
        if not path.startswith(self.context) or (inside and not inside.startswith("/")):
            return error_page(404, "", "tomcat")
        asked = (record.method, inside, Query(query), record.headers)
        call = Call(*asked, faults, self.url, body=record.body)
        return self.site.answer(call)
