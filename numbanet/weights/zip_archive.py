"""Reading zip archives that nobody vouches for: the directory is checked whole before anything is taken from it.

The layout is that of PKWARE's APPNOTE 6.3.3: members (local header, data), the central directory, its end record; zip64 records
where 32 bits do not suffice. Stored members are handed out as views of the archive, deflated ones inflated to the size they declare.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from numbanet.errors import CheckpointError

MAX_MEMBERS = 20_000
FREE_EXPANSION = 192 << 20      # bytes that any archive may expand to
MAX_RATIO = 20                  # by which larger ones may exceed the archive
PIECE = 1 << 16                 # compressed bytes at a time: at most 64 MiB decompressed
STORED, DEFLATED = 0, 8
KNOWN_FLAGS = 0x080E            # deflate's options, sizes behind the data, names in UTF-8: not encrypted, not a patch
NEWEST = 63                     # version of the APPNOTE, times ten, that a reader has to know
FOLDER = 0x10                   # of MS-DOS's file attributes

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF


class Member(NamedTuple):
    """One file of the archive."""

    name: str
    method: int
    crc: int
    compressed: int     # bytes
    size: int           # bytes, uncompressed
    start: int          # of the data


class Archive:
    """The members of a zip archive by name.

    Parameters
    ----------
    data : a buffer of the whole file

    Raises
    ------
    CheckpointError
        Not a plain archive: truncated, members that overlap or occur twice, encrypted, or expanding far beyond its size.
    """

    def __init__(self, data):
        self.data = data
        self.members: dict[str, Member] = {}
        count, begin, end = self._directory()
        spans, position = [], begin
        for _ in range(count):
            member, header, position = self._entry(position, begin, end)
            if member.name in self.members:
                raise _damaged(f"{member.name!r} occurs twice")
            self.members[member.name] = member
            spans.append((header, member.start + member.compressed, member.name))
        if position != end:
            raise _damaged("its directory is longer than its members")
        spans.sort()
        for (_, first_end, first), (second_begin, _, second) in zip(spans, spans[1:]):
            if first_end > second_begin:
                raise _damaged(f"{first!r} and {second!r} overlap")
        total = sum(member.size for member in self.members.values())
        if total > max(FREE_EXPANSION, MAX_RATIO * len(data)):
            raise CheckpointError(f"a zip file of {len(data)} bytes that expands to {total}: refused, since files of weights do not "
                                  f"shrink {MAX_RATIO}-fold")

    def read(self, name: str, check: bool = False):
        """The bytes of a member: a view of the archive where it is stored plainly, else a new bytearray. Deflated members are compared
        with their checksum, stored ones with `check`."""
        member = self.members[name]
        raw = memoryview(self.data)[member.start:member.start + member.compressed]
        if member.method == DEFLATED:
            raw, check = self._inflate(member, raw), True
        if check and zlib.crc32(raw) != member.crc:
            raise _damaged(f"{name!r} does not have the checksum it should")
        return raw

    @staticmethod
    def _inflate(member: Member, raw) -> bytearray:
        inflater, out = zlib.decompressobj(-zlib.MAX_WBITS), bytearray()
        try:
            for begin in range(0, len(raw), PIECE):
                out += inflater.decompress(raw[begin:begin + PIECE])
                if len(out) > member.size:
                    break
        except zlib.error as error:
            raise _damaged(f"{member.name!r} cannot be decompressed: {error}") from error
        if len(out) != member.size or not inflater.eof:
            raise _damaged(f"{member.name!r} does not have the {member.size} bytes it declares")
        return out

    def _unpack(self, layout: struct.Struct, position: int, signature: bytes, limit: int) -> tuple:
        if not 0 <= position <= limit - layout.size:
            raise _damaged("it is truncated")
        fields = layout.unpack(self.data[position:position + layout.size])
        if fields[0] != signature:
            raise _damaged(f"{signature!r} is expected at byte {position}")
        return fields

    def _directory(self) -> tuple[int, int, int]:
        """(number of members, first and last byte) of the central directory."""
        size = len(self.data)
        end = self.data.rfind(b"PK\5\6", max(0, size - _END.size - _FULL16))
        _, *fields, comment = self._unpack(_END, end, b"PK\5\6", size)
        if end + _END.size + comment != size:
            raise _damaged("bytes follow its end")
        if end >= _LOCATOR.size and self.data[end - _LOCATOR.size:end - _LOCATOR.size + 4] == b"PK\6\7":
            end, fields = self._wide_end(end - _LOCATOR.size, fields)
        disk, first_disk, here, count, length, begin = fields
        if disk or first_disk or here != count:
            raise _damaged("it is one part of several")
        if count > MAX_MEMBERS:
            raise _damaged(f"it has {count} members; at most {MAX_MEMBERS} are read")
        if begin + length != end:
            raise _damaged("its directory does not lie before its end")
        return count, begin, begin + length

    def _wide_end(self, locator: int, narrow: list[int]) -> tuple[int, list[int]]:
        """(position, fields) of the zip64 end record, which says the same as the `narrow` one except where 32 bits do not suffice."""
        _, disk, position, disks = self._unpack(_LOCATOR, locator, b"PK\6\7", len(self.data))
        _, length, _, _, *wide = self._unpack(_END64, position, b"PK\6\6", locator)
        if disk or disks != 1 or length != _END64.size - 12 or any(
                small not in (large, full) for small, large, full in zip(narrow, wide, [_FULL16] * 4 + [_FULL32] * 2)):
            raise _damaged("its two end records contradict each other")
        return position, wide

    def _entry(self, position: int, begin: int, end: int) -> tuple[Member, int, int]:
        """(member, position of its local header, position of the next entry)."""
        (_, _, needed, flags, method, _, _, crc, compressed, size, name_length, extra_length, comment_length, disk, _, attributes,
         header) = self._unpack(_CENTRAL, position, b"PK\1\2", end)
        name_end = position + _CENTRAL.size + name_length
        next_entry = name_end + extra_length + comment_length
        if next_entry > end:
            raise _damaged("its directory is truncated")
        raw_name = bytes(self.data[position + _CENTRAL.size:name_end])
        try:
            name = raw_name.decode()
        except UnicodeDecodeError as error:
            raise _damaged(f"the name {raw_name!r:.80} is not UTF-8") from error
        size, compressed, header = _widened(self.data[name_end:name_end + extra_length], [size, compressed, header])
        if flags & ~KNOWN_FLAGS or method not in (STORED, DEFLATED) or disk or needed > NEWEST:
            raise _damaged(f"{name!r} is encrypted, of a newer format, or not compressed by deflate")
        if method == STORED and compressed != size or attributes & FOLDER and not name.endswith("/"):
            raise _damaged(f"{name!r} contradicts itself about its size")
        _, _, _, local_method, *_, local_name, local_extra = self._unpack(_LOCAL, header, b"PK\3\4", begin)
        start = header + _LOCAL.size + local_name + local_extra
        if local_method != method or bytes(self.data[header + _LOCAL.size:header + _LOCAL.size + local_name]) != raw_name:
            raise _damaged(f"{name!r} is described in two ways")
        if start + compressed > begin:
            raise _damaged(f"{name!r} lies outside of it")
        return Member(name, method, crc, compressed, size, start), header, next_entry


def _widened(extra: bytes, values: list[int]) -> list[int]:
    """[size, compressed, header], 64-bit values of the extra field in place of those that 32 bits cannot hold."""
    position = 0
    while position + 4 <= len(extra) and _FULL32 in values:
        kind, length = struct.unpack("<2H", extra[position:position + 4])
        if kind == 1:
            count = min(length, len(extra) - position - 4) // 8
            numbers = iter(struct.unpack_from(f"<{count}Q", extra, position + 4))
            return [next(numbers, value) if value == _FULL32 else value for value in values]
        position += 4 + length
    return values


def _damaged(reason: str) -> CheckpointError:
    return CheckpointError(f"not a whole zip file ({reason})")
