"""What can stand between xget and a server: a proxy that keeps a record, and certificates."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socket
import threading
from base64 import b64decode
from pathlib import Path
from typing import Any, NamedTuple


class Asked(NamedTuple):
    """A request as the proxy got it, header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]


class Proxy:
    """An HTTP proxy on loopback that leads every name to two servers, by scheme; a context manager.

    `http` and `https` are ports; `account`, a `user:password`, is asked for where it is set.
    """

    def __init__(self, http: int = 0, https: int = 0, account: str = "") -> None:
        self.ports, self.account = {"http": http, "https": https}, account
        self.asked: list[Asked] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def __enter__(self) -> Proxy:
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self.serve, args=(self.listener.accept()[0],), daemon=True).start()

    def serve(self, client: socket.socket) -> None:
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
    """A CA of its own; `file` holds its certificate, `issue` makes those of servers."""

    def __init__(self, folder: Path, name: str = "Test CA") -> None:
        self.folder, self.name = folder, name
        self.key, certificate = self.sign(name, [], None)
        self.file = str(self.write(name, certificate))

    def issue(self, *names: str, days: int = 30) -> tuple[str, str]:
        """Make a certificate for these names and addresses; returns the files of it and of its key."""
        from cryptography.hazmat.primitives import serialization as form

        key, certificate = self.sign(f"{self.name} {names[0]} {days}", list(names), self.key, days)
        private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
        path = self.folder / f"{self.name} {names[0]} {days}.key"
        path.write_bytes(private)
        return str(self.write(f"{self.name} {names[0]} {days}", certificate)), str(path)

    def write(self, name: str, certificate: Any) -> Path:
        from cryptography.hazmat.primitives.serialization import Encoding

        path = self.folder / f"{name}.pem"
        path.write_bytes(certificate.public_bytes(Encoding.PEM))
        return path

    def sign(self, subject: str, names: list[str], issuer: Any, days: int = 30) -> tuple[Any, Any]:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        def named(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(named(subject))
            .issuer_name(named(self.name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=60))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        )
        if names:
            wanted = [alternative(name) for name in names]
            builder = builder.add_extension(x509.SubjectAlternativeName(wanted), critical=False)
        return key, builder.sign(issuer or key, hashes.SHA256())


def alternative(name: str) -> Any:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
