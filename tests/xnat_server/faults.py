"""Failures on demand: of XNAT itself, of what lies in front of it, and of the connection.

`FAULTS` lists the kinds and their details; `XnatServer.fault` lets one wait for requests.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from .answers import Answer, cookie_of, error_page, web_page
from .archives import Member, Piece, Silence, gzipped, zeros
from .contents import Synthetic, as_content

FAULTS = {
    # The answer is another one.
    "status": "status=, message='', retry_after=None, page='restlet'|'tomcat'|'nginx'",
    "html": "body='<html>..': a web page with status 200",
    "redirect": "location= ({path} in it: the path asked for, with the query), status=302",
    "answer": "status=200, headers={}, body=b'': anything",
    "balancer": "name='ROUTEID': the first request gets a cookie; one without it then is 401",
    "document": "id=None: a session's document is another one's, by default the next one's",
    "fallback": "files are looked for at the session's subject, as for an unmatched list",
    # Something happens before the answer.
    "expire": "all sessions of the server end first",
    "call": "action=: a function without arguments, called first",
    # A listing says something else.
    "empty": "it fails inside: 200 and no body",
    "listing": "edit=: a function from the rows (dicts) to other rows",
    # An archive goes wrong; member= is a regular expression, None the middle member.
    "missing": "member=: gone from the disk when the archive is prepared",
    "vanish": "member=: gone from the disk in mid-stream",
    "unreadable": "member=, after=half: a read error in it after so many bytes",
    "duplicate": "member=: its path comes a second time, right after it",
    "flip": "member=, at=middle: a byte of its data is inverted (the CRC is of the true one)",
    "add": "name=, data=b'', mode=0, compression=None, first=False: a member XNAT never had",
    # The connection goes wrong; after= counts bytes of the body.
    "cut": "after=0: the connection breaks, inside a chunk",
    "truncate": "after=0: the body ends there, cleanly",
    "silence": "seconds=, after=None (before the status line) | bytes, between=False: members",
    "slow": "rate=: bytes a second",
    "stop": "after=0: the whole server stops, as by XnatServer.stop()",
    "gzip": "encoding='gzip', chunked=False: encoded though nobody asked; another name is a lie",
    "drip": "seconds=0.1, head=True, body=False: these come a byte at a time",
    "continue": "seconds=0.05, count=None (for ever): 100 Continue, again and again, before the answer",
    "endless": "where='end' (of any body)|'member' (the last of a ZIP)|'directory' (of a ZIP): zeros",
    "http10": "as by HTTP/1.0: without chunks, and the end of the connection is that of the body",
}


@dataclass
class Fault:
    """A failure that waits for the requests whose `METHOD path?query` match."""

    kind: str
    match: re.Pattern[str]
    times: int | None
    skip: int
    details: dict[str, Any]
    struck: int = 0  # requests so far

    def takes(self, line: str) -> bool:
        """Whether it strikes this request; counts."""
        if self.times == 0 or not self.match.search(line):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        self.struck += 1
        return True

    def get(self, name: str, default: Any = None) -> Any:
        return self.details.get(name, default)


def chosen_members(members: list[Member], fault: Fault) -> list[Member]:
    """The members that a fault means: those that match, or the middle one."""
    pattern = fault.get("member")
    if pattern is None:
        return members[len(members) // 2 :][:1]
    return [each for each in members if re.search(pattern, each.path)]


def spoil(members: list[Member], fault: Fault) -> list[Member]:
    """The members of an archive with the fault in them."""
    chosen = chosen_members(members, fault)
    if fault.kind == "missing":
        return [each for each in members if each not in chosen]
    if fault.kind == "duplicate":
        return [each for m in members for each in ([m, m] if m in chosen else [m])]
    if fault.kind == "add":
        return added(members, fault)
    for member in chosen if fault.kind in ("vanish", "unreadable", "flip") else ():
        half = member.data.size // 2
        member.vanishes = member.vanishes or fault.kind == "vanish"
        if fault.kind == "unreadable":
            member.fails_at = min(fault.get("after", half), member.data.size)
        if fault.kind == "flip":
            member.flip = fault.get("at", half)
    if fault.kind == "endless" and fault.get("where") == "member":
        members[-1].data = Synthetic(1 << 60, None)
    if fault.kind == "silence" and fault.get("between"):
        for member in members[1:]:
            member.silence = fault.get("seconds", 0)
    return members


def added(members: list[Member], fault: Fault) -> list[Member]:
    """The members and one that XNAT never had, whatever its name."""
    data, mode = as_content(fault.get("data", b"")), fault.get("mode", 0)
    compression = fault.get("compression")
    extra = Member(fault.get("name", "extra"), data, mode=mode, compression=compression, forced=True)
    return [extra, *members] if fault.get("first") else [*members, extra]


def replaced(fault: Fault, path: str, headers: dict[str, str]) -> Answer | None:
    """The answer that a fault gives instead of the site's, if it does."""
    if fault.kind == "balancer":
        return unbalanced(fault, headers)
    if fault.kind == "html":
        return web_page(fault.get("body", "<h1>Welcome</h1>"))
    if fault.kind == "redirect":
        location = fault.get("location", "/").replace("{path}", path)
        return Answer(fault.get("status", 302), [("Location", location)], b"")
    if fault.kind == "answer":
        given = list(fault.get("headers", {}).items())
        return Answer(fault.get("status", 200), given, fault.get("body", b""))
    if fault.kind != "status":
        return None
    status = fault.get("status", 503)
    usual = {401: "tomcat", 403: "tomcat", 429: "nginx", 502: "nginx", 503: "nginx", 504: "nginx"}
    page = fault.get("page") or usual.get(status, "restlet")
    answer = error_page(status, fault.get("message", ""), page)
    if fault.get("retry_after") is not None:
        answer.headers.append(("Retry-After", str(fault.get("retry_after"))))
    return answer


def unbalanced(fault: Fault, headers: dict[str, str]) -> Answer | None:
    """401 for a request that comes without the cookie of the balancer, but for the first."""
    if cookie_of(headers, fault.get("name", "ROUTEID")) or fault.struck == 1:
        return None
    return error_page(401, "Full authentication is required to access this resource", "tomcat")


def with_balancer(answer: Answer, fault: Fault, headers: dict[str, str]) -> None:
    """Add the balancer's cookie for who lacks it."""
    name = fault.get("name", "ROUTEID")
    if not cookie_of(headers, name):
        answer.headers.append(("Set-Cookie", f"{name}=.node1; Path=/"))


class ConnectionCutError(Exception):
    """The connection is to break here."""


class ServerStopsError(ConnectionCutError):
    """All connections are."""


def interrupted(pieces: Iterable[Piece], fault: Fault) -> Iterator[Piece]:
    """A body to which something happens after so many bytes, or at its end if it is shorter."""
    left = fault.get("after") or 0
    pieces = iter(pieces)
    for piece in pieces:
        if isinstance(piece, Silence):
            yield piece
        elif len(piece) <= left:
            left -= len(piece)
            yield piece
        else:
            yield piece[:left]
            if fault.kind == "truncate":
                return
            if fault.kind == "silence":
                yield Silence(fault.get("seconds", 0))
                yield piece[left:]
                yield from pieces
                return
            break
    if fault.kind == "silence":
        yield Silence(fault.get("seconds", 0))
    if fault.kind == "stop":
        raise ServerStopsError()
    if fault.kind == "cut":
        raise ConnectionCutError()


def afflicted(answer: Answer, body: Iterator[Piece], fault: Fault) -> Iterator[Piece]:
    """The body with the fault in it; the answer's head changes with it where it has to."""
    if fault.kind == "http10":
        answer.protocol = "HTTP/1.0"
    if fault.kind == "gzip":
        return encoded(answer, body, fault)
    if fault.kind == "drip" and fault.get("body"):
        return dripping(body, fault.get("seconds", 0.1))
    if fault.kind == "endless" and fault.get("where", "end") == "end":
        answer.length, answer.chunked = None, True
        return itertools.chain(body, zeros())
    if fault.kind == "truncate" and answer.length is not None:
        answer.length = min(answer.length, fault.get("after") or 0)
    timed = fault.kind == "silence" and fault.get("after") is not None
    if timed or fault.kind in ("cut", "truncate", "stop"):
        return interrupted(body, fault)
    return body


def encoded(answer: Answer, body: Iterator[Piece], fault: Fault) -> Iterator[Piece]:
    """The body in gzip, or as it is under another name: with a length of its own, or in chunks."""
    name = fault.get("encoding", "gzip")
    answer.headers.append(("Content-Encoding", name))
    body = gzipped(body) if name == "gzip" else body
    answer.chunked, answer.length = fault.get("chunked", False), None
    if answer.chunked:
        return body
    data = b"".join(piece for piece in body if not isinstance(piece, Silence))
    answer.length = len(data)
    return iter([data])


def dripping(body: Iterator[Piece], seconds: float) -> Iterator[Piece]:
    """The body, each byte by itself."""
    for piece in body:
        if isinstance(piece, Silence):
            yield piece
            continue
        for byte in bytes(piece):
            yield bytes([byte])
            yield Silence(seconds, pushed=True)
