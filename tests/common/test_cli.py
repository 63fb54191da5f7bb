"""How commands end: a mistake in one line, Ctrl-C, a reader that is gone, a terminal with a narrow encoding."""

import subprocess
import sys
from pathlib import Path

import pytest

from common import cli
from common.errors import UserError, one_line, printable, shown_name

ROOT = Path(__file__).parents[2]


def raising(error: BaseException) -> int:
    raise error


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UserError("list.txt:\n  a  b"), 2, "error: list.txt: a b\n"),
        (FileNotFoundError(2, "No such file or directory", "a.txt"), 2, "error: a.txt: No such file or directory\n"),
        (UserError("v\x1b[31m red"), 2, "error: v\\x1b[31m red\n"),
        (KeyboardInterrupt(), 130, "stopped\n"),
    ],
)
def test_a_mistake_is_one_line(
    error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(lambda: raising(error), interrupted="stopped") == code
    assert capsys.readouterr().err == message


def test_other_errors_are_not_hidden() -> None:
    with pytest.raises(KeyError):
        cli.run(lambda: raising(KeyError("x")))


def test_text_that_a_terminal_would_act_on() -> None:
    assert printable("日本 ü\n| a |") == "日本 ü\n| a |"
    assert printable("a\x1b]0;title\x07\u202e") == "a\\x1b]0;title\\x07\\u202e"
    assert one_line("a\n\tb") == "a b"
    assert shown_name("a  \nb\x1b") == r"a  \nb\x1b"


def test_what_was_typed_is_printable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.parser("command", None).parse_args(["\x1b[31m\nred"])
    assert capsys.readouterr().err.endswith("error: unrecognized arguments: \\x1b[31m red\n")
    cli.say("a\x1b[31m\n\udcff")
    assert capsys.readouterr().out == "a\\x1b[31m\n\\udcff\n"


def test_a_file_that_is_called_like_an_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-x.mp4").touch()
    parser = cli.parser("command", None)
    parser.add_argument("video")
    with pytest.raises(SystemExit):
        parser.parse_args(["-x.mp4"])
    assert "for the file -x.mp4 write ./-x.mp4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "changes", "files"),
    [
        ("--set a.b=1 c=x/y videos", ["a.b=1", "c=x/y"], ["videos"]),
        ("--set a.b=1 dir/k=v.mp4 z --set *.x=2 p.*=3", ["a.b=1", "*.x=2", "p.*=3"], ["dir/k=v.mp4", "z"]),
        ("videos --set wrong a=1", ["wrong", "a=1"], ["videos"]),
        ("--set=a=1 z -- --set b=2", ["a=1"], ["z", "--set", "b=2"]),
    ],
)
def test_set_takes_what_looks_like_a_change(argv: str, changes: list[str], files: list[str]) -> None:
    parser = cli.parser("command", None)
    parser.add_argument("files", nargs="*")
    cli.add_set_option(parser)
    args = parser.parse_args(argv.split())
    assert (args.set, args.files) == (changes, files)
    assert parser.parse_args(["z"]).set == []


def test_set_without_a_change(capsys: pytest.CaptureFixture[str]) -> None:
    parser = cli.parser("command", None)
    cli.add_set_option(parser)
    for argv in (["--set"], ["--set", "--eval"]):
        with pytest.raises(SystemExit):
            parser.parse_args(argv)
        assert "argument --set: expected at least one argument" in capsys.readouterr().err


CODE = "from common import cli; import sys; sys.exit(cli.run(lambda: print('ü\\n' * 100000)))"


def test_a_reader_that_has_seen_enough() -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", CODE], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    )
    assert run.stdout is not None
    assert run.stderr is not None
    run.stdout.readline()
    run.stdout.close()
    assert run.wait() == 141
    assert run.stderr.read() == ""


def test_a_terminal_without_utf8() -> None:
    run = subprocess.run(
        [sys.executable, "-c", CODE], cwd=ROOT, env={"PYTHONIOENCODING": "ascii"}, capture_output=True, check=False
    )
    assert run.returncode == 0
    assert run.stdout.startswith(b"\\xfc\n")
