"""The walk through the pages (tests/walk/walk.py) knows every command, and its rules are about what is printed."""

import re

import pytest

from tests.walk.plan import CHANGED, LEFT_OUT, PAGES, ROOT, as_run, printed, why_left_out
from tests.walk.walk import CLIPS, SMALLER

COMMANDS = [command for page in PAGES for command in printed(page)]
RUN = sorted({as_run(command) for command in COMMANDS if not why_left_out(command)})


def test_the_pages_print_commands() -> None:
    assert len(RUN) > 30
    assert "bash make.sh demo" in RUN
    assert {page.name for page in PAGES} > set(CLIPS)


@pytest.mark.parametrize("command", RUN)
def test_no_placeholder_is_left(command: str) -> None:
    assert not re.search(r"\[|…|\.\.\.|PATH|LIST\b|VIDEO_FOLDER|\bVIDEO\b|\bFILE\b|https://|\$", command)


def test_every_rule_is_used() -> None:
    """A rule of a command that is gone would hide the next one."""
    for pattern, reason in LEFT_OUT:
        assert any(re.search(pattern, command) for command in COMMANDS), reason
    for number, (pattern, text) in enumerate(CHANGED):
        assert any(re.search(pattern, as_run(command, CHANGED[:number])) for command in COMMANDS), text


@pytest.mark.parametrize(("name", "old", "new"), SMALLER)
def test_what_is_made_smaller_is_there(name: str, old: str, new: str) -> None:
    assert old in (ROOT / name).read_text(encoding="utf-8")
