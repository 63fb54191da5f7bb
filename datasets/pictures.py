"""JPEG and PNG data to pixels, with the damage that can be seen: cut files, libjpeg's warnings, wrong checksums."""

import os
import re
import tempfile
import threading
import zlib

import cv2
import numpy as np

from common.errors import DataError
from datasets.limits import check_frame_size

_JPEG, _PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
_CUT = "the file ends before the picture does"
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start of frame: the segment has the size
_LONE_MARKERS = frozenset((0x01, *range(0xD0, 0xD9)))  # without a length
_END_OF_IMAGE, _START_OF_SCAN = 0xD9, 0xDA
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # in a scan: no stuffed byte, restart marker or fill byte
_MESSAGES = re.compile(
    r"libpng error: .*|(Corrupt JPEG data|Premature end of JPEG|Inconsistent progression|Invalid SOS parameters"
    r"|Unknown Adobe color|Warning: unknown JFIF).*"
)  # the second part: all warnings of libjpeg


class _BrokenError(Exception):
    """What is wrong with a picture."""


def decode_image(data: np.ndarray, name: str) -> np.ndarray:
    """Decodes a JPEG or PNG image. Bytes after its end do not matter.

    Args:
        data: uint8 (bytes,), the content of the file.
        name: of the image in messages.

    Returns:
        uint8 (H, W, 3), BGR.

    Raises:
        DataError: the image does not decode, is cut short, is damaged, or has too many pixels. Damage within a JPEG
            scan goes unseen if the damaged bits are Huffman codes too: the format has no checksum.
    """
    contents = data.tobytes()
    try:
        if contents.startswith(_JPEG):
            check_frame_size(name, *_jpeg_size(contents))
        elif contents.startswith(_PNG):
            check_frame_size(name, *_png_size(contents))
        image, problem = _decode(data) if data.size else (None, "")
        if image is None:
            raise _BrokenError(f"it does not decode as an image{f', {problem}' if problem else ''}")
        if problem:
            raise _BrokenError(problem)
    except _BrokenError as error:
        raise DataError(f"{name} is broken: {error} ({data.size} bytes)") from None
    check_frame_size(name, image.shape[1], image.shape[0])  # of another format
    return image


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height of a JPEG image. Where bytes follow its end marker, its segments are followed to find it.

    OpenCV decodes a file without that marker, and fills the rest with grey.
    """
    size, position = (0, 0), len(_JPEG)
    ends_well = data.endswith(b"\xff\xd9")  # then only the size is looked for, which is near the start
    while (position := data.find(b"\xff", position)) >= 0:
        position += 1
        marker = data[position] if position < len(data) else _END_OF_IMAGE + 0x100
        if marker == _END_OF_IMAGE:
            return size
        if marker == 0xFF or marker in _LONE_MARKERS:
            continue
        segment = data[position + 1 : position + 8]
        if marker in _FRAME_MARKERS and len(segment) == 7:
            size = int.from_bytes(segment[5:7], "big"), int.from_bytes(segment[3:5], "big")
            if ends_well:
                return size
        position += 1 + max(int.from_bytes(segment[:2], "big"), 2)
        if marker == _START_OF_SCAN:
            following = _NEXT_MARKER.search(data, position)
            position = following.start() if following else len(data)
    raise _BrokenError(_CUT)


def _png_size(data: bytes) -> tuple[int, int]:
    """Width and height of a PNG image, whose chunks are followed to its end. Checks what the picture is made from."""
    size, position = (0, 0), len(_PNG)
    while position + 12 <= len(data):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        end = position + 8 + length
        if end + 4 > len(data):
            break
        if kind[:1].isupper() and zlib.crc32(data[position + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise _BrokenError(f"the checksum of its chunk {kind.decode('ascii', 'replace')} is wrong")
        if kind == b"IHDR":
            size = tuple(int.from_bytes(data[position + 8 + i : position + 12 + i], "big") for i in (0, 4))  # type: ignore[assignment]
        if kind == b"IEND":
            return size
        position = end + 4
    raise _BrokenError(_CUT)


# ---- What the decoders say on stderr --------------------------------------------------------------------------------
# OpenCV has no other way to learn of libjpeg's warnings: damage with which a picture still decodes. While a picture is
# decoded, stderr of this process is a file in memory. What others write there meanwhile is passed on.

_lock = threading.Lock()
_sink = -1


def _forget_sink() -> None:
    """After a fork: the file of the parent is its own."""
    global _lock, _sink
    _lock = threading.Lock()
    if _sink >= 0:
        os.close(_sink)
    _sink = -1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_sink)


def _decode(data: np.ndarray) -> tuple[np.ndarray | None, str]:
    """The decoded image, or None, and what the decoder says of it."""
    global _sink
    with _lock:
        try:
            stderr = os.dup(2)
        except OSError:  # it is closed: the decoder speaks to nobody
            return _imdecode(data), ""
        try:
            if _sink < 0:
                _sink = _memory_file()
            os.dup2(_sink, 2)
            try:
                image = _imdecode(data)
            finally:
                os.dup2(stderr, 2)
        finally:
            os.close(stderr)
        length = os.lseek(_sink, 0, os.SEEK_CUR)
        return image, _problem(length) if length else ""


def _imdecode(data: np.ndarray) -> np.ndarray | None:
    try:
        return cv2.imdecode(data, cv2.IMREAD_COLOR)
    except cv2.error:
        return None


def _memory_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("sifa_decoder_messages")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _problem(length: int) -> str:
    """Empties the file of messages, returns the first one of a decoder and passes on what others wrote."""
    text = os.pread(_sink, length, 0)
    os.lseek(_sink, 0, os.SEEK_SET)
    os.ftruncate(_sink, 0)
    problem = ""
    for line in text.splitlines(keepends=True):
        if match := _MESSAGES.match(line.decode("utf-8", "replace").strip()):
            problem = problem or match[0]
        else:
            os.write(2, line)
    return problem
