"""Says which glibc and libstdc++ a wheel of the op needs: `python cuda_sifa/glibc.py dist/cuda_sifa-....whl`."""

import re
import sys
import zipfile


def newest(names: str, library: bytes) -> str:
    """The newest version with a name such as GLIBC_2.34 in the table of versions of a shared library."""
    versions = {tuple(map(int, found.split(b"."))) for found in re.findall(rf"\b{names}_([\d.]+)\0".encode(), library)}
    return ".".join(map(str, max(versions, default=(0,))))


if __name__ == "__main__":
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        library = wheel.read("cuda_sifa/_C.so")
    print(f"needs glibc {newest('GLIBC', library)} and GLIBCXX_{newest('GLIBCXX', library)} or later")
