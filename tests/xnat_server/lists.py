"""The listings of projects, subjects and experiments, and of what a session holds.

Imitates `ExperimentListResource`, `ProjSubExptList`, `ScanList`, `ProjSubExptAsstList`, `ReconList` and
`CatalogResourceList`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .answers import Answer, RefusedError, restlet_headers
from .finding import Call, Finder, all_resources
from .tables import Query, Table, check_dates, columns_of, field_of, page_of, passes, sorted_rows
from .world import (
    ABSTRACT_TYPES,
    Assessor,
    Reconstruction,
    Resource,
    Scan,
    Session,
    is_image_session,
    is_of_type,
)


class Lists(Finder):
    """The listings of projects, subjects, experiments and of what sessions hold."""

    def listed(self, call: Call, rows: list[dict[str, str]], defaults: list[str], **more: Any) -> Answer:
        """A listing of rows that have passed everything but order and columns."""
        columns = columns_of(rows, call.query, defaults)
        if "URI" in defaults and "URI" not in columns:
            columns = [*columns, "URI"]
        extra = more.pop("extra", "")
        columns = [*columns, extra] if extra and extra not in columns else columns
        shown = [{key: field_of(row, key) or "" for key in columns} for row in sorted_rows(rows, call.query)]
        return self.tabled(call, Table(columns, shown, **more))

    def filtered(self, call: Call, records: Iterable[Any]) -> tuple[list[Any], bool]:
        """The records on the page that the query asks for, and whether it pages."""
        check_dates(call.query)
        anchored = self.world.wildcards == "anchored"
        return page_of([r for r in records if passes(r.fields(), call.query, anchored)], call.query)

    def get_project_list(self, call: Call) -> Answer:
        records, paged = self.filtered(call, self.world.projects)
        rows = [each.fields() for each in records if each.visible_to(call.user)]
        defaults = ["ID", "secondary_ID", "name", "description", "pi_firstname", "pi_lastname", "URI"]
        return self.listed(call, rows, defaults, title="Projects", total=not paged)

    def get_subject_list(self, call: Call) -> Answer:
        projects = [self.find_project(call)] if call.part("project") else self.world.projects
        subjects = [each for p in projects if p.readable_by(call.user) for each in p.subjects]
        records, paged = self.filtered(call, subjects)
        rows = [each.fields() for each in records]
        defaults = ["ID", "project", "label", "insert_date", "insert_user", "URI"]
        return self.listed(call, rows, defaults, title="Subjects", total=not paged)

    def get_experiment_list(self, call: Call) -> Answer:
        """Experiments of the site, of a project (shared ones too) or of a subject."""
        try:
            return self.experiment_list(call)
        except ValueError:
            if call.part("project"):
                return Answer(200, restlet_headers())  # it failed inside
            raise

    def experiment_list(self, call: Call) -> Answer:
        type = call.query.get("xsiType")
        type = "" if "," in type else type
        inside = bool(call.part("project"))
        records = self.experiments_of(call, type or "xnat:subjectAssessorData") if inside else [
            each for each in self.world.experiments if is_of_type(each, type or "xnat:experimentData")
        ]  # fmt: skip
        records, paged = self.filtered(call, records)
        readable = [each for each in records if self.world.readable_by(call.user, each)]
        readable = readable if inside else self.as_first_row(call, records, readable, type)
        defaults = ["ID", "project", "date", "xsiType", "label", "insert_date", "URI"]
        if not inside and type:
            owner = "subject" if is_image_session(type) or "subject" in type else "session"
            defaults += [f"{owner}_ID", f"{owner}_label"]
        extra = f"{type or 'xnat:subjectAssessorData'}/id".lower() if inside or type else ""
        here = self.find_project(call).id if inside else ""
        rows = [row_in(each, here, extra) for each in readable]
        if "scandata/" in call.query.get("columns").lower():
            rows = [row for pair in zip(readable, rows) for row in by_scan(*pair)]
        title = None if inside else "Matching experiments"
        return self.listed(call, rows, defaults, title=title, total=not paged, extra=extra)

    def as_first_row(self, call: Call, records: list[Any], readable: list[Any], type: str) -> list[Any]:
        """The rows that XNAT shows of the site: it asks for the right to read the first of a type
        and project only, so that who has single sessions by sharing may see too few
        (`DefaultExperimentHandler`). It takes the first column for that row's ID where the type asked
        for is abstract; `QueryOrganizer` of 1.8.11 puts the ID there, so this is a switch."""
        first: dict[tuple[str, str], Any] = {}
        for each in records:
            first.setdefault((each.type, each.project.id), each)
        if self.world.first_column_rights and type in ("", *ABSTRACT_TYPES):
            names = {key: first_column(each.fields(), call.query) for key, each in first.items()}
            first = {key: self.world.find_experiment(name) for key, name in names.items()}
        shown = {key for key, each in first.items() if each and self.world.readable_by(call.user, each)}
        return [each for each in readable if (each.type, each.project.id) in shown]

    def experiments_of(self, call: Call, type: str) -> list[Any]:
        """The experiments that the path's project shows, its own and shared ones."""
        project = self.find_project(call)
        if not project.readable_by(call.user):
            raise RefusedError(403, f"Unable to read experiments for Project: {project.id}")
        found = [
            each
            for each in self.world.experiments
            if is_of_type(each, type) and project.id in (each.project.id, *each.shares)
        ]
        if not call.part("subject"):
            return found
        subject = self.find_subject(call, project)
        return [each for each in found if getattr(each, "subject", None) is subject]

    def get_search_elements(self, call: Call) -> Answer:
        """The types that can be searched, or a type's fields; little more than names."""
        if call.part("type"):
            rows = [{"FIELD_ID": name} for name in ("LABEL", "PROJECT", "DATE")]
            return self.listed(call, rows, ["FIELD_ID"])
        types = [each.type for each in self.world.experiments]
        names = sorted({"xnat:projectData", "xnat:subjectData", *types})
        rows = [{"ELEMENT_NAME": name, "COUNT": str(types.count(name))} for name in names]
        return self.listed(call, rows, ["ELEMENT_NAME", "COUNT"])

    def get_scan_list(self, call: Call) -> Answer:
        """Filters do nothing here, in XNAT as well."""
        session = self.one_session(call)
        rows = [
            {
                "xnat_imagescandata_id": str(scan.number),
                "ID": scan.id,
                "type": scan.type,
                "quality": scan.quality,
                "xsiType": scan.xsi_type,
                "note": scan.note,
                "series_description": scan.description,
                "URI": f"/data/experiments/{session.id}/scans/{scan.id}",
                "condition": scan.condition,
                "frames": scan.frames,
                "UID": scan.uid,
                **scan.extra,
            }
            for scan in session.scans
        ]
        names = "xnat_imagescandata_id ID type quality xsiType note series_description URI"
        return self.listed(call, rows, names.split())

    def get_assessor_list(self, call: Call) -> Answer:
        session = self.one_session(call)
        rows = [row_in(each, "", "xnat:imageassessordata/id") for each in session.assessors]
        names = "ID project label date xsiType insert_date session_ID session_label URI"
        return self.listed(call, rows, names.split(), extra="xnat:imageassessordata/id")

    def get_reconstruction_list(self, call: Call) -> Answer:
        session = self.one_session(call)
        base = f"/data/experiments/{session.id}/reconstructions/"
        rows = [
            {
                "xnat_reconstructedimagedata_id": str(each.number),
                "ID": each.id,
                "type": each.type,
                "baseScanType": "",
                "xsiType": each.xsi_type,
                "URI": base + each.id,
            }
            for each in session.reconstructions
        ]
        names = "xnat_reconstructedimagedata_id ID type baseScanType URI"
        return self.listed(call, rows, names.split())

    def get_resource_list(self, call: Call) -> Answer:
        """The resources of the holders; with all=true of everything in the session."""
        selection = self.select(call)
        resources = [each for holder in selection.holders for each in holder.resources]
        if call.part("kind"):
            where = call.part("where") or "out"
            resources = [each for each in resources if each.where == where]
        elif not call.part("scans") and call.query.is_true("all"):
            resources = [each for s in selection.sessions for each in all_resources(s)]
        rows = [resource_row(each, call.query.is_true("all")) for each in resources]
        names = "xnat_abstractresource_id label element_name category cat_id cat_desc file_count"
        names += " file_size tags content format"
        table = Table(names.split(), rows, title="Resources")  # whatever columns= says
        return self.tabled(call, table)


def row_in(experiment: Any, project_id: str, extra: str) -> dict[str, str]:
    """An experiment's row; in a project that it is shared into, with its names there."""
    row: dict[str, str] = experiment.fields()
    if extra:
        row[extra] = experiment.id
    if project_id and project_id != experiment.project.id:
        row.update(project=project_id, label=experiment.label_in(project_id))
    return row


def first_column(fields: dict[str, str], query: Query) -> str:
    """What the first column has that the query asks for: the ID, unless it names columns."""
    asked = [name for name in query.get("columns").split(",") if name not in ("", "DEFAULT")]
    values = [field_of(fields, name) for name in asked]
    return next((value for value in values if value is not None), fields["ID"])


def by_scan(experiment: Any, row: dict[str, str]) -> list[dict[str, str]]:
    """A row for each scan, as a column of scans makes the listing of sessions give."""
    return [
        {**row, "xnat:imagescandata/id": scan.id, "xnat:imagescandata/type": scan.type}
        for scan in getattr(experiment, "scans", [])
    ]


def resource_row(resource: Resource, all: bool) -> dict[str, str]:
    """A resource's row in `resources`: category, and id and type of its holder; with all=true a
    session has no id (`XNATTemplate.loadCatalogs`)."""
    kinds = {Scan: "scans", Assessor: "assessors", Reconstruction: "reconstructions"}
    holder: Any = resource.holder
    inner = type(holder) in kinds
    return {
        "xnat_abstractresource_id": str(resource.id),
        "label": resource.label,
        "element_name": "xnat:resourceCatalog",
        "category": kinds.get(type(holder), "resources"),
        "cat_id": holder.id if inner or (isinstance(holder, Session) and not all) else "",
        "cat_desc": holder.type if inner else "",
        "file_count": resource.file_count,
        "file_size": resource.file_size,
        "tags": "",
        "content": resource.content,
        "format": resource.format,
    }
