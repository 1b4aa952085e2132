"""What a path means: project, subject, session, and the holders of resources in it.

Imitates the constructor of `XNATTemplate`: scans and reconstructions by id or type, assessors by id,
label or type, everything that is not there left out without a word.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_plus

from .answers import Answer, RefusedError, restlet_headers, table_answer
from .archives import ARCHIVES
from .faults import Fault
from .tables import Query, Table
from .world import GUEST, Assessor, Holder, Project, Resource, Session, Subject, World


@dataclass
class Call:
    """A request on its way through the site."""

    method: str
    path: str  # below the context path, as it came
    query: Query
    headers: dict[str, str]
    faults: list[Fault]
    url: str  # of the site
    body: bytes = b""
    user: str = GUEST
    session_id: str = ""
    new_session: bool = False
    route: dict[str, str] = field(default_factory=dict)  # parts of the path, by name

    def part(self, name: str) -> str:
        return self.route.get(name) or ""


@dataclass
class Selection:
    """What a path asks for: the holders of resources, or the sessions themselves."""

    sessions: list[Session]
    holders: list[Holder]
    top: str  # the label that names the archive


class Finder:
    """Finds what a path names, for a user."""

    def __init__(self, world: World, context: str) -> None:
        self.world, self.context = world, context

    def tabled(self, call: Call, table: Table) -> Answer:
        """A listing, in the JVM's charset; one that fails inside is 200 without a body."""
        if any(fault.kind == "empty" for fault in call.faults):
            return Answer(200, restlet_headers())
        return table_answer(table, call.query, call.headers.get("accept", ""), self.world.charset)

    def find_project(self, call: Call) -> Project:
        """The project of the path, if the user sees it; else 404."""
        project = self.world.find_project(call.part("project"))
        if project is None or not project.visible_to(call.user):
            raise RefusedError(404, f"Unable to identify project {call.part('project')}")
        return project

    def find_subject(self, call: Call, project: Project) -> Subject:
        """The subject of the path: a label of the project, or an ID; else 404."""
        name = call.part("subject")
        found = [each for each in project.subjects if each.label == name]
        found += [each for p in self.world.projects for each in p.subjects if each.id == name]
        if not found:
            raise RefusedError(404, f"Unable to identify subject {name}")
        return found[0]

    def find_session(self, call: Call, name: str) -> Any | None:
        """The experiment of a path segment, if the user may read it."""
        found = self.world.find_experiment(name)
        if found is None and call.part("project"):
            found = self.find_label(self.find_project(call), name)
        if found is not None and not self.world.readable_by(call.user, found):
            return None
        return found

    def find_label(self, project: Project, label: str) -> Any | None:
        """By the label in its own project, else by that of a share."""
        own = [e for e in self.world.experiments if e.project is project and e.label == label]
        shared = [e for e in self.world.experiments if e.shares.get(project.id) == label]
        return next(iter(own + shared), None)

    def one_session(self, call: Call) -> Session:
        """The session of the path; unknown is 500, or 404 where a project is named."""
        found = self.find_session(call, call.part("experiment"))
        if isinstance(found, Session):
            return found
        raise RefusedError(404 if call.part("project") else 500)

    def held_by(self, call: Call, session: Session) -> list[Any]:
        """The scans, assessors or reconstructions of a session that the path asks for."""
        if call.part("scans"):
            return by_id_or_type(session.scans, call.part("scans"), True)
        if call.part("kind") == "reconstructions":
            return by_id_or_type(session.reconstructions, call.part("list"), False)
        wanted = call.part("list").split(",")
        if "ALL" in wanted or "*" in wanted:
            return list(session.assessors)
        mine = [e for e in session.assessors if {e.label, e.type} & set(wanted)]
        anywhere = [e for e in self.world.experiments if isinstance(e, Assessor) and e.id in wanted]
        return mine + [each for each in anywhere if each not in mine]

    def select(self, call: Call) -> Selection:
        """The holders that the path asks for: what is not there is left out silently."""
        project = self.find_project(call) if call.part("project") else None
        subject = self.find_subject(call, project) if project and call.part("subject") else None
        names = call.part("experiment").split(",")
        found = [self.find_session(call, name) for name in names]
        sessions = [each for each in found if isinstance(each, Session)]
        inner = bool(call.part("scans") or call.part("kind"))
        holders = [h for s in sessions for h in (self.held_by(call, s) if inner else [s])]
        forced = any(fault.kind == "fallback" for fault in call.faults)
        if forced and sessions:
            subject, holders = sessions[0].subject, []
        top = sessions[0].label if sessions else names[0]
        if not holders:
            return self.unmatched(call, subject, top)
        return Selection(sessions, holders, top)

    def unmatched(self, call: Call, subject: Subject | None, top: str) -> Selection:
        """Nothing matched: the subject's own resources, or an error."""
        if subject is not None:
            return Selection([], [subject], top)
        if call.part("project"):
            raise RefusedError(404)
        if not self.world.old:
            raise RefusedError(500)
        if call.query.get("format") in ARCHIVES:
            raise RefusedError(404)
        return Selection([], [], top)


def by_id_or_type(records: Sequence[Any], segment: str, scans: bool) -> list[Any]:
    """Scans or reconstructions by a decoded list: IDs, types, ALL, * or NULL (no type).

    [SLASH] stands for a slash in scans only, [COMMA] for a comma in types only, and in those of
    reconstructions only where the list has several (the constructor of `XNATTemplate`).
    """
    text = unquote_plus(segment)
    text = text.replace("[SLASH]", "/") if scans else text
    if text in ("ALL", "*"):
        return list(records)
    ids = {name.strip() for name in text.split(",")}
    ids = {name for name in ids if html.escape(name) == name}
    commas = scans or "," in text
    types = {name.replace("[COMMA]", ",") if commas else name for name in ids - {"NULL"}}
    return [
        each
        for each in records
        if each.id in ids or (each.type and each.type in types) or ("NULL" in ids and not each.type)
    ]


def all_resources(session: Session) -> list[Resource]:
    """Everything that all=true shows: not what assessors and reconstructions hold as `in`."""
    inner = [*session.reconstructions, *session.assessors]
    resources = [each for holder in [session, *session.scans] for each in holder.resources]
    return resources + [r for holder in inner for r in holder.resources if r.where != "in"]
