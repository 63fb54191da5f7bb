"""Files and folders: complete or absent, and errors that name them."""

from pathlib import Path

import pytest

from common.errors import DataError
from common.files import make_folder, table_cell, write_text


def test_what_cannot_be_written_is_called_by_its_name(tmp_path: Path) -> None:
    for file in (tmp_path / "nowhere/list.txt", tmp_path):
        with pytest.raises(OSError, match=str(file)) as caught:
            write_text(file, "text")
        assert caught.value.filename == str(file)
    assert list(tmp_path.parent.glob("*.tmp")) == [], "a temporary file was left behind"


def test_folders_to_write_to(tmp_path: Path) -> None:
    for _ in range(2):
        make_folder(tmp_path / "a/b")
        assert list((tmp_path / "a/b").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=f"{tmp_path / 'file'} is a file, a folder is wanted"):
        make_folder(tmp_path / "file")
    for folder in (tmp_path / "file/a", Path("/proc"), Path("/proc/a")):
        with pytest.raises(DataError, match=f"the folder {folder} cannot be written to: "):
            make_folder(folder)


def test_no_cell_of_a_table_is_a_formula() -> None:
    for text in ("=1+1", "+1", "-1", "@x", "\t=1", "\r=1"):
        assert table_cell(text) == f"'{text}"
    assert [table_cell(text) for text in ("a=1", "walk", "", "1")] == ["a=1", "walk", "", "1"]
