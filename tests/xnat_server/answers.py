"""Requests on the record, and answers: error pages and headers of XNAT's layers.

Imitates the "Status page" of Restlet 1.1.10 (`StatusFilter`), Tomcat 9's error report, an nginx in
front, and the headers that Restlet puts on whatever it answers; `golden/` holds real ones.
"""

# ruff: noqa: RUF001  - Tomcat's dash

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

from .archives import Piece
from .tables import Query, Table


@dataclass
class Request:
    """One request on the record; times are of time.monotonic(), header names in lower case."""

    time: float
    method: str
    path: str  # as it came, with the query
    headers: dict[str, str]
    body: bytes = b""
    end_time: float | None = None  # None while the answer is being sent
    status: int = 0
    bytes_sent: int = 0  # of the body, without framing
    transfer: bool = False  # of files: counted in most_transfers


def cookie_of(headers: dict[str, str], name: str) -> str:
    match = re.search(rf'(?:^|;\s*){name}="?([^;"]*)', headers.get("cookie", ""))
    return match[1] if match else ""


@dataclass
class Answer:
    """What to send. A body of bytes has its length known; pieces are framed as they come."""

    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes | Iterator[Piece] = b""
    length: int | None = None  # of pieces, where XNAT knows it
    chunked: bool = False  # even where the body is short
    transfer: bool = False  # files: counted in most_transfers
    closes: bool = False
    message: str | None = None  # of Restlet's error page, if it is one
    protocol: str = "HTTP/1.1"

    def __post_init__(self) -> None:
        if isinstance(self.body, bytes):
            self.length = len(self.body)


class RefusedError(Exception):
    """The request is answered with an error page."""

    def __init__(self, status: int, message: str = "", page: str = "restlet") -> None:
        super().__init__(status, message)
        self.answer = error_page(status, message, page)


REASONS = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    429: "Too Many Requests",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
RESTLET_MESSAGES = {
    400: "The request could not be understood by the server due to malformed syntax",
    404: "The server has not found anything matching the request URI",
    405: "The method specified in the request is not allowed for the resource identified by the request URI",
    500: "The server encountered an unexpected condition which prevented it from fulfilling the request",
    501: "The server does not support the functionality required to fulfill the request",
    503: "The server is currently unable to handle the request due to a temporary overloading or"
    " maintenance of the server",
}
RESTLET = "Noelios-Restlet-Engine/1.1.10"
CLOSING = (400, 500, 501, 503)  # Tomcat closes the connection after these
RESTLET_PAGE = """<html>
<head>
   <title>Status page</title>
</head>
<body>
<h3>{message}</h3><p>You can get technical details <a href="http://www.w3.org/Protocols/rfc2616/\
rfc2616-sec10.html#sec10.{section}">here</a>.<br>
Please continue your visit at our <a href="/">home page</a>.
</p>
</body>
</html>
"""
RESTLET_2_PAGE = """<html>
<head>
   <title>Status page</title>
</head>
<body style="font-family: sans-serif;">
<p style="font-size: 1.2em;font-weight: bold;margin: 1em 0px;">{reason}</p>
<p>{message}</p>
<p>You can get technical details <a href="http://www.w3.org/Protocols/rfc2616/\
rfc2616-sec10.html#sec10.{section}">here</a>.<br>
Please continue your visit at our <a href="/">home page</a>.
</p>
</body>
</html>
"""
TOMCAT_PAGE = """<!doctype html><html lang="en"><head><title>HTTP Status {status} – {reason}\
</title><style type="text/css">body {{font-family:Tahoma,Arial,sans-serif;}}</style></head><body>\
<h1>HTTP Status {status} – {reason}</h1><hr class="line" /><p><b>Type</b> Status Report</p>\
<p><b>Message</b> {message}</p><p><b>Description</b> The request was not answered.</p>\
<hr class="line" /><h3>Apache Tomcat/9.0.70</h3></body></html>"""
NGINX_PAGE = """<html>\r
<head><title>{status} {reason}</title></head>\r
<body>\r
<center><h1>{status} {reason}</h1></center>\r
<hr><center>nginx/1.18.0 (Ubuntu)</center>\r
</body>\r
</html>\r
"""
WEB_PAGE = "<!DOCTYPE html>\n<html><head><title>XNAT</title></head><body>{text}</body></html>\n"
LOGIN_FORM = '<form id="login_form" action="/login" method="post"><h3>Log In</h3></form>'


def error_page(status: int, message: str = "", page: str = "restlet") -> Answer:
    """An error as Restlet, Tomcat or a proxy in front words it."""
    reason = REASONS.get(status, "Error")
    text = html.escape(message, False)
    if page == "nginx":
        body, kind = NGINX_PAGE.format(status=status, reason=reason), "text/html"
    elif page == "tomcat":
        body = TOMCAT_PAGE.format(status=status, reason=reason, message=text)
        kind = "text/html;charset=utf-8"
    else:
        text = message or RESTLET_MESSAGES.get(status, reason)
        body = RESTLET_PAGE.format(message=text, section=section_of(status))
        kind = "text/html;charset=ISO-8859-1"
    first = restlet_headers() if page == "restlet" else []
    if page == "nginx":
        first = [("Server", "nginx/1.18.0 (Ubuntu)"), ("Date", formatdate(usegmt=True))]
    answer = Answer(status, [*first, ("Content-Type", kind)], body.encode("utf-8"))
    answer.closes = status in CLOSING
    answer.message = text if page == "restlet" else None
    return answer


def section_of(status: int) -> str:
    """Where RFC 2616 has the status, as Restlet's pages say."""
    return f"4.{status - 399}" if status < 500 else f"5.{status - 499}"


def as_restlet_2(answer: Answer, method: str) -> Answer:
    """What XNAT 1.11 makes of an answer: another error page, and 204 for a GET without an entity."""
    if answer.message is not None:
        reason, section = REASONS.get(answer.status, "Error"), section_of(answer.status)
        page = RESTLET_2_PAGE.format(reason=reason, message=answer.message, section=section)
        answer.body, answer.length = page.encode("utf-8"), len(page.encode("utf-8"))
    restlet = ("Server", RESTLET) in answer.headers
    if restlet and method == "GET" and answer.status == 200 and answer.length == 0:
        answer.status, answer.body, answer.chunked = 204, b"", False
        entity = ("Content-Type", "Content-Disposition", "Last-Modified")
        answer.headers = [pair for pair in answer.headers if pair[0] not in entity]
    return answer


def restlet_headers(*more: tuple[str, str], first: Sequence[tuple[str, str]] = ()) -> list[Any]:
    """The headers of whatever Restlet answers, in its order."""
    vary = "Accept-Charset, Accept-Encoding, Accept-Language, Accept"
    head = [*first, ("Date", formatdate(usegmt=True)), ("Vary", vary), ("Accept-Ranges", "bytes")]
    return [*head, *more, ("Server", RESTLET)]


def restlet_answer(body: Any, kind: str, *more: tuple[str, str], **rest: Any) -> Answer:
    headers = [*restlet_headers(*more), ("Content-Type", kind)]
    return Answer(200, headers, body, **rest)


def web_page(text: str, status: int = 200) -> Answer:
    body = WEB_PAGE.format(text=text).encode()
    return Answer(status, [("Content-Type", "text/html;charset=UTF-8")], body)


def json_answer(value: Any) -> Answer:
    """An answer of the XAPI."""
    return Answer(200, [("Content-Type", "application/json")], json.dumps(value).encode())


def text_answer(text: str) -> Answer:
    return restlet_answer(text.encode(), "text/plain;charset=ISO-8859-1")


def table_answer(table: Table, query: Query, accept: str = "", charset: str = "utf-8") -> Answer:
    """A listing in the format asked for; JSON unless something else is.

    What the JVM's charset has no character for becomes a question mark.
    """
    format = query.get("format").lower()
    if not format and "json" not in accept:
        format = "csv" if "text/csv" in accept else "xml" if accept.endswith("/xml") else ""
    forms = {
        "json": (table.json, "application/json"),
        "csv": (table.csv, "text/csv"),
        "xml": (table.xml, "text/xml"),
    }
    text, kind = forms.get(format or "json", (table.csv, "text/html"))
    return restlet_answer(text().encode(charset, "replace"), kind, chunked=True)
