"""ZIP and tar archives, written while they are sent.

Imitates XNAT's `ZipRepresentation`, `ZipUtils` and `TarUtils` on Java's ZipOutputStream and Apache's
TarArchiveOutputStream, with how each ends when something goes wrong; `golden/` holds XNAT's own bytes.
"""

from __future__ import annotations

import functools
import itertools
import struct
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Union

from .contents import Content, ReadError

ZIP32, ZIP16 = 0xFFFFFFFF, 0xFFFF
ARCHIVES = {"zip": "application/zip", "tar": "application/x-tar", "tar.gz": "application/x-gtar"}


@dataclass
class Member:
    """A member to write: its path, contents, and what is wrong with it."""

    path: str
    data: Content
    modified: float = 1551784333.0
    vanishes: bool = False
    fails_at: int | None = None
    flip: int | None = None  # offset of the byte to invert
    mode: int = 0  # unix mode, which XNAT never sets
    compression: int | None = None  # other than the archive's
    forced: bool = False  # written though its path was there already
    silence: float = 0  # seconds before it

    def blocks(self) -> Iterator[memoryview]:
        """Its bytes, up to the read error if there is one."""
        if self.flip is not None:
            yield from self.data.blocks(0, self.flip)
            byte = bytes(next(self.data.blocks(self.flip, self.flip + 1)))
            yield memoryview(bytes([byte[0] ^ 0xFF]))
            yield from self.data.blocks(self.flip + 1)
        else:
            yield from self.data.blocks(0, self.fails_at)
        if self.fails_at is not None:
            raise ReadError(self.path)

    def deflated(self) -> Iterator[bytes]:
        """A raw deflate stream of what could be read; ends well after a read error too."""
        if self.fails_at is None and self.flip is None:
            yield from self.data.deflated()
            return
        deflater = zlib.compressobj(-1, zlib.DEFLATED, -15)
        with suppress(ReadError):
            for block in self.blocks():
                yield deflater.compress(block)
        yield deflater.flush()


@dataclass
class Silence:
    """Among the pieces of a body: nothing is sent for so many seconds.

    `pushed` is what a front end sends at once; Tomcat keeps what does not fill its buffer.
    """

    seconds: float
    pushed: bool = False


Piece = Union[bytes, memoryview, Silence]


class BrokenBodyError(Exception):
    """The writing of a body failed, and the server ends it as if it were whole."""


def zeros() -> Iterator[bytes]:
    """Zeros without end."""
    return itertools.repeat(bytes(65536))


def dos_time(seconds: float) -> tuple[int, int]:
    """Time and date of a ZIP entry, in local time as Java has it."""
    t = time.localtime(seconds)
    return (
        t.tm_hour << 11 | t.tm_min << 5 | t.tm_sec // 2,
        (t.tm_year - 1980) << 9 | t.tm_mon << 5 | t.tm_mday,
    )


class ZipWriter:
    """Writes a ZIP as Java's ZipOutputStream under XNAT's ZipRepresentation does."""

    def __init__(self, compression: int, closes_well: bool, endless: bool = False) -> None:
        self.compression = compression
        self.endless = endless  # zeros come in place of the directory
        self.closes_well = closes_well  # since 1.7.6: the archive is closed after an error
        self.offset = 0
        self.directory: list[bytes] = []
        self.paths: set[Any] = set()

    def pieces(self, members: Iterable[Member]) -> Iterator[Piece]:
        """The archive; after an error it ends as XNAT of that time ends it."""
        try:
            for member in members:
                yield from self.member(member)
        except ReadError:
            if not self.closes_well:
                raise BrokenBodyError() from None
        except BrokenBodyError:
            return  # in a stored member: even closing fails
        if self.endless:
            yield from zeros()
        yield self.end()

    def member(self, member: Member) -> Iterator[Piece]:
        if member.silence:
            yield Silence(member.silence)
        if member.vanishes or (member.path in self.paths and not member.forced):
            raise ReadError(member.path)
        self.paths.add(member.path)
        deflate = member.compression or (member.compression is None and self.compression)
        write = self.deflated_member if deflate else self.stored_member
        for piece in write(member):
            self.offset += len(piece)
            yield piece

    def stored_member(self, member: Member) -> Iterator[bytes | memoryview]:
        """Sizes and CRC in the local header; XNAT has read the file once before."""
        size = member.data.size
        start = self.offset
        yield self.local_header(member, 0x800, 0, member.data.crc, size)
        try:
            yield from member.blocks()
        except ReadError:
            if self.closes_well:
                raise BrokenBodyError() from None
            raise
        self.note(member, 0x800, 0, member.data.crc, size, size, start)

    def deflated_member(self, member: Member) -> Iterator[bytes | memoryview]:
        """Sizes and CRC in a descriptor behind it, of what could be read."""
        start, packed = self.offset, 0
        yield self.local_header(member, 0x808, 8, 0, 0)
        for piece in member.deflated():
            packed += len(piece)
            yield piece
        size, crc = member.data.size, member.data.crc
        if member.fails_at is not None:
            size = min(size, member.fails_at)
            crc = functools.reduce(lambda total, b: zlib.crc32(b, total), member.data.blocks(0, size), 0)
            if not self.closes_well:
                raise ReadError(member.path)
        large = max(size, packed) >= ZIP32
        yield struct.pack("<4sIQQ" if large else "<4sIII", b"PK\x07\x08", crc, packed, size)
        self.note(member, 0x808, 8, crc, packed, size, start)
        if member.fails_at is not None:
            raise ReadError(member.path)

    def local_header(self, member: Member, flags: int, method: int, crc: int, size: int) -> bytes:
        name = member.path.encode()
        large = size >= ZIP32
        extra = struct.pack("<HHQQ", 1, 16, size, size) if large else b""
        size = ZIP32 if large else size
        version = 45 if large else 20 if method else 10
        head = (b"PK\x03\x04", version, flags, method, *dos_time(member.modified))
        sizes = (crc, size, size, len(name), len(extra))
        return struct.pack("<4s5H3I2H", *head, *sizes) + name + extra

    def note(
        self, member: Member, flags: int, method: int, crc: int, packed: int, size: int, start: int
    ) -> None:
        """Remember a member's entry for the central directory."""
        name = member.path.encode()
        large = [value for value in (size, packed, start) if value >= ZIP32]
        extra = struct.pack(f"<HH{len(large)}Q", 1, 8 * len(large), *large) if large else b""
        version = 45 if large else 20 if method else 10
        made_by = version | (0x300 if member.mode else 0)
        head = (b"PK\x01\x02", made_by, version, flags, method, *dos_time(member.modified))
        sizes = (crc, min(packed, ZIP32), min(size, ZIP32), len(name), len(extra), 0, 0, 0)
        tail = (member.mode << 16, min(start, ZIP32))
        self.directory.append(struct.pack("<4s6H3I5H2I", *head, *sizes, *tail) + name + extra)

    def end(self) -> bytes:
        """The central directory and the end records."""
        directory, count = b"".join(self.directory), len(self.directory)
        size, start = len(directory), self.offset
        large = b""
        if count >= ZIP16 or size >= ZIP32 or start >= ZIP32:
            sizes = (44, 45, 45, 0, 0, count, count, size, start)
            large = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", *sizes)
            large += struct.pack("<4sIQI", b"PK\x06\x07", 0, start + size, 1)
        short = min(count, ZIP16)
        ends = (0, 0, short, short, min(size, ZIP32), min(start, ZIP32), 0)
        return directory + large + struct.pack("<4s4H2IH", b"PK\x05\x06", *ends)


def tar_header(path: str, size: int, modified: float, type: bytes = b"0") -> bytes:
    """A header as Apache's TarArchiveOutputStream under XNAT's TarUtils writes it."""

    def octal(value: int, width: int) -> bytes:
        return b"%0*o" % (width, value)

    name = path.encode()[:100].ljust(100, b"\0")
    numbers = b"0000060 " + b"0000000 " * 2 + octal(size, 11) + b" " + octal(int(modified), 11) + b" "
    names = type + bytes(100) + b"ustar\x0000" + b"root".ljust(32, b"\0") + bytes(32)
    rest = (names + b"0000000 0000000 ").ljust(356, b"\0")
    total = sum(name + numbers + b" " * 8 + rest)
    return name + numbers + octal(total, 6) + b"\0 " + rest


def tar_pieces(members: Iterable[Member]) -> Iterator[Piece]:
    """A tar in records of 10,240 bytes; an error leaves the last of them out."""
    size = 0
    for member in members:
        if member.vanishes:
            raise BrokenBodyError()
        long = member.path.encode() + b"\0"
        if len(long) > 101:
            yield tar_header("././@LongLink", len(long), 0, b"L")
            yield long + bytes(-len(long) % 512)
            size += 512 + len(long) + -len(long) % 512
        yield tar_header(member.path, member.data.size, member.modified)
        try:
            yield from member.blocks()
        except ReadError:
            raise BrokenBodyError() from None
        yield bytes(-member.data.size % 512)
        size += 512 + member.data.size + -member.data.size % 512
    yield bytes(1024 + -(size + 1024) % 10240)


def in_records(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """The same bytes in whole tar records: what is not a record is lost in an error."""
    pending = bytearray()
    for piece in pieces:
        if isinstance(piece, Silence):
            yield piece
            continue
        pending += piece
        whole = len(pending) - len(pending) % 10240
        if whole:
            yield bytes(pending[:whole])
            del pending[:whole]
    if pending:
        yield bytes(pending)


def gzipped(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """A gzip stream as Java's GZIPOutputStream writes it; an error cuts it."""
    yield b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    deflater, crc, size = zlib.compressobj(-1, zlib.DEFLATED, -15), 0, 0
    for piece in pieces:
        if isinstance(piece, Silence):
            yield piece
            continue
        crc, size = zlib.crc32(piece, crc), size + len(piece)
        yield deflater.compress(piece)
    yield deflater.flush() + struct.pack("<II", crc, size & ZIP32)
