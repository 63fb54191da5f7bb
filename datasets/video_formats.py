"""What FFmpeg may open as a video: containers, never playlists, which name other files; and codecs it may lack."""

import os
import stat
import threading
from pathlib import Path

import cv2

from common.errors import DataError

_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"  # OpenCV reads it whenever it opens a video
# FFmpeg's names. A text is a video of letters for it, a picture a video of one frame, a playlist a video of others.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,live_flv,mpeg,mpegts,mpegvideo,asf,ogg,gif,h264,hevc,m4v,mjpeg,mxf,"
    "rm,nut,dv,ivf,yuv4mpegpipe,av1,obu,apng,wtv,gxf"
)
_PLAYLISTS = {
    b"ffconcat": "ffconcat",
    b"#EXTM3U": "M3U or HLS",
    b"[playlist]": "PLS",
    b"<MPD": "DASH",
    b"v=0": "SDP",
    b"[Reference]": "ASX",
    b"<asx": "ASX",
}
_CODECS = {b"av01": "AV1", b"V_AV1": "AV1", b"vvc1": "VVC (H.266)", b"vvi1": "VVC (H.266)"}  # names in mp4 and webm
_SEARCHED = 1 << 20  # bytes at either end of a file
_opening = threading.Lock()  # the environment belongs to all threads


def open_container(file: Path, threads: int = 0) -> cv2.VideoCapture:
    """Opens a local file of the formats above, which must be released, and nothing that it refers to.

    Options of the user in OPENCV_FFMPEG_CAPTURE_OPTIONS are kept.

    Args:
        file: to open.
        threads: of FFmpeg's decoder; 0: one for each core.

    Raises:
        DataError: the file is a playlist, cannot be read, or has a name that is not UTF-8.
    """
    name = local_name(file)
    _check_no_playlist(file)
    limits = f"protocol_whitelist;file|format_whitelist;{_FORMATS}"
    with _opening:
        given = os.environ.get(_OPTIONS)
        os.environ[_OPTIONS] = f"{given}|{limits}" if given else limits
        try:
            # With FFmpeg alone: for other backends, a `%` in the name means a series of pictures.
            return cv2.VideoCapture(name, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, threads] if threads else [])
        finally:
            if given is None:
                del os.environ[_OPTIONS]
            else:
                os.environ[_OPTIONS] = given


def local_name(file: Path) -> str:
    """The absolute name of a file, which looks like no address. Raises DataError if it is not UTF-8."""
    name = os.path.abspath(file)
    if name.encode("utf-8", "ignore").decode() != name:  # OpenCV would crash
        raise DataError(f"the video {file} has a name that is not UTF-8: rename it")
    return name


def has_time_stamps(file: Path) -> bool:
    """Whether a file is MP4, MOV, Matroska or WebM by its first bytes, and can be nothing else to FFmpeg.

    Their frames have exact times. FFmpeg takes a text with certain words for a playlist even behind such first bytes,
    if no byte 0 ends the text before.

    Raises:
        DataError: the file is a playlist, or cannot be read.
    """
    _check_no_playlist(file)
    try:
        with open(file, "rb") as stream:
            start = stream.read(1 << 12)
    except OSError as error:
        raise DataError(f"the video {file} cannot be read: {error.strerror}") from None
    text, ends, _ = start.partition(b"\0")
    if not ends or any(word in text.lower() for word in (b"<mpd", b"<compositionplaylist")):
        return False
    return start.startswith(b"\x1a\x45\xdf\xa3") or start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")


def _check_no_playlist(file: Path) -> None:
    """Checks by its first bytes that a file is no playlist, whatever its name is.

    Raises:
        DataError: it is one, or cannot be read.
    """
    try:
        with open(file, "rb") as stream:
            start = stream.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError as error:
        raise DataError(f"the video {file} cannot be read: {error.strerror}") from None
    for signature, kind in _PLAYLISTS.items():
        if start.startswith(signature):
            raise DataError(f"the video {file} is a playlist ({kind}), which names other files: give the videos")


def codec_hint(file: Path) -> str:
    """For a video that does not decode: its codec and the way out, if OpenCV's FFmpeg may lack it; or nothing."""
    try:
        with open(file, "rb") as stream:
            data = stream.read(_SEARCHED)
            stream.seek(max(os.path.getsize(file) - _SEARCHED, len(data)))
            data += stream.read(_SEARCHED)
    except OSError:
        return ""
    for name, codec in _CODECS.items():
        if name in data:
            return (
                f": its codec is {codec}, for which this OpenCV has no decoder; install torchcodec (docs/install.md), "
                "or convert it, for example by `ffmpeg -i IN -c:v libx264 -crf 18 OUT.mp4`"
            )
    return ""


def why_no_video(file: Path) -> str:
    """Why a file does not open as a video with a frame; empty if it does."""
    try:
        mode = os.stat(file).st_mode
    except OSError:
        return "it is a link to nothing" if file.is_symlink() else "it cannot be read"
    if not stat.S_ISREG(mode):
        return "it is no regular file"
    try:
        capture = open_container(file)
    except DataError as error:
        return str(error).replace(f"the video {file}", "it")
    try:
        return "" if capture.isOpened() and capture.grab() else "it does not open as a video"
    finally:
        capture.release()
