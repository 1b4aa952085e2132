"""The part of xnat.xsd that other clients build their classes from, and `buildInfo`.

Imitates `/xapi/schemas` (xnatpy and pyxnat read it) and `SiteConfigApi.buildInfo`.
"""

from __future__ import annotations

from .documents import root_name

# The part of XNAT's schema that clients build their classes from: each type's base, its
# attributes, and its elements (`name`, `list/name:type`, or `name*:type` without a wrapper).
SCHEMA_TYPES = {
    "projectData": ("", "ID secondary_ID", "name description"),
    "subjectData": (
        "",
        "ID project label",
        "resources/resource:abstractResource experiments/experiment:experimentData",
    ),
    "abstractResource": ("", "label file_count file_size", "note"),
    "resource": ("abstractResource", "URI format description content", ""),
    "resourceCatalog": ("resource", "", ""),
    "experimentData": ("", "ID project label", "date time note resources/resource:abstractResource"),
    "subjectAssessorData": ("experimentData", "", "subject_ID age"),
    "imageSessionData": (
        "subjectAssessorData",
        "modality UID",
        """scanner operator scans/scan:imageScanData
        reconstructions/reconstructedImage:reconstructedImageData
        assessors/assessor:imageAssessorData""",
    ),
    "imageScanData": (
        "",
        "ID type UID",
        """image_session_ID note quality condition series_description frames
        file*:abstractResource""",
    ),
    "reconstructedImageData": (
        "",
        "ID type baseScanType",
        "image_session_ID in/file:abstractResource out/file:abstractResource",
    ),
    "derivedData": (
        "experimentData",
        "",
        "in/file:abstractResource out/file:abstractResource imageSession_ID",
    ),
    "imageAssessorData": ("derivedData", "", ""),
    "qcManualAssessorData": ("imageAssessorData", "", ""),
    **{
        f"{kind}{of}Data": (f"image{of}Data", "", "")
        for kind in ("mr", "pet", "ct", "otherDicom")
        for of in ("Session", "Scan")
    },
}
SCHEMA_HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<xs:schema targetNamespace="http://nrg.wustl.edu/xnat" xmlns:xnat="http://nrg.wustl.edu/xnat" \
xmlns:xs="http://www.w3.org/2001/XMLSchema" elementFormDefault="qualified">
"""


def schema_element(text: str) -> str:
    """One element of a type, from its short form in SCHEMA_TYPES."""
    path, _, kind = text.partition(":")
    wrapper, _, name = path.rpartition("/")
    if not kind:
        type = "date" if name == "date" else "string"
        return f'<xs:element name="{name}" type="xs:{type}" minOccurs="0"/>'
    many = 'minOccurs="0" maxOccurs="unbounded"'
    element = f'<xs:element name="{name.rstrip("*")}" type="xnat:{kind}" {many}/>'
    if not wrapper:
        return element
    inner = f"<xs:complexType><xs:sequence>{element}</xs:sequence></xs:complexType>"
    return f'<xs:element name="{wrapper}" minOccurs="0">{inner}</xs:element>'


def schema_type(name: str) -> str:
    """One complex type of the schema."""
    base, attributes, elements = SCHEMA_TYPES[name]
    inner = "".join(map(schema_element, elements.split()))
    text = f"<xs:sequence>{inner}</xs:sequence>"
    for each in attributes.split():
        text += f'<xs:attribute name="{each}" type="xs:string"/>'
    if base:
        text = f'<xs:extension base="xnat:{base}">{text}</xs:extension>'
        text = f"<xs:complexContent>{text}</xs:complexContent>"
    return f'<xs:complexType name="{name}">{text}</xs:complexType>\n'


def schema_document() -> bytes:
    """A reduced xnat.xsd."""
    roots = [
        f'<xs:element name="{root_name("xnat:" + name)[5:]}" type="xnat:{name}"/>\n' for name in SCHEMA_TYPES
    ]
    types = [schema_type(name) for name in SCHEMA_TYPES]
    return (SCHEMA_HEAD + "".join(roots + types) + "</xs:schema>\n").encode()


def build_info(version: str) -> dict[str, str]:
    return {
        "version": version,
        "buildNumber": "Manual",
        "buildDate": "2024-06-12 09:00:00",
        "isDirty": "false",
        "commit": "v" + version,
        "shortHash": "93d33cb",
        "hostName": "localhost",
    }
