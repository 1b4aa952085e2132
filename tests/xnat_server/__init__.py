"""A stand-in for an XNAT server, for tests: a real HTTP/1.1 server on loopback.

It imitates XNAT 1.8 (read in the sources of 1.8.11; 1.10 reads alike) and, where
a switch says so, 1.7.4 or 1.11, as a client that downloads sees them: the Restlet
engine 1.1.10 behind `/data` and `/REST`, Tomcat 9's error pages, Spring's firewall,
XNAT's log-in answers, listings, session documents, file listings, single files, and
the archives that it writes while it sends them, including how those end when
something goes wrong.

    world = World()
    scan = world.project("p").session("s", subject="subj").scan("1", type="T1")
    scan.resource("DICOM", {"a.dcm": b"..."})
    with XnatServer(world) as server:
        server.fault("vanish", match="format=zip", member="a.dcm")
        ...  # point a client at server.url, log in as admin/admin

`World` says who may see what and holds the site's switches, `XnatServer.fault` makes
chosen requests fail (`FAULTS` lists the kinds), `XnatServer.requests` is the record.

    contents           what files hold: bytes, or gigabytes that cost nothing
    world              what the site holds, who may see it, and the switches
    tables, documents  the forms of listings and of records
    naming, archives   paths in listings and archives, and the archives' bytes
    answers            requests, answers, error pages
    logins             sessions, refused log-ins, alias tokens
    finding            what a path means
    lists, records, files, schema, routes    the answers, by kind
    faults             what can go wrong, in XNAT and in front of it
    wire, server       connections
    program            the demonstration

Unconfirmed in XNAT, and so a choice: a range beyond a file's end is 500; an alias token
is gone at the moment when it expires; the one number of a newer SESSION_EXPIRATION_TIME
is the time of its end; which pages and headers XNAT 1.11 has besides what `restlet=2`
shows. Left out: writing of any kind, the prearchive, search
documents other than what listings need, `/xapi/archive`, DICOMDIR, `/DIR`, reading
inside stored ZIPs, `accept-not-found`, sharing of scans, HTTP/2, and the HTML pages
(one short page stands for each).

As a program: `python tests/xnat_server --port 8080` serves a small demonstration
site (user admin, password admin) with the images of pydicom.
"""

from .answers import Answer, Request
from .archives import Member, ZipWriter
from .contents import Bytes, Synthetic
from .faults import FAULTS, Fault
from .program import demo_world
from .server import XnatServer
from .world import Assessor, File, Project, Reconstruction, Resource, Scan, Session, Subject, World

__all__ = [
    "FAULTS",
    "Answer",
    "Assessor",
    "Bytes",
    "Fault",
    "File",
    "Member",
    "Project",
    "Reconstruction",
    "Request",
    "Resource",
    "Scan",
    "Session",
    "Subject",
    "Synthetic",
    "World",
    "XnatServer",
    "ZipWriter",
    "demo_world",
]
