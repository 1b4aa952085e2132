"""What can stand between xget and a server: proxies that keep a record, a gate, and certificates."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import ipaddress
import socket
import threading
from base64 import b64decode
from pathlib import Path
from typing import Any, Callable, NamedTuple, TypeVar

Self = TypeVar("Self", bound="Relay")


class Asked(NamedTuple):
    """A request as the proxy got it, header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]


class Relay:
    """Listens on loopback and serves each connection in a thread of its own; a context manager."""

    scheme = "http"

    def __init__(self) -> None:
        self.count = 0  # of connections
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.url = f"{self.scheme}://127.0.0.1:{self.port}"

    def __enter__(self: Self) -> Self:
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, self.count = self.listener.accept()[0], self.count + 1
                threading.Thread(target=self.serve, args=(client, self.count), daemon=True).start()

    def serve(self, client: socket.socket, number: int) -> None:
        """Serve one connection, the so-many-th, to its end."""
        raise NotImplementedError


class Gate(Relay):
    """Leads to one port on loopback, but ends the connections with these numbers (from 1) at once."""

    def __init__(self, port: int, *ended: int) -> None:
        super().__init__()
        self.target, self.ended = port, ended

    def serve(self, client: socket.socket, number: int) -> None:
        with client, contextlib.suppress(OSError):
            if number in self.ended:
                client.recv(65536)  # what lies unread would turn the end into a reset
                return
            with socket.create_connection(("127.0.0.1", self.target)) as server:
                threading.Thread(target=pump, args=(client, server), daemon=True).start()
                pump(server, client)


class Socks(Relay):
    """A SOCKS5 proxy (RFC 1928) that leads every name to two servers: port 443 is that of `https`.

    `account`, a `user:password`, is asked for where it is set (RFC 1929).
    """

    scheme = "socks5h"

    def __init__(self, http: int = 0, https: int = 0, account: str = "") -> None:
        super().__init__()
        self.http, self.https, self.account = http, https, account
        self.asked: list[str] = []  # NAME:PORT

    def serve(self, client: socket.socket, number: int) -> None:
        with client, contextlib.suppress(OSError):
            take = client.makefile("rb").read
            methods = take(take(2)[1])
            method = 2 if self.account else 0
            if method not in methods:
                client.sendall(b"\5\xff")
                return
            client.sendall(bytes([5, method]))
            if method and not self.admits(take, client):
                return
            kind = take(4)[3]
            name = take(take(1)[0]).decode() if kind == 3 else socket.inet_ntoa(take(4))
            port = int.from_bytes(take(2), "big")
            self.asked.append(f"{name}:{port}")
            with socket.create_connection(("127.0.0.1", self.https if port == 443 else self.http)) as server:
                client.sendall(b"\5\0\0\1" + bytes(6))
                threading.Thread(target=pump, args=(client, server), daemon=True).start()
                pump(server, client)

    def admits(self, take: Callable[[int], bytes], client: socket.socket) -> bool:
        """Read a name and a password, and answer whether they are right."""
        user, password = take(take(2)[1]).decode(), take(take(1)[0]).decode()
        right = f"{user}:{password}" == self.account
        client.sendall(bytes([1, not right]))
        return right


class Proxy(Relay):
    """An HTTP proxy that leads every name to two servers, by scheme.

    `http` and `https` are ports; `account`, a `user:password`, is asked for where it is set.
    """

    def __init__(self, http: int = 0, https: int = 0, account: str = "") -> None:
        super().__init__()
        self.ports, self.account = {"http": http, "https": https}, account
        self.asked: list[Asked] = []

    def serve(self, client: socket.socket, number: int) -> None:
        with client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                piece = client.recv(1)  # nothing beyond the head: a handshake may follow
                if not piece:
                    return
                head += piece
            first, *lines = head.decode("latin-1").split("\r\n")
            pairs = [line.partition(":") for line in lines if line]
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            method, target, _ = first.split()
            self.asked.append(Asked(method, target, headers))
            if self.account and basic(headers.get("proxy-authorization", "")) != self.account:
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
            port = self.ports["https" if method == "CONNECT" else "http"]
            with socket.create_connection(("127.0.0.1", port)) as server:
                if method == "CONNECT":
                    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    threading.Thread(target=pump, args=(client, server), daemon=True).start()
                else:
                    path = "/" + target.split("/", 3)[3] if "://" in target else target
                    kept = [line for line in lines if line and not hop(line)]
                    server.sendall(
                        "\r\n".join([f"{method} {path} HTTP/1.1", *kept, "Connection: close\r\n\r\n"]).encode(
                            "latin-1"
                        )
                    )
                pump(server, client)


def hop(line: str) -> bool:
    return line.lower().startswith(("connection:", "proxy-"))


def pump(source: socket.socket, target: socket.socket) -> None:
    """Pass bytes on until one side ends."""
    with contextlib.suppress(OSError):
        while True:
            piece = source.recv(65536)
            if not piece:
                break
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def basic(header: str) -> str:
    """Read `user:password` from a Basic header; empty where there is none."""
    kind, _, token = header.partition(" ")
    return b64decode(token).decode("utf-8") if kind == "Basic" else ""


class Authority:
    """A CA of its own; `file` holds its certificate, `issue` makes those of servers.

    It names no key identifiers, as a lab's own CA often does not: the strict reading of Python 3.13
    refuses it.
    """

    def __init__(self, folder: Path, name: str = "Test CA") -> None:
        self.folder, self.name = folder, name
        self.key, certificate = self.sign(name, [], None)
        self.file = str(self.write(name, certificate))

    def issue(self, *names: str, days: int = 30, since: int = -60) -> tuple[str, str]:
        """Make a certificate for these names and addresses, valid from `since` to `days` days from now;
        returns the files of it and of its key."""
        from cryptography.hazmat.primitives import serialization as form

        title = f"{self.name} {names[0]} {since} {days}"
        key, certificate = self.sign(title, list(names), self.key, days, since)
        private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
        path = self.folder / f"{title}.key"
        path.write_bytes(private)
        return str(self.write(title, certificate)), str(path)

    def directory(self) -> str:
        """Make a folder of CAs as `openssl rehash` leaves it: each under a hash of its name."""
        folder = self.folder / f"{self.name} folder"
        folder.mkdir(exist_ok=True)
        canonical = named(self.name.lower()).public_bytes()[2:]  # without the header of the sequence
        number = int.from_bytes(hashlib.sha1(canonical).digest()[:4], "little")
        (folder / f"{number:08x}.0").write_bytes(Path(self.file).read_bytes())
        return str(folder)

    def write(self, name: str, certificate: Any) -> Path:
        from cryptography.hazmat.primitives.serialization import Encoding

        path = self.folder / f"{name}.pem"
        path.write_bytes(certificate.public_bytes(Encoding.PEM))
        return path

    def sign(
        self, subject: str, names: list[str], issuer: Any, days: int = 30, since: int = -60
    ) -> tuple[Any, Any]:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(named(subject))
            .issuer_name(named(self.name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(days=since))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        )
        if names:
            wanted = [alternative(name) for name in names]
            builder = builder.add_extension(x509.SubjectAlternativeName(wanted), critical=False)
        return key, builder.sign(issuer or key, hashes.SHA256())


def named(text: str) -> Any:
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def alternative(name: str) -> Any:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
