"""The paths of files: on the archive's disk, in listings, and in archives.

Imitates `FileList.buildZipRepresentation` and `RestFileUtils` with the four values of `structure=`, the
textual replacement of ids by labels and types included, and the rows of `CatalogUtils.getEntryDetails`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .world import Assessor, File, Reconstruction, Resource, Scan, Session, Subject, World


def sanitised(type: str) -> str:
    """A type as folder names have it: one `_` for each character but A-Z a-z 0-9 _."""
    return re.sub(r"[^A-Za-z0-9_]", "_", type)


def numbered(id: str, type: str) -> str:
    """The folder of a scan or reconstruction: its id, and its type if it has one."""
    return f"{id}-{sanitised(type)}" if type else id


def resource_name(resource: Resource) -> str:
    return resource.label or str(resource.id)


def path_on_disk(resource: Resource) -> str:
    """The folder of a resource in the archive: project, arc001, session, kind, ..."""
    holder: Any = resource.holder
    name = resource_name(resource)
    if isinstance(holder, Subject):
        return f"{holder.project.id}/subjects/{holder.label}/{name}"
    session = holder if isinstance(holder, Session) else holder.session
    top = f"{session.project.id}/arc001/{session.label}"
    if isinstance(holder, Scan):
        return f"{top}/SCANS/{holder.id}/{name}"
    if isinstance(holder, Reconstruction):
        return f"{top}/PROCESSED/{holder.id}/{name}"
    if isinstance(holder, Assessor):
        return f"{top}/ASSESSORS/{holder.label}/{name}"
    return f"{top}/RESOURCES/{name}"


def resource_uri(resource: Resource) -> str:
    """The path of a resource below /data, as listings of several holders show it."""
    holder: Any = resource.holder
    if isinstance(holder, Subject):
        base = f"/projects/{holder.project.id}/subjects/{holder.id}"
    elif isinstance(holder, Session):
        base = f"/experiments/{holder.id}"
    else:
        kinds = {Scan: "scans", Assessor: "assessors", Reconstruction: "reconstructions"}
        where = "" if isinstance(holder, Scan) else f"/{resource.where}"
        where = "" if where == "/resources" else where
        session, id = holder.session, holder.id
        base = f"/experiments/{session.id}/{kinds[type(holder)]}/{id}{where}"
    return f"{base}/resources/{resource.id}"


@dataclass
class Entry:
    """A file of the answer: where it is, and what is asked of it."""

    resource: Resource
    name: str  # path below the resource
    file: File
    base: str  # the URI of its resource

    def format_and_content(self) -> tuple[str, str]:
        """Of the catalog entry: those of DICOM have them, others lack them as a rule."""
        resource, file = self.resource, self.file
        dicom = resource.format == "DICOM"
        format = (resource.format if dicom else "") if file.format is None else file.format
        content = (resource.content if dicom else "") if file.content is None else file.content
        return format, content

    def row(self, world: World) -> dict[str, str]:
        """Its row in a file listing."""
        file = self.file
        size = str(file.data.size if file.size_listed is None else file.size_listed)
        digest = file.md5
        if digest is None:
            digest = file.data.md5 if world.digests == "md5" else ""
        row = {
            "Name": self.name.rsplit("/", 1)[-1],
            "Size": size if world.listed_sizes else "",
            "URI": f"{self.base}/files/{self.name}",
            "collection": self.resource.label,
            "file_tags": file.tags,
            "file_format": self.format_and_content()[0],
            "file_content": self.format_and_content()[1],
            "cat_ID": str(self.resource.id),
            "digest": digest,
        }
        if world.digests == "none":
            del row["digest"]
        return row


@dataclass
class Naming:
    """How an archive names its members: the parameters of the request that matter."""

    structure: str = "default"
    suffixes: bool = True  # types behind scan ids; not with all=true
    project_included: bool = False
    subject_included: bool = False
    tar: bool = False
    old_assessors: bool = False
    holders: Sequence[Any] = ()  # what was asked for; their ids are replaced by text
    top: str = ""  # the folder of a subject's resources

    def path(self, entry: Entry) -> str:
        """The member path of a file."""
        if self.structure == "improved":
            return self.improved(entry)
        if self.structure == "legacy":
            path = path_on_disk(entry.resource).split("/arc001/", 1)[-1] + "/" + entry.name
        else:
            path = self.default(entry)
        return self.prefix(entry) + path

    def prefix(self, entry: Entry) -> str:
        session = session_of(entry.resource.holder)
        project = f"{session.project.id}/" if session and self.project_included else ""
        subject = f"{session.subject.label}/" if session and self.subject_included else ""
        return project + subject

    def default(self, entry: Entry) -> str:
        """The URI of the file, with ids replaced wherever in the path they stand."""
        holder, resource = entry.resource.holder, entry.resource
        path = re.sub(r"/resources/\d+$", f"/resources/{resource_name(resource)}", resource_uri(resource))
        path = f"{path.replace('/experiments/', '', 1)}/files/{entry.name}"
        if isinstance(holder, Subject):
            path = self.top + path
        session = session_of(holder)
        if isinstance(holder, Assessor) and not self.old_assessors:
            path = path.split("/assessors/", 1)[1].replace(holder.id, holder.label)
        if session:
            path = path.replace(session.id, session.label)
        if self.structure == "simplified":
            return path.replace("/resources", "").replace("/files", "")
        for each in self.holders if self.suffixes else ():
            if isinstance(each, (Scan, Reconstruction)) and each.session is session:
                path = path.replace(f"/{each.id}/", f"/{numbered(each.id, each.type)}/")
        return path

    def improved(self, entry: Entry) -> str:
        """Without the session's folder, and with the type nearly as it is."""
        holder, resource = entry.resource.holder, entry.resource
        kind = {Scan: "scans", Reconstruction: "reconstructions", Assessor: "assessors"}
        top = [kind.get(type(holder), "resources")]
        if isinstance(holder, Assessor):
            top.append(holder.label)
        elif isinstance(holder, (Scan, Reconstruction)):
            suffix = "_" + holder.type if holder.type and not self.tar else ""
            top.append(re.sub(r'[/\\:*?"<>|]', "_", holder.id + suffix))
        return "/".join([*top, resource_name(resource), entry.name.rsplit("/files/", 1)[-1]])


def session_of(holder: Any) -> Session | None:
    """The session that a holder belongs to; None for a subject."""
    return holder if isinstance(holder, Session) else getattr(holder, "session", None)
