"""The documents of records, in XML and JSON.

Imitates `ItemXMLRepresentation` (elements in the order of xnat.xsd, empty ones left out, numeric ids in
comments) and `ItemJSONBuilder`.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Callable

from .naming import path_on_disk
from .world import (
    Assessor,
    Experiment,
    Holder,
    Project,
    Reconstruction,
    Resource,
    Scan,
    Session,
    Subject,
    World,
)


@dataclass
class Node:
    """A record as XNAT's documents show it, in the schema's order.

    `parts` are ("@name", text) for attributes, ("path", text) for elements, and
    ("wrapper/name", [nodes]) for lists of records.
    """

    type: str
    parts: list[tuple[str, str | list[Node]]]
    hidden: dict[str, str] = field(default_factory=dict)
    untyped: bool = False  # no xsi:type


def resource_node(resource: Resource, world: World) -> Node:
    holder: Any = resource.holder
    folder = f"scan_{holder.id}" if isinstance(holder, Scan) else resource.label or "resource"
    uri = f"/data/xnat/archive/{path_on_disk(resource)}/{folder}_catalog.xml"
    owner = str(holder.number) if isinstance(holder, Scan) else "null"
    hidden = {"xnat_abstractResource_id": str(resource.id)}
    return Node(
        "xnat:resourceCatalog",
        [
            ("@label", resource.label),
            ("@file_count", resource.file_count),
            ("@file_size", resource.file_size),
            ("@URI", uri),
            ("@format", resource.format),
            ("@content", resource.content),
        ],
        {**hidden, "xnat_imageScanData_xnat_imagescandata_id": owner},
    )


def resource_nodes(holder: Holder, world: World, where: str = "") -> list[Node]:
    chosen = [each for each in holder.resources if not where or each.where == where]
    return [resource_node(each, world) for each in chosen]


def share_nodes(experiment: Experiment) -> list[Node]:
    return [
        Node(
            "xnat:experimentData_share",
            [("@label", label), ("@project", project)],
            {
                "xnat_experimentData_share_id": str(number),
                "sharing_share_xnat_experimentDa_id": experiment.id,
            },
            untyped=True,
        )
        for number, (project, label) in enumerate(experiment.shares.items(), 1)
    ]


def scan_node(scan: Scan, world: World) -> Node:
    return Node(
        scan.xsi_type,
        [
            ("@ID", scan.id),
            ("@type", scan.type),
            ("@UID", scan.uid),
            ("image_session_ID", scan.session.id),
            ("note", scan.note),
            ("quality", scan.quality),
            ("condition", scan.condition),
            ("series_description", scan.description),
            ("frames", scan.frames),
            ("file", resource_nodes(scan, world)),
            *scan.extra.items(),
        ],
        {"xnat_imageScanData_id": str(scan.number)},
    )


def reconstruction_node(recon: Reconstruction, world: World) -> Node:
    return Node(
        recon.xsi_type,
        [
            ("@ID", recon.id),
            ("@type", recon.type),
            ("image_session_ID", recon.session.id),
            ("in/file", resource_nodes(recon, world, "in")),
            ("out/file", resource_nodes(recon, world, "out")),
        ],
        {"xnat_reconstructedImageData_id": str(recon.number)},
        untyped=True,
    )


def assessor_node(assessor: Assessor, world: World) -> Node:
    return Node(
        assessor.type,
        [
            ("@ID", assessor.id),
            ("@project", assessor.project.id),
            ("@label", assessor.label),
            ("sharing/share", share_nodes(assessor)),
            ("date", assessor.date),
            ("resources/resource", resource_nodes(assessor, world, "resources")),
            ("in/file", resource_nodes(assessor, world, "in")),
            ("out/file", resource_nodes(assessor, world, "out")),
            ("imageSession_ID", assessor.session.id),
        ],
    )


def session_node(session: Session, world: World) -> Node:
    return Node(
        session.type,
        [
            ("@ID", session.id),
            ("@project", session.project.id),
            ("@label", session.label),
            ("@modality", session.modality),
            ("@UID", session.uid),
            ("sharing/share", share_nodes(session)),
            ("date", session.date),
            ("time", session.time),
            ("note", session.note),
            ("resources/resource", resource_nodes(session, world)),
            ("subject_ID", session.subject.id),
            ("scanner", session.scanner),
            ("scans/scan", [scan_node(each, world) for each in session.scans]),
            (
                "reconstructions/reconstructedImage",
                [reconstruction_node(each, world) for each in session.reconstructions],
            ),
            ("assessors/assessor", [assessor_node(each, world) for each in session.assessors]),
            *session.extra.items(),
        ],
    )


def project_node(project: Project, world: World) -> Node:
    aliases = [Node("xnat:projectData_alias", [("alias", alias)], untyped=True) for alias in project.aliases]
    return Node(
        "xnat:projectData",
        [
            ("@ID", project.id),
            ("@secondary_ID", project.secondary_id),
            ("name", project.name),
            ("aliases/alias", aliases),
        ],
    )


def subject_node(subject: Subject, world: World) -> Node:
    sessions = [each for each in world.sessions() if each.subject is subject]
    return Node(
        "xnat:subjectData",
        [
            ("@ID", subject.id),
            ("@project", subject.project.id),
            ("@label", subject.label),
            ("resources/resource", resource_nodes(subject, world)),
            ("experiments/experiment", [session_node(each, world) for each in sessions]),
        ],
    )


def node_of(record: Any, world: World) -> Node:
    """The document of a session, assessor, scan, reconstruction, subject or project."""
    makers: dict[type, Callable[[Any, World], Node]] = {
        Session: session_node,
        Assessor: assessor_node,
        Scan: scan_node,
        Reconstruction: reconstruction_node,
        Subject: subject_node,
        Project: project_node,
    }
    return makers[type(record)](record, world)


SCHEMAS = {"xnat": "http://nrg.wustl.edu/xnat", "xsi": "http://www.w3.org/2001/XMLSchema-instance"}


def root_name(type: str) -> str:
    """The element of a type's documents: xnat:mrSessionData is in xnat:MRSession."""
    prefix, name = type.split(":", 1)
    name = name.removesuffix("Data")
    match = re.match(r"(mr|ct|petmr|pet|us|xa|mg|nm|cr|dx|qc)(?=[A-Z])", name)
    head = match[1] if match else name[:1]
    return f"{prefix}:{head.upper()}{name[len(head) :]}"


def attribute(name: str, text: str) -> str:
    return f' {name}="{html.escape(text)}"'


def comment(node: Node, world: World) -> str:
    pairs = ",".join(f'{name}="{value}"' for name, value in node.hidden.items())
    return f"<!--hidden_fields[{pairs}]-->" if pairs and world.hidden_fields else ""


def lines_of(node: Node, tag: str, world: World, more: str = "") -> Iterator[str]:
    """The lines of an element; elements without text are left out, as by XNAT."""
    texts = [(name, text) for name, text in node.parts if isinstance(text, str) and text]
    pairs = [attribute(name[1:], text) for name, text in texts if name.startswith("@")]
    xsi = "" if node.untyped else attribute("xsi:type", node.type)
    yield f"<{tag}{''.join(pairs)}{more or xsi}>"
    if comment(node, world):
        yield comment(node, world)
    for name, value in node.parts:
        if isinstance(value, str):
            if value and not name.startswith("@"):
                yield f"<xnat:{name}>{html.escape(value, False)}</xnat:{name}>"
        elif value:
            yield from list_lines(name, value, world)
    yield f"</{tag}>"


def list_lines(path: str, nodes: list[Node], world: World) -> Iterator[str]:
    """The lines of a list of records, inside its wrapper where it has one."""
    wrapper, _, name = path.rpartition("/")
    if wrapper:
        yield f"<xnat:{wrapper}>"
    for node in nodes:
        yield from lines_of(node, f"xnat:{name}", world)
    if wrapper:
        yield f"</xnat:{wrapper}>"


def indented(lines: Iterable[str]) -> Iterator[str]:
    """The lines with two blanks for each element that is open."""
    depth = 0
    for line in lines:
        depth -= line.startswith("</")
        yield "  " * depth + line
        depth += line[1] not in "/!" and "</" not in line


def xml_document(node: Node, world: World) -> bytes:
    """The document, with every schema's namespace on its root element."""
    prefixes = dict(SCHEMAS)
    for type in re.findall(r"\b([A-Za-z]\w*):\w+Data\b", node.type + " " + types_in(node)):
        prefixes.setdefault(type, f"http://nrg.wustl.edu/{type}")
    declared = "".join(attribute("xmlns:" + name, uri) for name, uri in prefixes.items())
    lines = lines_of(node, root_name(node.type), world, declared)
    head = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
    return (head + "\n".join(indented(lines)) + "\n").encode()


def types_in(node: Node) -> str:
    """All types of the records inside, blank-separated."""
    inner = [each for _, value in node.parts if not isinstance(value, str) for each in value]
    return " ".join([node.type, *(types_in(each) for each in inner)])


def json_item(node: Node) -> dict[str, Any]:
    """One record in the shape of XNAT's JSON items."""
    fields: dict[str, Any] = {}
    children = []
    for name, value in node.parts:
        if isinstance(value, str) and value:
            fields[name.lstrip("@")] = value
        elif value:
            children.append({"field": name, "items": [json_item(each) for each in value]})
    fields.update({name: int(text) for name, text in node.hidden.items() if text.isdigit()})
    meta = {"isHistory": False, "xsi:type": node.type, "start_date": "Mon May 14 15:17:57 UTC 2018"}
    return {"children": children, "meta": meta, "data_fields": fields}


def json_document(node: Node) -> bytes:
    return json.dumps({"items": [json_item(node)]}).encode()
