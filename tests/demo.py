"""Shows xget at work on a test XNAT with real DICOM images; `python3 tests/run.py demo` calls it.

Everything happens in a temporary directory, and the server, which is on loopback only, stops at
the end.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pydicom
from xnat_server import XnatServer, demo_world

XGET = Path(__file__).resolve().parent.parent / "xget"


def say(text: str) -> None:
    print(f"\n{text}\n", flush=True)


def run(folder: Path, command: str) -> None:
    """Print a command as typed, run it in `folder`, which is HOME too, and stop if it fails."""
    print(f"$ {command}", flush=True)
    program, *words = shlex.split(command)
    assert program == "xget"
    env = {**os.environ, "HOME": str(folder), "USERPROFILE": str(folder)}
    env = {name: value for name, value in env.items() if not name.startswith("XNAT_")}
    subprocess.run([sys.executable, str(XGET), *words], cwd=folder, env=env, check=True)


def show_archive(path: Path) -> None:
    """Print the names and sizes of an archive's members."""
    print(f"\n{path.name}")
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            print(f"  {info.file_size:>7,}  {info.filename}")


def show_tree(folder: Path, indent: str = "  ") -> None:
    """Print what a folder holds, hidden files too."""
    for path in sorted(folder.iterdir()):
        print(f"{indent}{path.name}{'/' * path.is_dir()}")
        if path.is_dir():
            show_tree(path, indent + "  ")


def show_image(path: Path) -> None:
    """Print a few fields of a DICOM header, and the size of the image."""
    image = pydicom.dcmread(path)
    for name in ("Modality", "Manufacturer", "PatientID", "Rows", "Columns", "InstanceNumber"):
        print(f"  {name:<16}{image.get(name)}")
    print(f"  {'pixels':<16}{len(image.PixelData):,} bytes")


def show_archives(server: XnatServer, folder: Path) -> None:
    say("Everything of one session. The server and the account are on the command line:")
    run(folder, f"xget -host {server.url} -u admin -p admin -s sess_1")
    for kind in ("acq", "ass", "recon"):
        show_archive(folder / f"sess_1_{kind}.zip")


def show_extraction(server: XnatServer, folder: Path) -> None:
    pass_file = folder / ".xnatPass"
    pass_file.write_text(f"+admin@{server.url}=admin\n", encoding="utf-8")
    pass_file.chmod(0o600)
    say("From now on ~/.xnatPass holds them. Two scans by ID and by type, extracted:")
    (folder / "images").mkdir()
    run(folder, "xget -s XNAT_E00001 -acq '1,PIB 336mtx' -ass NONE -recon NONE -z -o images")
    print("\nimages/")
    show_tree(folder / "images")
    image = next((folder / "images").rglob("IM0001.dcm"))
    say(f"One of the images, read with pydicom ({image.name}):")
    show_image(image)


def show_healing(server: XnatServer, folder: Path) -> None:
    say(
        "Now a file vanishes from the server's disk while it sends the next archive. XNAT leaves out\n"
        "this file and all behind it, and ends the ZIP as if it were whole, with status 200."
    )
    (folder / "healed").mkdir()
    server.clear()
    server.fault("vanish", match="format=zip", member="IM0004")
    run(folder, "xget -s sess_1 -acq TSE -ass NONE -recon NONE -o healed")
    show_archive(folder / "healed" / "sess_1_acq.zip")
    say("xget compared the ZIP with the server's listing, and asked again for what it lacked:")
    for request in server.requests:
        if "/files" in request.path:
            print(f"  {request.method} {request.path}")


def show_short_paths(folder: Path) -> None:
    say("At last every scan of the project, with short paths, as other programs like them:")
    (folder / "dicom").mkdir()
    run(folder, "xget -proj proj_3 -ass NONE -recon NONE -z -flat -o dicom")
    print("\ndicom/")
    show_tree(folder / "dicom")
    say("The same command once more finds nothing new, and prints nothing:")
    run(folder, "xget -proj proj_3 -ass NONE -recon NONE -z -flat -o dicom")
    say("With `| xargs -I {} dcm2niix -o nifti {}` behind it, each new session becomes NIfTI files.")


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="xget-demo-") as name, XnatServer(demo_world()) as server:
        print(f"A test XNAT runs at {server.url}, for as long as this takes.")
        show_archives(server, Path(name))
        show_extraction(server, Path(name))
        show_healing(server, Path(name))
        show_short_paths(Path(name))
    say("The server is stopped, and the files are removed.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
