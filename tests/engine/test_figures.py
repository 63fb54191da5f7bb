"""The figures of a run as JSON lines and as a table, and as a curve on the screen."""

import csv
from pathlib import Path

from engine.figures import add_figures, read_figures, replace_figures, validation_curve


def test_the_table_has_what_the_lines_have(tmp_path: Path) -> None:
    assert read_figures(tmp_path) == []
    lines = [
        {"epoch": 1, "split": "train", "loss": 2.5, "learning_rate": 0.1},
        {"epoch": 1, "split": "val", "loss": 2.25, "top1": 50.0},
    ]
    for line in lines:
        add_figures(tmp_path, line)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('[1]\n{"epoch": "x", "split": "val"}\n{"epoch": 2, "spl')
    assert read_figures(tmp_path) == lines
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [row["split"] for row in rows] == ["train", "val"]
    assert rows[0] == {"epoch": "1", "split": "train", "loss": "2.5", "learning_rate": "0.1", "top1": ""}
    replace_figures(tmp_path, lines[1:])
    assert (tmp_path / "metrics.csv").read_text() == "epoch,split,loss,top1\n1,val,2.25,50.0\n"
    assert read_figures(tmp_path) == lines[1:]


def test_the_validations_as_a_curve() -> None:
    def rows(*values: float) -> list[dict[str, object]]:
        vals = [{"epoch": 2 * i, "split": "val", "top1": value} for i, value in enumerate(values, start=1)]
        return [{"epoch": 1, "split": "train", "top1": 99.0}, *vals]

    assert validation_curve(rows(20)) == ""
    assert validation_curve(rows(20, 55, 90, 90)) == "validation top-1 so far  ▁▅██  20.0 to 90.0, best after epoch 6"
    assert "▁▁  20.0 to 20.0, best after epoch 2" in validation_curve(rows(20, 20))
    assert validation_curve(rows(*range(100))).count("▁") == 0, "the last sixty"
