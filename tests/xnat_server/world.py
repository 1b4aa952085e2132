"""What the site holds, who may see what of it, and the site's switches.

Imitates XNAT's data model as far as a client that downloads meets it: projects with subjects, image
sessions with scans, assessors and reconstructions, sharing, resources with numeric ids, and catalogs
that may say something else than the disk (fields: xnat.xsd; accession ids: `<site>_E00001`).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .contents import as_content

GUEST = "guest"
ABSTRACT_TYPES = (
    "xnat:experimentData",
    "xnat:subjectAssessorData",
    "xnat:imageSessionData",
    "xnat:imageAssessorData",
)


@dataclass
class File:
    """One file of a resource, and what the catalog says of it, rightly or wrongly."""

    data: Any  # bytes or Synthetic
    size_listed: Any | None = None  # what the listing says; None: the truth; "": nothing
    md5: str | None = None  # the same for the digest
    on_disk: bool = True  # False: listed but gone
    vanishes: bool = False  # there when an archive is prepared, gone in mid-stream
    fails_at: int | None = None  # a read error after so many bytes
    format: str | None = None  # of the catalog entry; None: the resource's if DICOM, or ""
    content: str | None = None
    tags: str = ""
    modified: float = 1551784333.0  # 2019-03-05 11:12:13 UTC

    def __post_init__(self) -> None:
        self.data = as_content(self.data)


class Holder:
    """What can hold resources: a session, scan, assessor, reconstruction or subject."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.resources: list[Resource] = []

    def resource(
        self,
        label: str,
        files: dict[str, Any] | None = None,
        format: str = "",
        content: str = "",
        where: str = "out",
        **oddities: Any,
    ) -> Resource:
        """Add a resource. `where` is for assessors and reconstructions: out, in, resources."""
        resource = Resource(self, label, format, content, where, **oddities)
        for name, value in (files or {}).items():
            resource.add(name, value)
        self.resources.append(resource)
        return resource


class Resource:
    """A folder of files with a numeric id; `file_count`, `file_size` None: the truth.

    With `unlisted`, its catalog is empty until it is refreshed: no listing or archive has its files,
    whatever file_count says.
    """

    def __init__(
        self,
        holder: Holder,
        label: str,
        format: str = "",
        content: str = "",
        where: str = "out",
        file_count: Any | None = None,
        file_size: Any | None = None,
        unlisted: bool = False,
    ) -> None:
        self.unlisted = unlisted
        self.holder, self.label, self.format = holder, label, format
        self.content, self.where = content, where
        self.id = holder.world.next_number("resource", 101)
        self.files: dict[str, File] = {}
        self._count, self._size = file_count, file_size

    def add(self, name: str, value: Any) -> Resource:
        """Add a file (bytes, Synthetic or File)."""
        self.files[name] = value if isinstance(value, File) else File(value)
        return self

    @property
    def file_count(self) -> str:
        return str(len(self.files) if self._count is None else self._count)

    @property
    def file_size(self) -> str:
        total = sum(file.data.size for file in self.files.values())
        return str(total if self._size is None else self._size)


class Scan(Holder):
    """A scan of a session; `extra` adds elements, e.g. extra={"fieldStrength": "3.0"}."""

    def __init__(self, session: Session, id: str, type: str, quality: str, **more: Any) -> None:
        super().__init__(session.world)
        self.session, self.id, self.type, self.quality = session, id, type, quality
        self.number = session.world.next_number("scan", 71)
        self.description: str = more.get("description", "")
        self.note: str = more.get("note", "")
        self.condition: str = more.get("condition", "")
        self.uid: str = more.get("uid", "")
        self.frames: str = str(more.get("frames", ""))
        self.xsi_type: str = more.get("xsi_type") or scan_type(session.type)
        self.extra: dict[str, str] = more.get("extra", {})


class Reconstruction(Holder):
    """A reconstruction of a session."""

    def __init__(self, session: Session, id: str, type: str) -> None:
        super().__init__(session.world)
        self.session, self.id, self.type = session, id, type
        self.number = session.world.next_number("reconstruction", 31)
        self.xsi_type = "xnat:reconstructedImageData"


class Experiment(Holder):
    """What has an accession id, a label and a project."""

    def __init__(self, project: Project, label: str, type: str, id: str | None) -> None:
        super().__init__(project.world)
        self.project, self.label, self.type = project, label, type
        self.id = id or project.world.accession("E")
        self.inserted = "2018-05-14 15:17:57.815"
        self.shares: dict[str, str] = {}  # project id: label there
        self.date = self.time = self.note = ""

    def share(self, project: Project, label: str | None = None) -> Experiment:
        """Show it in another project too, under this label."""
        self.shares[project.id] = label or self.label
        return self

    def label_in(self, project_id: str) -> str:
        return self.shares.get(project_id, self.label)

    def fields(self) -> dict[str, str]:
        """What listings can show of it, by XNAT's short names."""
        return {
            "ID": self.id,
            "project": self.project.id,
            "date": self.date,
            "xsiType": self.type,
            "label": self.label,
            "insert_date": self.inserted,
            "URI": "/data/experiments/" + self.id,
            "time": self.time,
            "note": self.note,
            "insert_user": "admin",
            "last_modified": self.inserted,
        }


class Session(Experiment):
    """An image session, or another experiment of a subject (a questionnaire)."""

    def __init__(self, project: Project, label: str, subject: Subject, **more: Any) -> None:
        super().__init__(project, label, more.get("type") or "xnat:mrSessionData", more.get("id"))
        self.subject = subject
        self.date = str(more.get("date") or "")
        self.time = more.get("time", "")
        self.note = more.get("note", "")
        self.scanner = more.get("scanner", "")
        self.modality = more.get("modality", "MR" if self.type == "xnat:mrSessionData" else "")
        self.uid = more.get("uid", "")
        self.inserted = more.get("inserted", self.inserted)
        self.extra: dict[str, str] = more.get("extra", {})
        self.scans: list[Scan] = []
        self.assessors: list[Assessor] = []
        self.reconstructions: list[Reconstruction] = []

    def scan(self, id: str, type: str = "", quality: str = "usable", **more: Any) -> Scan:
        """Add a scan; more: description, note, condition, uid, frames, xsi_type, extra."""
        self.scans.append(Scan(self, id, type, quality, **more))
        return self.scans[-1]

    def assessor(
        self, label: str, type: str = "xnat:qcManualAssessorData", id: str | None = None
    ) -> Assessor:
        """Add an assessor, an experiment of its own."""
        self.assessors.append(Assessor(self, label, type, id))
        self.world.experiments.append(self.assessors[-1])
        return self.assessors[-1]

    def reconstruction(self, id: str, type: str = "") -> Reconstruction:
        """Add a reconstruction."""
        self.reconstructions.append(Reconstruction(self, id, type))
        return self.reconstructions[-1]

    def holders(self) -> list[Holder]:
        """The session and everything in it."""
        return [self, *self.scans, *self.reconstructions, *self.assessors]

    def fields(self) -> dict[str, str]:
        return {
            **super().fields(),
            "subject_ID": self.subject.id,
            "subject_label": self.subject.label,
            "subject_project": self.subject.project.id,
            "modality": self.modality,
            "scanner": self.scanner,
            "UID": self.uid,
            "fieldStrength": "",
            **self.extra,
        }


class Assessor(Experiment):
    """An assessor of a session."""

    def __init__(self, session: Session, label: str, type: str, id: str | None) -> None:
        super().__init__(session.project, label, type, id)
        self.session = session
        self.date = session.date

    def fields(self) -> dict[str, str]:
        more = {"session_ID": self.session.id, "session_label": self.session.label}
        return {**super().fields(), **more}


class Subject(Holder):
    """A subject of a project."""

    def __init__(self, project: Project, label: str, id: str | None = None) -> None:
        super().__init__(project.world)
        self.project, self.label = project, label
        self.id = id or project.world.accession("S")

    def fields(self) -> dict[str, str]:
        return {
            "ID": self.id,
            "project": self.project.id,
            "label": self.label,
            "insert_date": "2018-05-14 15:10:01.5",
            "insert_user": "admin",
            "URI": "/data/subjects/" + self.id,
        }


class Project:
    """A project. `hidden_from` do not see it; `unreadable` (to users) shows no experiments."""

    def __init__(self, world: World, id: str, name: str, **more: Any) -> None:
        self.world, self.id, self.name = world, id, name
        self.secondary_id: str = more.get("secondary_id") or id
        self.aliases: Sequence[str] = more.get("aliases", ())
        self.hidden_from: Sequence[str] = more.get("hidden_from", ())
        self.unreadable: Sequence[str] = more.get("unreadable", ())
        self.public: bool = more.get("public", False)
        self.subjects: list[Subject] = []

    def subject(self, label: str, id: str | None = None) -> Subject:
        """The subject with this label, new if need be."""
        for subject in self.subjects:
            if subject.label == label:
                return subject
        self.subjects.append(Subject(self, label, id))
        return self.subjects[-1]

    def session(self, label: str, subject: str = "", **more: Any) -> Session:
        """Add a session; more: id, date, type, time, note, scanner, modality, uid, inserted,
        extra."""
        session = Session(self, label, self.subject(subject or "subject_1"), **more)
        self.world.experiments.append(session)
        return session

    def visible_to(self, user: str) -> bool:
        return user not in self.hidden_from and (self.public or user != GUEST)

    def readable_by(self, user: str) -> bool:
        return self.visible_to(user) and user not in self.unreadable

    def fields(self) -> dict[str, str]:
        return {
            "ID": self.id,
            "secondary_ID": self.secondary_id,
            "name": self.name,
            "description": "",
            "pi_firstname": "",
            "pi_lastname": "",
            "URI": "/data/projects/" + self.id,
        }


@dataclass
class Token:
    """An alias token: alias and secret are a name and a password for its user (`AliasToken`)."""

    user: str
    single_use: bool = False  # gone with its first check, right or wrong
    expires: float | None = None  # of time.time(); None: it lasts
    alias: str = field(default_factory=lambda: str(uuid.uuid4()))
    secret: str = field(default_factory=lambda: uuid.uuid4().hex * 2)

    @property
    def alive(self) -> bool:
        return self.expires is None or time.time() < self.expires

    def fields(self) -> dict[str, Any]:
        """What `services/tokens/issue` says of it."""
        expires = None if self.expires is None else int(self.expires * 1000)
        return {
            "alias": self.alias,
            "secret": self.secret,
            "singleUse": self.single_use,
            "estimatedExpirationTime": expires,
            "xdatUserId": self.user,
        }


@dataclass
class World:
    """What the site holds, and its switches."""

    users: dict[str, str] = field(default_factory=lambda: {"admin": "admin"})
    site_id: str = "XNAT"
    version: str = "1.8.11"  # "1.7.4.1": archives and unmatched lists fail as they did then
    digests: str = "md5"  # "empty": always ""; "none": no such column (before 1.7.3)
    listed_sizes: bool = True  # False: "Size" is ""
    hidden_fields: bool = True  # comments with numeric ids in documents
    compression: int = 0  # of a ZIP without `compression=`: 0 stored, 8 deflated
    require_login: bool = True  # False: an open site; no log-in means guest
    session_requests: int | None = None  # a session ends after so many requests
    session_minutes: float = 15  # ... and after so long without any
    max_sessions: int = 1000  # of one user; then log-in is refused
    max_failed_logins: int = 20  # then the account is locked, for
    lock_minutes: float = 60
    passwords: bool = True  # False: OpenID or SAML, where of Basic only alias tokens let in
    basic_lasts: bool = True  # False: the session of a log-in by Basic is nobody's (1.11, perhaps)
    secure_cookies: bool = False  # the site's own address is https, however it is reached
    expiration_numbers: int = 2  # in SESSION_EXPIRATION_TIME; 1 from 1.9 or 1.10 on
    expired_passwords: set[str] = field(default_factory=set)  # users who are sent to UpdateUser
    inactive: set[str] = field(default_factory=set)  # users who are sent to InactiveAccount
    site: str = "ready"  # "not configured": 403 to all; "setup": 302 to /setup
    login_failure: str = "Login attempt failed. Please try again."
    firewall: int = 500  # status of the URLs that it refuses; 400 by Spring Security 6; 0: no firewall
    restlet: int = 1  # 2: XNAT 1.11, with other error pages, and 204 where a GET's entity is empty
    first_column_rights: bool = False  # listings of all sessions ask who may read their first column
    charset: str = "utf-8"  # of listings: the JVM's, before Java 18 often "latin-1"
    labels_only: bool = False  # resources are 404 by number: a data type without security set-up
    wildcards: str = "contains"  # "anchored": before 1.8.5
    old_assessor_layout: bool = False  # assessors inside the session's folder
    keep_alive: float = 20  # seconds until an idle connection is closed
    projects: list[Project] = field(default_factory=list)
    experiments: list[Experiment] = field(default_factory=list)  # sessions and assessors, in order
    tokens: dict[str, Token] = field(default_factory=dict)  # by alias
    _numbers: dict[str, int] = field(default_factory=dict)

    def project(self, id: str, name: str = "", **more: Any) -> Project:
        """Add a project; more: aliases, secondary_id, public, hidden_from, unreadable."""
        self.projects.append(Project(self, id, name or id, **more))
        return self.projects[-1]

    def next_number(self, kind: str, first: int = 1) -> int:
        self._numbers[kind] = self._numbers.get(kind, first - 1) + 1
        return self._numbers[kind]

    def accession(self, letter: str) -> str:
        """The next accession id: XNAT_E00001, XNAT_S00001, ..."""
        return f"{self.site_id}_{letter}{self.next_number(letter):05}"

    def token(
        self, user: str = "admin", single_use: bool = False, seconds: float | None = 2 * 86400
    ) -> Token:
        """Add an alias token that lives so long (XNAT's default: 2 days); None: it lasts."""
        token = Token(user, single_use, None if seconds is None else time.time() + seconds)
        self.tokens[token.alias] = token
        return token

    def find_token(self, alias: str) -> Token | None:
        """The token with this alias, unless it has expired: then it is gone."""
        token = self.tokens.get(alias)
        if token and not token.alive:
            self.tokens.pop(alias, None)
            return None
        return token

    @property
    def old(self) -> bool:
        return self.version.startswith("1.7.")

    def sessions(self) -> list[Session]:
        return [each for each in self.experiments if isinstance(each, Session)]

    def find_project(self, name: str) -> Project | None:
        """The project with this ID, else with this alias."""
        by_id = [each for each in self.projects if each.id == name]
        by_alias = [each for each in self.projects if name in each.aliases]
        return next(iter(by_id + by_alias), None)

    def find_experiment(self, id: str) -> Any | None:
        return next((each for each in self.experiments if each.id == id), None)

    def holders_by_number(self) -> dict[str, Holder]:
        """What holds each resource, by the resource's number."""
        holders = [each for session in self.sessions() for each in session.holders()]
        holders += [each for project in self.projects for each in project.subjects]
        return {str(each.id): holder for holder in holders for each in holder.resources}

    def readable_by(self, user: str, experiment: Experiment) -> bool:
        """Whether one of the projects that show the experiment lets the user read it."""
        home = experiment.session if isinstance(experiment, Assessor) else experiment
        ids = {experiment.project.id, *experiment.shares, *home.shares}
        return any(each.readable_by(user) for each in self.projects if each.id in ids)


def is_image_session(type: str) -> bool:
    return type.endswith("SessionData")


def scan_type(session_type: str) -> str:
    """The scans' type in a session of this type: xnat:mrSessionData has xnat:mrScanData."""
    return session_type.replace("SessionData", "ScanData")


def is_of_type(experiment: Any, type: str) -> bool:
    """Whether a listing of `type` shows the experiment; abstract types show their kinds."""
    session = isinstance(experiment, Session)
    shown = (True, session, session and is_image_session(experiment.type), not session)
    return dict(zip(ABSTRACT_TYPES, shown)).get(type, bool(experiment.type == type))
