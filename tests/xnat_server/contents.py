"""Contents of files: bytes in memory, or any number of them made up while they are sent.

Nothing of XNAT is imitated here. A `Synthetic` of gigabytes costs neither memory nor disk, and its CRC
and MD5 are known without going through it (the CRC), or once (the MD5).
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import random
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Union

MIB = 1 << 20


class ReadError(Exception):
    """The disk fails under a file that is being sent."""


@functools.lru_cache(maxsize=64)
def pattern(seed: int | None) -> bytes:
    """A MiB of noise that is the same for the same seed; of zeros for None."""
    return bytes(MIB) if seed is None else random.Random(seed).randbytes(MIB)


@functools.lru_cache(maxsize=64)
def deflated_pattern(seed: int | None) -> bytes:
    """The MiB of `pattern`, deflated so that copies of it can be joined."""
    deflater = zlib.compressobj(6, zlib.DEFLATED, -15)
    return deflater.compress(pattern(seed)) + deflater.flush(zlib.Z_FULL_FLUSH)


@functools.lru_cache(maxsize=256)
def deflated_rest(size: int, seed: int | None) -> bytes:
    """The end of a deflate stream: the first bytes of the pattern."""
    deflater = zlib.compressobj(6, zlib.DEFLATED, -15)
    return deflater.compress(pattern(seed)[:size]) + deflater.flush()


def gf2_times(matrix: Sequence[int], vector: int) -> int:
    """Multiply a 32 x 32 bit matrix by a vector, over GF(2)."""
    total, row = 0, 0
    while vector:
        if vector & 1:
            total ^= matrix[row]
        vector >>= 1
        row += 1
    return total


def crc_repeated(crc: int, length: int, count: int) -> int:
    """The CRC-32 of `count` copies of data that has this CRC and length."""
    shift = [0xEDB88320] + [1 << bit for bit in range(31)]  # what one zero bit does
    bits, total = length * 8, 0
    operator, power = [1 << bit for bit in range(32)], shift
    while bits:
        if bits & 1:
            operator = [gf2_times(power, row) for row in operator]
        power = [gf2_times(power, row) for row in power]
        bits >>= 1
    while count:
        if count & 1:
            total = gf2_times(operator, total) ^ crc
        crc = gf2_times(operator, crc) ^ crc
        operator = [gf2_times(operator, row) for row in operator]
        count >>= 1
    return total


@functools.lru_cache(maxsize=1024)
def synthetic_crc(size: int, seed: int | None) -> int:
    """The CRC-32 of a Synthetic, without going through its bytes."""
    block = pattern(seed)
    crc = crc_repeated(zlib.crc32(block), MIB, size // MIB)
    return zlib.crc32(block[: size % MIB], crc)


@functools.lru_cache(maxsize=1024)
def synthetic_md5(size: int, seed: int | None) -> str:
    """The MD5 of a Synthetic: about two seconds a GiB, once."""
    digest = hashlib.md5()
    for _ in range(size // MIB):
        digest.update(pattern(seed))
    digest.update(pattern(seed)[: size % MIB])
    return digest.hexdigest()


@dataclass(frozen=True)
class Synthetic:
    """Contents of any size, made of a MiB of noise over and over (zeros: seed=None)."""

    size: int
    seed: int | None = 0

    @property
    def crc(self) -> int:
        return synthetic_crc(self.size, self.seed)

    @property
    def md5(self) -> str:
        return synthetic_md5(self.size, self.seed)

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[memoryview]:
        """The bytes from `start` to `stop`, in pieces."""
        block = memoryview(pattern(self.seed))
        stop = self.size if stop is None else min(stop, self.size)
        while start < stop:
            offset = start % MIB
            piece = block[offset : offset + stop - start]
            yield piece
            start += len(piece)

    def deflated(self) -> Iterator[bytes]:
        """A raw deflate stream of the whole, at the price of its last MiB."""
        yield from itertools.repeat(deflated_pattern(self.seed), self.size // MIB)
        yield deflated_rest(self.size % MIB, self.seed)


class Bytes:
    """Contents that are held in memory."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)
        self.crc = zlib.crc32(data)

    @functools.cached_property
    def md5(self) -> str:
        return hashlib.md5(self.data).hexdigest()

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[memoryview]:
        """The bytes from `start` to `stop`, in pieces."""
        yield memoryview(self.data)[start:stop]

    @functools.cached_property
    def packed(self) -> bytes:
        deflater = zlib.compressobj(-1, zlib.DEFLATED, -15)
        return deflater.compress(self.data) + deflater.flush()

    def deflated(self) -> Iterator[bytes]:
        """A raw deflate stream of the whole, as Java's default makes it."""
        yield self.packed


Content = Union[Bytes, Synthetic]


def as_content(data: bytes | Content) -> Content:
    return Bytes(bytes(data)) if isinstance(data, (bytes, bytearray)) else data
