"""File listings, single files and archives.

Imitates `FileList` and `SecureResource.representFile` on Restlet 1.1.10, whose `RangeFilter` answers
ranges of files well and ranges of archives wrongly.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path
from urllib.parse import unquote_plus

from .answers import Answer, RefusedError, restlet_answer, restlet_headers
from .archives import ARCHIVES, Member, Piece, ZipWriter, gzipped, in_records, tar_pieces
from .contents import ReadError
from .documents import attribute
from .faults import spoil
from .finding import Call, Finder, Selection, all_resources
from .naming import Entry, Naming, resource_uri, session_of
from .tables import Query, Table
from .world import File, Resource, World

TYPES_BY_ENDING = {
    ".txt": "text/plain",
    ".csv": "text/csv",
    ".xml": "text/xml",
    ".json": "application/json",
    ".gif": "image/gif",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".pdf": "application/pdf",
    ".zip": "application/zip",
    ".gz": "application/x-gzip",
}


class Files(Finder):
    """File listings, archives and single files."""

    def get_subject_files(self, call: Call) -> Answer:
        subject = self.find_subject(call, self.find_project(call))
        return self.files(call, Selection([], [subject], subject.label))

    def get_catalog(self, call: Call) -> Answer:
        """One resource's catalog, whatever the format asked for."""
        selection = self.select(call)
        entries = self.entries(call, selection)
        lines = [
            f"<cat:entry{attribute('URI', each.name)}{attribute('name', each.name)}/>" for each in entries
        ]
        head = '<?xml version="1.0" encoding="UTF-8"?>\n<cat:Catalog xmlns:cat='
        body = f'{head}"http://nrg.wustl.edu/catalog">\n<cat:entries>\n'
        body += "\n".join(lines) + "\n</cat:entries>\n</cat:Catalog>\n"
        return restlet_answer(body.encode(), "text/xml", chunked=True)

    def get_files(self, call: Call) -> Answer:
        return self.files(call, self.select(call))

    def files(self, call: Call, selection: Selection) -> Answer:
        """A listing, an archive or a file."""
        if call.method == "HEAD" and len(selection.holders) != 1:
            raise RefusedError(404)
        entries = self.entries(call, selection)
        if call.part("file") or call.query.get("index"):
            return self.one_file(call, self.pick_file(call, entries))
        format = call.query.get("format").lower()
        if format in ARCHIVES:
            return self.archive(call, selection, entries, format)
        if call.method == "HEAD":
            raise RefusedError(404)
        return self.file_list(call, entries)

    def entries(self, call: Call, selection: Selection) -> list[Entry]:
        """The files of the resources that the path and the filters ask for."""
        holders = selection.holders
        resources = [each for holder in holders for each in holder.resources]
        if call.part("kind"):
            where = call.part("where") or "out"
            resources = [each for each in resources if each.where == where]
        elif not call.part("scans") and call.query.is_true("all"):
            resources = [each for s in selection.sessions for each in all_resources(s)]
        if call.part("resource"):
            resources = self.by_label_or_number(call, resources)
        base = "/data"
        if len(resources) == 1 and call.part("project") and call.part("subject"):
            base += f"/projects/{call.part('project')}/subjects/{call.part('subject')}"
        entries = [
            Entry(each, name, file, base + resource_uri(each))
            for each in resources
            for name, file in ({} if each.unlisted else each.files).items()
        ]
        return [each for each in entries if passes_file_filters(each, call.query)]

    def by_label_or_number(self, call: Call, resources: list[Resource]) -> list[Resource]:
        """Resources by a comma list of labels or numbers; 404 where none is one."""
        wanted = [name.strip() for name in call.part("resource").split(",")]
        self.check_numbers(call, [name for name in wanted if name.isdigit()])
        chosen = [
            each
            for each in resources
            if str(each.id) in wanted
            or (each.label and each.label in wanted)
            or (not each.label and "NULL" in wanted)
        ]
        if not chosen:
            raise RefusedError(404)
        return chosen

    def check_numbers(self, call: Call, numbers: list[str]) -> None:
        """One number that is no resource's, or one's that the user may not read, makes the whole request
        404 (the constructor of `XNATCatalogTemplate`). So does any where the database's own test of
        rights (`data_type_fns_can_action_entity`) does not know the data type."""
        if numbers and self.world.labels_only:
            raise RefusedError(404)
        holders = self.world.holders_by_number() if numbers else {}
        for number in numbers:
            session = session_of(holders.get(number))
            if number not in holders or (session and not self.world.readable_by(call.user, session)):
                raise RefusedError(404)

    def file_list(self, call: Call, entries: list[Entry]) -> Answer:
        rows = [entry.row(self.world) for entry in entries]
        for fault in call.faults:
            if fault.kind == "listing":
                rows = fault.details["edit"](rows)
        names = [
            "Name",
            "Size",
            "URI",
            "collection",
            "file_tags",
            "file_format",
            "file_content",
            "cat_ID",
            "digest",
        ]
        names = names[:-1] if self.world.digests == "none" else names
        table = Table(names, rows, "Files", total=False, server_root=self.context)
        return self.tabled(call, table)

    def pick_file(self, call: Call, entries: list[Entry]) -> Entry:
        """The file of the path, else 404."""
        found = entries
        if call.part("file"):
            forms = [call.part("file")] if self.world.old else file_names(call.part("file"), self.world)
            found = [each for form in forms for each in entries if each.name == form]
        found = [each for each in found if each.file.on_disk]
        index = int(call.query.get("index") or 0)
        if index >= len(found):
            raise RefusedError(404, "Unable to find file.", "tomcat")
        return found[index]

    def one_file(self, call: Call, entry: Entry) -> Answer:
        """A file, or the part of it that Range asks for."""
        name = entry.name.rsplit("/", 1)[-1]
        if call.query.get("format") == "zip" and not name.endswith(".zip"):
            member = Member(name, entry.file.data, entry.file.modified)
            return self.zip_answer(call, [member], name + ".zip", "zip")
        file = entry.file
        check_conditions(call.headers, file.modified)
        start, stop = range_of(call.headers.get("range", ""), file.data.size)
        modified = ("Last-Modified", formatdate(file.modified, usegmt=True))
        part = ("Content-Range", f"bytes {start}-{stop - 1}/{file.data.size}")
        ranged = "range" in call.headers
        more = [("Cache-Control", "must-revalidate"), disposition(name)]
        headers = restlet_headers(*more, first=[modified, part] if ranged else [modified])
        kind = TYPES_BY_ENDING.get(Path(name).suffix.lower(), "application/octet-stream")
        body = failing(file, start, stop)
        headers.append(("Content-Type", kind))
        status = 206 if ranged else 200
        return Answer(status, headers, body, length=stop - start, transfer=True)

    def archive(self, call: Call, selection: Selection, entries: list[Entry], format: str) -> Answer:
        """The files in one archive: those that the disk has when it is prepared."""
        entries = [each for each in entries if each.file.on_disk]
        naming = self.naming(call, selection, format)
        members = [
            Member(
                naming.path(each), each.file.data, each.file.modified, each.file.vanishes, each.file.fails_at
            )
            for each in entries
        ]
        for fault in call.faults:
            members = spoil(members, fault)
        if not members:
            raise RefusedError(404)
        return self.zip_answer(call, members, f"{selection.top}.{format}", format)

    def naming(self, call: Call, selection: Selection, format: str) -> Naming:
        query = call.query
        inner = bool(call.part("scans") or call.part("kind"))
        return Naming(
            query.get("structure") or "default",
            inner and not query.is_true("all"),
            query.is_true("projectIncludedInPath"),
            query.is_true("subjectIncludedInPath"),
            format != "zip",
            self.world.old_assessor_layout,
            selection.holders,
            selection.top,
        )

    def zip_answer(self, call: Call, members: list[Member], name: str, format: str) -> Answer:
        """An archive as it is written; an open range makes Restlet fail."""
        compression = self.compression(call.query)
        if re.fullmatch(r"bytes=(-\d+|\d+-)", call.headers.get("range", "")):
            refused = RefusedError(500)
            refused.answer.headers.insert(3, disposition(name))
            raise refused
        if format == "zip":
            endless = any(f.kind == "endless" and f.get("where") == "directory" for f in call.faults)
            pieces = ZipWriter(compression, not self.world.old, endless).pieces(members)
        else:
            pieces = in_records(tar_pieces(members))
            pieces = gzipped(pieces) if format == "tar.gz" else pieces
        chunked = format != "zip" and not self.world.old
        more = {"chunked": chunked, "transfer": True}
        return restlet_answer(pieces, ARCHIVES[format], disposition(name), **more)

    def compression(self, query: Query) -> int:
        text = query.get("compression")
        if not text:
            return self.world.compression
        if not text.isdigit():
            raise RefusedError(400)
        if text not in ("0", "8"):
            raise RefusedError(500)
        return int(text)


def file_names(path: str, world: World) -> list[str]:
    """The names that a path can mean. It is decoded as a whole where %20 or %2B occurs in it (`FileList`,
    1.8); then the catalog is asked for it as it is, and for it decoded (`CatalogUtils.getEntryByURI`).
    Java's decoder takes a + for a blank."""
    if "%20" in path or "%2B" in path:
        path = unquote_plus(path, world.charset)
    return [path, unquote_plus(path, world.charset)]


def passes_file_filters(entry: Entry, query: Query) -> bool:
    """Whether file_format and file_content, of the entry itself, are as asked."""
    formats, contents = query.all("file_format"), query.all("file_content")
    row_format, row_content = entry.format_and_content()
    return (not formats or row_format in formats) and (not contents or row_content in contents)


def check_conditions(headers: dict[str, str], modified: float) -> None:
    """304 or 412 where the request's conditions on the file's time say so."""
    since, until = headers.get("if-modified-since"), headers.get("if-unmodified-since")
    with suppress(ValueError, TypeError):
        if since and int(modified) <= parsedate_to_datetime(since).timestamp():
            refused = RefusedError(304)
            refused.answer = Answer(304, restlet_headers())
            raise refused
        if until and int(modified) > parsedate_to_datetime(until).timestamp():
            raise RefusedError(412)


def range_of(header: str, size: int) -> tuple[int, int]:
    """Start and stop of the range; several are 501, one beyond the end 500."""
    if not header:
        return 0, size
    if "," in header:
        raise RefusedError(501)
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", header.strip())
    if not match or not (match[1] or match[2]):
        raise RefusedError(400)
    if not match[1]:
        return max(0, size - int(match[2])), size
    start, stop = int(match[1]), min(size, int(match[2] or size) + 1)
    if start >= stop:
        raise RefusedError(500)
    return start, stop


def disposition(name: str) -> tuple[str, str]:
    """Name the file that comes; Tomcat writes no control characters into a head."""
    name = re.sub(r"[\x00-\x1f\x7f]", " ", name)
    return "Content-Disposition", f'attachment; filename="{name}";'


def failing(file: File, start: int, stop: int) -> Iterator[Piece]:
    """The bytes of a single file, up to its read error if it has one."""
    end = stop if file.fails_at is None else min(stop, file.fails_at)
    yield from file.data.blocks(start, end)
    if end < stop:
        raise ReadError()
