"""Whether the file of an LMDB environment is in order. LMDB maps it and believes it: damage would kill the process.

The file is read here in the usual way, which can only fail with an error.
"""

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from common.errors import DataError

# Of LMDB's mdb.c, on 64-bit machines; numbers are in the order of the machine.
_PAGE_HEADER = struct.Struct("=QHHHH")  # number, padding, flags, end of the node table, start of the nodes
_NODE = struct.Struct("=HHHH")  # low and high half of the data's size, flags, size of the key
_META = struct.Struct("=II QQ 48s 48s QQ")  # magic, version, address, map size, free list, keys, last page, transaction
_TREE = struct.Struct("=I HH QQQQ Q")  # page size, flags, depth, branch, leaf and overflow pages, entries, root
_MAGIC, _VERSION, _NO_PAGE = 0xBEEFC0DE, 1, (1 << 64) - 1
_BRANCH, _LEAF = 0x01, 0x02  # flags of a page
_BIG_DATA, _SUB_DATABASE = 0x01, 0x02  # flags of a node
_METAS, _DEEPEST, _LARGEST_PAGE = 2, 32, 1 << 16
_MOST_PAGES = 4096  # of keys that are checked: some 300,000 frames


class _DamagedError(Exception):
    """What is wrong with a file."""


class _File(NamedTuple):
    stream: BinaryIO
    page_size: int
    pages: int  # whole ones

    def read(self, page: int, count: int = 1) -> bytes:
        """What the file has of some pages; nothing after its end."""
        if page > self.pages:
            return b""
        self.stream.seek(page * self.page_size)
        return self.stream.read(count * self.page_size)


def check_environment(file: str, name: str) -> None:
    """Checks the header of an environment, that no page is missing, and the pages with its keys.

    Of an environment with more pages of keys than _MOST_PAGES the first ones are checked. Free pages at the end of a
    file may be missing. A file of another format passes: LMDB refuses it.

    Args:
        file: with the data.
        name: of the environment in messages.

    Raises:
        DataError: the file is damaged or cut short.
        OSError: it cannot be read.
    """
    with open(file, "rb") as stream:
        try:
            _check(stream, os.fstat(stream.fileno()).st_size)
        except _DamagedError as error:
            raise DataError(f"{name} {error}; copy or make it again") from None


def _check(stream: BinaryIO, size: int) -> None:
    first = _read_meta(stream, 0)
    if first is None:
        return
    page_size = _TREE.unpack(first[4])[0]
    if not 256 <= page_size <= _LARGEST_PAGE or page_size & (page_size - 1):
        raise _DamagedError(f"is damaged: its header announces pages of {page_size} bytes")
    second = _read_meta(stream, page_size)
    if second is None:
        return
    if _TREE.unpack(second[4])[0] != page_size:
        raise _DamagedError("is damaged: its two headers announce pages of different sizes")
    *_, free_list, keys, last, _ = second if first[-1] < second[-1] else first  # as LMDB chooses
    file = _File(stream, page_size, size // page_size)
    if last >= file.pages and not _are_free(file, _TREE.unpack(free_list)[-1], last):
        raise _DamagedError(f"is cut short: it has {size} bytes of {(last + 1) * page_size}")
    _, flags, depth, *_, root = _TREE.unpack(keys)
    if flags:
        raise _DamagedError(f"is damaged, or no store of frames: the flags of its keys are {flags:#x}")
    if root != _NO_PAGE:
        _check_tree(file, root, depth)


def _read_meta(stream: BinaryIO, position: int) -> tuple | None:
    """The header at a position, or None if there is none of a known version."""
    stream.seek(position + _PAGE_HEADER.size)
    data = stream.read(_META.size)
    if len(data) < _META.size:
        return None
    meta = _META.unpack(data)
    return meta if meta[:2] == (_MAGIC, _VERSION) else None


def _check_tree(file: _File, root: int, depth: int) -> None:
    """Checks the pages of a tree, level by level from the root. All leaves are on the last level."""
    if not 1 <= depth <= _DEEPEST:
        raise _DamagedError(f"is damaged: its header announces {depth} levels of pages")
    level, seen = [root], 0
    for below in reversed(range(depth)):
        children: list[int] = []
        for page in level:
            seen += 1
            if seen > _MOST_PAGES:
                return
            children += _check_page(file, page, is_leaf=below == 0)
        if len(set(children)) < len(children):
            raise _DamagedError("is damaged: a page of it is in two places")
        level = children


def _check_page(file: _File, number: int, *, is_leaf: bool) -> list[int]:
    """Checks one page of a tree: its header, and that all it refers to is in the page or in the file.

    Returns:
        The numbers of the pages below.
    """
    damaged = _DamagedError(f"is damaged: its page {number} makes no sense")
    data = file.read(number) if _METAS <= number < file.pages else b""
    if len(data) < file.page_size:
        raise damaged
    own_number, _, flags, table_end, start = _PAGE_HEADER.unpack_from(data)
    count = (table_end - _PAGE_HEADER.size) // 2
    wanted = (number, _LEAF if is_leaf else _BRANCH)
    if (own_number, flags) != wanted or not table_end <= start <= file.page_size or count < (1 if is_leaf else 2):
        raise damaged
    content = np.frombuffer(data, np.uint8)
    offsets = np.frombuffer(data, np.uint16, count, _PAGE_HEADER.size).astype(np.int64)
    if offsets.min() < start or offsets.max() > file.page_size - _NODE.size:
        raise damaged
    nodes = _gather(content, offsets, _NODE.size).view(np.uint16).astype(np.int64)  # (count, 4)
    low, high, node_flags, key_size = nodes.T
    values = offsets + _NODE.size + key_size
    if not is_leaf:
        if (values > file.page_size).any():
            raise damaged
        return (low | high << 16 | node_flags << 32).tolist()
    sizes = low | high << 16
    is_big = node_flags == _BIG_DATA
    if (node_flags > _SUB_DATABASE).any() or (values + np.where(is_big, 8, sizes) > file.page_size).any():
        raise damaged
    firsts = _gather(content, values[is_big], 8).view(np.uint64)[:, 0]
    lasts = firsts + ((sizes[is_big] + _PAGE_HEADER.size - 1) // file.page_size).astype(np.uint64)
    if (firsts < _METAS).any() or (firsts >= file.pages).any() or (lasts >= file.pages).any():
        raise damaged
    return []


def _gather(content: np.ndarray, offsets: np.ndarray, length: int) -> np.ndarray:
    """uint8 (offsets, length): the bytes from each offset on."""
    return content[offsets[:, None] + np.arange(length)]


def _are_free(file: _File, root: int, last: int) -> bool:
    """Whether the missing pages at the end are in the free list: LMDB does not write what a transaction gives back."""
    try:
        free = set(_free_pages(file, root))
    except (OSError, struct.error, IndexError, MemoryError):
        return False
    return last - file.pages < len(free) and free.issuperset(range(file.pages, last + 1))


def _free_pages(file: _File, root: int) -> Iterator[int]:
    """The numbers in the free list. Raises struct.error if the list itself is not complete."""
    pending, seen = [root] if root != _NO_PAGE else [], set()
    while pending:
        number = pending.pop()
        if number in seen:
            raise struct.error("a page is its own ancestor")
        seen.add(number)
        page = file.read(number)
        _, _, flags, table_end, _ = _PAGE_HEADER.unpack_from(page)
        for (offset,) in struct.iter_unpack("=H", page[_PAGE_HEADER.size : table_end]):
            low, high, node_flags, key_size = _NODE.unpack_from(page, offset)
            if flags & _BRANCH:
                pending.append(low | high << 16 | node_flags << 32)
            elif flags & _LEAF:
                start, length = offset + _NODE.size + key_size, low | high << 16
                data = page[start : start + length]
                if node_flags & _BIG_DATA:
                    first = struct.unpack_from("=Q", page, start)[0]
                    whole = file.read(first, (length + _PAGE_HEADER.size) // file.page_size + 1)
                    data = whole[_PAGE_HEADER.size : _PAGE_HEADER.size + length]
                (count,) = struct.unpack_from("=Q", data)
                yield from struct.unpack_from(f"={count}Q", data, 8)
