"""The test XNAT as a program: a small demonstration site with the images of pydicom."""

from __future__ import annotations

import argparse
import io
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from .server import XnatServer
from .world import World


def dicom_images(name: str, count: int) -> dict[str, bytes]:
    """Instances of one of pydicom's own images, each with a UID and number of its own."""
    import pydicom

    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    files = {}
    for number in range(1, count + 1):
        image = pydicom.dcmread(folder / name)
        image.SOPInstanceUID = f"{image.SOPInstanceUID}.{number}"
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        image.InstanceNumber = number
        stream = io.BytesIO()
        image.save_as(stream)
        files[f"IM{number:04}.dcm"] = stream.getvalue()
    return files


def demo_world() -> World:
    """Two projects with a few sessions, the images in them real."""
    world = World()
    project = world.project("proj_3", name="Project 3", aliases=("p3",))
    session = project.session("sess_1", subject="subj_1", date="2011-11-17", time="14:23:50")
    scan = session.scan("1", type="TSE", quality="usable", description="TSE", frames=6)
    scan.resource("DICOM", dicom_images("MR_small.dcm", 6), format="DICOM", content="RAW")
    scan = session.scan("2", type="PIB 336mtx", quality="questionable", description="PIB 336mtx")
    scan.resource("DICOM", dicom_images("CT_small.dcm", 4), format="DICOM", content="RAW")
    text = {"qc.txt": b"passed\n"}
    session.assessor("sess_1_QC").resource("DATA", text, format="TXT")
    session.reconstruction("R1", type="RECON A").resource("NIFTI", {"r1.nii": bytes(700)})
    session.resource("NOTES", {"n.txt": b"a calm subject\n"}, format="TXT")
    other = world.project("proj_1", name="Project 1")
    for number, date in ((1, "2010-02-01"), (2, "2012-06-30")):
        id, label = f"xnat_E000{number}", f"visit_{number}"
        visit = other.session(label, subject="subj_7", date=date, id=id)
        scan = visit.scan("1", type="T1", description="t1_mprage_sag")
        scan.resource("DICOM", dicom_images("MR_small.dcm", 2), format="DICOM", content="RAW")
    return world


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the demonstration until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description="A small demonstration XNAT (admin/admin).")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--context", default="", help="a path in front, such as /xnat")
    options = parser.parse_args(argv)
    done = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: done.set())
    with XnatServer(demo_world(), options.context, port=options.port) as server:
        print(server.url, flush=True)
        while not done.wait(0.5):
            pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
