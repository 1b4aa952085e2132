"""Tables, and the parameters that choose their rows and columns.

Imitates `XFTTable.toJSON` and its CSV and XML forms, and how `QueryOrganizerResource` reads filters:
exact text, wildcards as SQL's LIKE, dates as MM/dd/yyyy, commas as OR, `limit` and `offset` (1.8.9).
"""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl


class Query:
    """The parameters of a request, in order."""

    def __init__(self, text: str) -> None:
        self.pairs = parse_qsl(text, keep_blank_values=True)

    def get(self, name: str) -> str:
        """The first value, else an empty string."""
        return next((value for key, value in self.pairs if key == name), "")

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.pairs if key == name]

    def is_true(self, name: str) -> bool:
        return self.get(name).lower() in ("true", "1")


@dataclass
class Table:
    """A listing: what XNAT calls a ResultSet."""

    columns: list[str]
    rows: list[dict[str, str]]
    title: str | None = None
    total: bool = True  # whether it says totalRecords
    server_root: str | None = None  # file listings only: the context path

    def json(self) -> str:
        """Every value a string; totalRecords, also a string, after the rows."""
        rows = [{key: row.get(key, "") for key in self.columns} for row in self.rows]
        text = json.dumps(rows, ensure_ascii=False, separators=(",", ":"))
        text = text.replace("/", "\\/")
        columns = [{"key": "URI", "serverRoot": self.server_root}]
        head = "" if self.server_root is None else f'"Columns":{json.dumps(columns)},'
        tail = [f'"totalRecords": "{len(rows)}"'] if self.total else []
        tail += [f'"title": {json.dumps(self.title)}'] if self.title else []
        after = ", " + ",".join(tail) if tail else ""
        return f'{{"ResultSet":{{{head}"Result":{text}{after}}}}}'

    def csv(self) -> str:
        """A header line, quotes where needed, blanks for line breaks."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(self.columns)
        for row in self.rows:
            writer.writerow([row.get(key, "").replace("\n", " ") for key in self.columns])
        return stream.getvalue()

    def xml(self) -> str:
        """A table in XML that escapes < and > only, so that & makes it ill-formed."""

        def cell(tag: str, text: str) -> str:
            return f"<{tag}>{text.replace('<', '&lt;').replace('>', '&gt;')}</{tag}>"

        total = f' totalRecords="{len(self.rows)}"' if self.total else ""
        head = "".join(cell("column", key) for key in self.columns)
        rows = ""
        for row in self.rows:
            cells = "".join(cell("cell", row.get(key, "")) for key in self.columns)
            rows += f"<row>{cells}</row>"
        results = f"<results><columns>{head}</columns><rows>{rows}</rows></results>"
        return f"<ResultSet{total}>{results}</ResultSet>"


def like(pattern: str, anchored: bool) -> re.Pattern[str]:
    """A wildcard value as SQL's LIKE reads it: * and % any text, _ any character."""
    parts = {"*": ".*", "%": ".*", "_": "."}
    text = "".join(parts.get(char) or re.escape(char) for char in pattern)
    return re.compile(f"^{text}$" if anchored else text, re.IGNORECASE | re.DOTALL)


def matches_text(value: str, wanted: str, anchored: bool) -> bool:
    """Compare as XNAT does: exactly unless wanted has a wildcard; escaped first."""
    wanted = html.escape(wanted).replace("&#x27;", "&#39;")
    if "*" in wanted or "%" in wanted:
        return bool(like(wanted, anchored).search(value))
    return value == wanted


def parse_date(text: str) -> str | None:
    """The ISO form of MM/dd/yyyy, MM.dd.yyyy or yyyyMMdd, else None."""
    match = re.fullmatch(r"(\d\d?)[/.](\d\d?)[/.](\d{4})", text)
    if match:
        return f"{match[3]}-{int(match[1]):02}-{int(match[2]):02}"
    match = re.fullmatch(r"(\d{4})(\d\d)(\d\d)", text)
    return f"{match[1]}-{match[2]}-{match[3]}" if match else None


def matches_date(value: str, wanted: str) -> bool:
    """One day or a range with `-` between; both ends included."""
    ends = [parse_date(part) for part in wanted.split("-")]
    if not value:
        return False
    return str(ends[0]) <= value[:10] <= str(ends[-1])


FILTERS = [
    "ID",
    "label",
    "project",
    "date",
    "time",
    "insert_date",
    "last_modified",
    "insert_user",
    "note",
    "modality",
    "session_type",
    "scanner",
    "UID",
    "subject_ID",
    "subject_label",
    "session_ID",
    "session_label",
    "secondary_ID",
    "name",
]


ABSTRACT = "experiment subjectassessor imagesession imageassessor imagescan project subject"
ABSTRACT_PREFIXES = {f"xnat:{name}data" for name in ABSTRACT.split()}


def field_of(fields: dict[str, str], key: str) -> str | None:
    """A field by its short name, or by an XPath (xnat:mrSessionData/coil), else None.

    An XPath of another type than the record's is empty.
    """
    if "/" not in key:
        return fields.get(key)
    known = {short.lower(): value for short, value in fields.items()}
    path = key.lower()
    if path in known:
        return known[path]
    prefix, name = path.split("/", 1)
    if prefix not in (*ABSTRACT_PREFIXES, fields.get("xsiType", "").lower()):
        return ""
    return known.get(name)


def column_name(key: str) -> str:
    """The name that a column has in the answer: XPaths in lower case, or their short name."""
    if key.lower() == "xnat:subjectassessordata/subject_id":
        return "subject_ID"
    return key.lower() if "/" in key else key


def check_dates(query: Query) -> None:
    """ValueError where a date cannot be read; one in ISO form cannot, its `-` being a range's."""
    for key, wanted in query.pairs:
        for each in wanted.split(",") if is_date(key) and wanted else ():
            ends = [parse_date(part) for part in each.split("-")]
            if len(ends) > 2 or None in ends:
                raise ValueError(each)


def is_date(key: str) -> bool:
    return key.rsplit("/", 1)[-1] in ("date", "insert_date", "last_modified")


def passes(fields: dict[str, str], query: Query, anchored: bool) -> bool:
    """Whether a row passes the filters: keys AND, commas OR."""
    for key, wanted in query.pairs:
        if key not in FILTERS and "/" not in key:
            continue
        value = field_of(fields, key) or ""
        if not wanted:
            continue
        dated = is_date(key)
        options = wanted.split(",")
        if dated and not any(matches_date(value, each) for each in options):
            return False
        if not dated and not any(matches_text(value, each, anchored) for each in options):
            return False
    return True


def columns_of(rows: Iterable[dict[str, str]], query: Query, defaults: list[str]) -> list[str]:
    """The columns that the query asks for; unknown short names are skipped."""
    wanted = query.get("columns")
    if not wanted or wanted == "DEFAULT":
        return defaults
    known = {key for row in rows for key in row} | set(defaults)
    names = [name for name in wanted.split(",") if name in known or "/" in name]
    return [column_name(name) for name in names]


def page_of(rows: list[Any], query: Query) -> tuple[list[Any], bool]:
    """The rows of the page, and whether paging is on; the cut precedes the rights."""
    if not (query.get("limit") or query.get("offset")):
        return rows, False
    limit = query.get("limit") or "100"
    offset = int(query.get("offset") or 0)
    stop = None if limit == "*" else offset + int(limit)
    return rows[offset:stop], True


def sorted_rows(rows: list[dict[str, str]], query: Query) -> list[dict[str, str]]:
    """The rows in the order that sortBy and sortOrder ask for."""
    keys = [key for key in query.get("sortBy").split(",") if key]
    if not keys:
        return rows
    down = query.get("sortOrder").upper() == "DESC"
    return sorted(rows, key=lambda row: [row.get(key, "") for key in keys], reverse=down)
