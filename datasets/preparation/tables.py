"""Tables with a header, as spreadsheets and data sets write them: CSV with any usual separator."""

import csv
import io
from collections.abc import Collection, Iterator
from pathlib import Path

from common.errors import DataError
from datasets.limits import read_regular_file

_SEPARATORS = ",;\t|"


def table_header(text: str, wanted: Collection[str]) -> tuple[list[str], str]:
    """The columns of a table, and its separator: comma, semicolon, tab or bar, as the wanted columns tell.

    Args:
        text: of the table.
        wanted: columns.
    """
    lines = io.StringIO(text, newline="")
    for separator in _SEPARATORS:
        lines.seek(0)
        try:
            header = [name.strip() for name in next(csv.reader(lines, delimiter=separator), [])]
        except csv.Error:
            continue
        if set(wanted) <= set(header):
            return header, separator
    first = text.partition("\n")[0].strip()
    return [name.strip() for name in first.split(",")] if first else [], ","


def read_table(file: Path, wanted: Collection[str]) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]]]:
    """Reads a table whose first line names the columns.

    Args:
        file: UTF-8. Values with separators are in double quotes.
        wanted: columns that tell the separator.

    Returns:
        The columns; and each row with the number of its line, where a short row has empty values. Blank lines are left
        out.

    Raises:
        DataError: the file is not UTF-8. While rows are read: one has more values than the header, or is no CSV.
        OSError: the file cannot be read.
    """
    text = read_text(file)
    header, separator = table_header(text, wanted)
    return header, _rows(file, text, header, separator)


def _rows(file: Path, text: str, header: list[str], separator: str) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        next(reader, None)
        for values in reader:
            if not values:
                continue
            if len(values) > len(header) and any(values[len(header) :]):
                raise DataError(
                    f"{file}:{reader.line_num}: the row has {len(values)} values, the header {len(header)}; a value "
                    f"with {separator!r} must be in double quotes"
                )
            yield reader.line_num, dict(zip(header, values + [""] * len(header), strict=False))
    except csv.Error as error:
        raise DataError(f"{file}:{reader.line_num}: the row cannot be read: {error}") from None


def read_text(file: Path) -> str:
    """The text of a UTF-8 file, without a byte order mark.

    Raises:
        DataError: the file is not UTF-8, or is no regular file.
        OSError: the file cannot be read.
    """
    try:
        return read_regular_file(file, str(file)).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{file}:{line}: must be UTF-8 text, got the byte 0x{error.object[error.start]:02x}; save it as UTF-8 (of "
            "Latin-1: iconv -f latin1 -t utf-8)"
        ) from None
