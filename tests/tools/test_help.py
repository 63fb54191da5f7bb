"""The help of the commands."""

from typing import Any

import pytest

from tools import (
    browse_dataset,
    check_dataset,
    compare,
    complexity,
    demo,
    doctor,
    document,
    export,
    extract_frames,
    finetune,
    make_demo_videos,
    predict,
    report,
    seeds,
    visualize,
    weights,
)

COMMANDS = [
    *(browse_dataset, check_dataset, compare, complexity, demo, doctor, document, export, extract_frames, finetune),
    *(make_demo_videos, predict, report, seeds, visualize, weights),
]


@pytest.mark.parametrize("tool", COMMANDS)
def test_help_names_the_form_that_works_on_one_screen(
    tool: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started as a file, Python would not find the other packages."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as caught:
        tool.main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: python -m {tool.__name__} [-h]")
    assert sum(max(1, -(-len(line) // 80)) for line in text.splitlines()) <= 40, "as a terminal wraps them"
