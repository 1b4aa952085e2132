"""The documents of single projects, subjects, experiments, scans and reconstructions.

Imitates `ExperimentResource` and its kin: XML or JSON, a web page where no format is asked for, 404 for
what is not there and for what the user may not read.
"""

from __future__ import annotations

from typing import Any

from .answers import Answer, RefusedError, restlet_answer, web_page
from .documents import Node, json_document, node_of, xml_document
from .finding import Call, Finder


class Records(Finder):
    """The documents of single records."""

    def get_experiment(self, call: Call) -> Answer:
        if call.part("project"):
            self.find_project(call)
        found = self.find_session(call, call.part("experiment"))
        if found is None:
            raise RefusedError(404, "Unable to find the specified experiment.")
        return self.document(call, self.another(call, found))

    def another(self, call: Call, found: Any) -> Any:
        """The session whose document comes instead, where something in front mixes them up."""
        for fault in call.faults:
            if fault.kind == "document":
                sessions = [each for each in self.world.sessions() if each is not found]
                return self.world.find_experiment(fault.get("id")) or next(iter(sessions), found)
        return found

    def get_project(self, call: Call) -> Answer:
        return self.document(call, self.find_project(call))

    def get_subject(self, call: Call) -> Answer:
        projects = [self.find_project(call)] if call.part("project") else self.world.projects
        subjects = [each for p in projects if p.readable_by(call.user) for each in p.subjects]
        by_label = call.part("project") and call.part("subject")
        for subject in subjects:
            if call.part("subject") == subject.id or by_label == subject.label:
                return self.document(call, subject)
        raise RefusedError(404, "Unable to find the specified subject.")

    def get_held(self, call: Call) -> Answer:
        """One scan, assessor or reconstruction."""
        session = self.one_session(call)
        found = self.held_by(call, session)
        if not found:
            raise RefusedError(404)
        return self.document(call, found[0])

    def document(self, call: Call, record: Any) -> Answer:
        """A record as XML or JSON; without a format it is a web page."""
        format, accept = call.query.get("format"), call.headers.get("accept", "")
        if format == "json" or (not format and accept.startswith("application/json")):
            body = json_document(node_of(record, self.world))
            return restlet_answer(body, "application/json", chunked=True)
        if format == "xml" or (not format and accept in ("text/xml", "application/xml")):
            node = node_of(record, self.world)
            if call.query.is_true("concealHiddenFields"):
                conceal(node)
            return restlet_answer(xml_document(node, self.world), "text/xml", chunked=True)
        return web_page("A page about it.")


def conceal(node: Node) -> None:
    """Take the comments with numeric ids out of a document."""
    node.hidden = {}
    for _, value in node.parts:
        for each in value if not isinstance(value, str) else ():
            conceal(each)
