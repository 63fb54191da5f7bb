"""A short version of `python -m tests.attacks.faults`: a full disk, and a folder that vanishes."""

import random
from pathlib import Path

from tests.attacks.faults import fill_disk, in_a_child, one_rank, remove_folder
from tests.script import weights, write_data


def test_a_training_on_a_full_disk_and_one_whose_folder_vanishes(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_data(data)
    in_a_child(one_rank(data, tmp_path / "one"), tmp_path / "log.txt", "a training without a fault")
    expected = weights(tmp_path / "one")
    for fault in ("full", "vanished"):
        (tmp_path / fault).mkdir()
    assert fill_disk(data, tmp_path / "full", expected, random.Random(1)) == "refused"
    assert remove_folder(data, tmp_path / "vanished", 1, random.Random(0)) in ("refused", "result")
