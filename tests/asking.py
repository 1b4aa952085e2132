"""What the tests of the test XNAT share: a world with everything in it, and a bare way to ask."""

from __future__ import annotations

import http.client
import io
import json
import zipfile
from base64 import b64encode
from dataclasses import dataclass
from typing import Any

from xnat_server import Session, Synthetic, World, XnatServer

ADMIN = ("admin", "admin")
E = "/data/experiments/XNAT_E00001"


@dataclass
class Reply:
    """What came back; `whole` is false where the connection broke."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    whole: bool = True

    @property
    def rows(self) -> list[dict[str, str]]:
        return json.loads(self.body)["ResultSet"]["Result"]

    @property
    def names(self) -> list[str]:
        """The members of a ZIP that is sound."""
        with zipfile.ZipFile(io.BytesIO(self.body)) as archive:
            assert archive.testzip() is None
            return archive.namelist()


def basic(user: str, password: str) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def ask(server: XnatServer, path: str, method: str = "GET", user: Any = ADMIN, **headers: str) -> Reply:
    """One request on a connection of its own; no cookie unless one is given."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    head = {"Authorization": basic(*user)} if user else {}
    head.update({name.replace("_", "-"): value for name, value in headers.items()})
    connection.request(method, server.context + path, headers=head)
    response = connection.getresponse()
    try:
        return Reply(response.status, response.headers, response.read())
    except http.client.IncompleteRead as error:
        return Reply(response.status, response.headers, error.partial, False)
    finally:
        connection.close()


def session_of(server: XnatServer) -> Session:
    return server.world.sessions()[0]


def full_world() -> World:
    """Two projects; a session with everything, a shared one, a questionnaire."""
    world = World(users={"admin": "admin", "bob": "pass:word", "eve": "eve"})
    first = world.project("P1", name="Project 1", aliases=("alias_1",), hidden_from=("bob",))
    second = world.project("P2", unreadable=("eve",))
    session = first.session("MR1", subject="subj_1", date="2011-11-17")
    scan = session.scan("1", type="T1 MPRAGE", description="t1_mprage_sag")
    files = {"a.dcm": b"a" * 5000, "sub/b c.dcm": b"b" * 6000, "1/n.dcm": Synthetic(9000)}
    scan.resource("DICOM", files, format="DICOM", content="RAW")
    scan.resource("", {"x.gif": b"x"})
    other = session.scan("3-OT", type="t2/tse, sag", quality="questionable")
    other.resource("DICOM", {"c.dcm": b"c" * 20000}, format="DICOM")
    session.scan("4")
    qc = session.assessor("MR1_QC")
    qc.resource("DATA", {"qc.txt": b"out"})
    qc.resource("LOG", {"log.txt": b"in"}, where="in")
    session.reconstruction("R1", type="RECON A").resource("NIFTI", {"r.nii": b"r" * 700})
    session.resource("NOTES", {"n.txt": b"note"})
    session.subject.resource("CONSENT", {"consent.pdf": b"yes"})
    session.share(second, "Shared_01")
    second.session("MR2", subject="subj_2", date="2012-06-30", type="xnat:petSessionData")
    second.session("Q1", subject="subj_2", type="xnat:demographicForm")
    return world
