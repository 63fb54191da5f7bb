"""Whether the file of an LMDB environment has all of its pages: LMDB maps it, and a missing page kills the process."""

import os
import struct
from collections.abc import Iterator

import lmdb

from common.errors import DataError

# Of LMDB's mdb.c, on 64-bit machines. All numbers are little-endian there.
_PAGE_HEADER = struct.Struct("<QHHHH")  # number, padding, flags, end of the node table, start of the nodes
_NODE = struct.Struct("<HHHH")  # low and high half of the data's size, flags, size of the key
_META = struct.Struct("<II QQ 48s 48s QQ")  # magic, version, address, map size, free list, keys, last page, transaction
_TREE = struct.Struct("<I HH QQQQ Q")  # page size, flags, depth, branch, leaf and overflow pages, entries, root
_BRANCH, _LEAF, _BIG_DATA, _NO_PAGE = 0x01, 0x02, 0x01, (1 << 64) - 1


def check_complete(environment: lmdb.Environment, file: str, name: str) -> None:
    """Checks that a file has all pages that its newest header counts. Free pages at its end may be missing.

    Args:
        environment: of the file.
        file: with the data.
        name: of the environment in messages.

    Raises:
        DataError: the file is cut short.
    """
    page_size, last = environment.stat()["psize"], environment.info()["last_pgno"]
    size = os.path.getsize(file)
    if size >= (last + 1) * page_size:
        return
    # LMDB does not write pages that a transaction takes and gives back: a whole file may lack them.
    try:
        free = set(_free_pages(file, page_size))
    except (OSError, struct.error, IndexError, RecursionError):
        free = set()
    if not free.issuperset(range(size // page_size, last + 1)):
        raise DataError(f"{name} is cut short: it has {size} bytes of {(last + 1) * page_size}; copy or make it again")


def _free_pages(file: str, page_size: int) -> Iterator[int]:
    """The numbers in the free list. Raises struct.error if the list itself is not complete."""
    with open(file, "rb") as stream:

        def read(page: int, pages: int = 1) -> bytes:
            stream.seek(page * page_size)
            return stream.read(pages * page_size)

        metas = [_META.unpack_from(read(page), _PAGE_HEADER.size) for page in (0, 1)]
        tree = _TREE.unpack(max(metas, key=lambda meta: meta[-1])[4])
        pending, seen = [tree[-1]] if tree[-1] != _NO_PAGE else [], set()
        while pending:
            number = pending.pop()
            if number in seen:
                raise struct.error("a page is its own ancestor")
            seen.add(number)
            page = read(number)
            _, _, flags, table_end, _ = _PAGE_HEADER.unpack_from(page)
            for (offset,) in struct.iter_unpack("<H", page[_PAGE_HEADER.size : table_end]):
                low, high, node_flags, key_size = _NODE.unpack_from(page, offset)
                if flags & _BRANCH:
                    pending.append(low | high << 16 | node_flags << 32)
                elif flags & _LEAF:
                    start, length = offset + _NODE.size + key_size, low | high << 16
                    data = page[start : start + length]
                    if node_flags & _BIG_DATA:
                        first = struct.unpack_from("<Q", page, start)[0]
                        whole = read(first, (length + _PAGE_HEADER.size) // page_size + 1)
                        data = whole[_PAGE_HEADER.size : _PAGE_HEADER.size + length]
                    (count,) = struct.unpack_from("<Q", data)
                    yield from struct.unpack_from(f"<{count}Q", data, 8)
