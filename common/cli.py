"""What the commands share: parsers, the `--set` option, and how a mistake of the user ends."""

import argparse
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from common.errors import UserError, describe, one_line, printable

INTERRUPTED, READER_GONE = 130, 141  # exit codes after Ctrl-C and SIGPIPE, as of a shell


class _Parser(argparse.ArgumentParser):
    """Its errors are printable, and name the way out for a file that is called like an option."""

    given: Sequence[str] = ()

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.values: dict[str, re.Pattern[str]] = {}  # options with several values: what a value looks like

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self.given = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args(_spread(self.given, self.values), namespace)

    def error(self, message: str) -> NoReturn:
        files = [name for name in self.given if name.startswith("-") and os.path.isfile(name)]
        hint = f"; for the file {files[0]} write ./{files[0]}" if files else ""
        super().error(one_line(message + hint))  # the message repeats what was typed


def _spread(arguments: Sequence[str], values: dict[str, re.Pattern[str]]) -> list[str]:
    """`--option 1 2 file` as `--option=1 --option=2 file`: an option takes what looks like its values, and no more."""
    spread: list[str] = []
    option = ""
    for number, argument in enumerate(arguments):
        if argument == "--":
            return [*spread, *arguments[number:]]
        if option and values[option].fullmatch(argument):
            spread.append(f"{option}={argument}")
            continue
        if option and arguments[number - 1] == option:
            spread.append(option)  # its first value is its own, whatever it looks like; argparse says what is wrong
        option = argument if argument in values else ""
        spread += [] if option else [argument]
    return [*spread, option] if option and arguments[-1] == option else spread


def parser(command: str, description: str | None, *, usage: str = "") -> argparse.ArgumentParser:
    """A parser whose help shows the module's docstring as it is written.

    Args:
        command: how the command is called, such as `python -m tools.predict`.
        description: the docstring.
        usage: the arguments in short, for a command with many options; empty: all of them.
    """
    never_fail_to_print()
    short = f"{command} [-h] {usage}" if usage else None
    return _Parser(
        prog=command, usage=short, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_set_option(parser: argparse.ArgumentParser) -> None:
    """`--set section.key=value ...`, repeatable: changes of a settings file, as one list in `args.set`."""
    add_option_with_values(
        parser,
        "--set",
        r"[^\s=/-][^\s=/]*=.*",
        default=[],
        metavar="section.key=value",
        help="changes keys; repeatable",
    )


def add_option_with_values(parser: argparse.ArgumentParser, name: str, pattern: str, **options: Any) -> None:
    """An option with one or more values, as one list. It does not take an argument that is no value of it.

    Args:
        pattern: regular expression of a value.
        options: of `add_argument`.
    """
    parser.add_argument(name, nargs="+", action="extend", **options)
    if isinstance(parser, _Parser):
        parser.values[name] = re.compile(pattern, re.DOTALL)


def add_workers_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers", type=int, default=cores(), help="processes (default: one for each core, %(default)s here)"
    )


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(command: Callable[[], int | None], *, interrupted: str = "") -> int:
    """Runs a command and returns its exit code: its own, 0 for None, 2 for a mistake of the user, 130 after Ctrl-C.

    Args:
        interrupted: what to print after Ctrl-C.
    """
    never_fail_to_print()
    try:
        code = command() or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        close_stdout()
        return READER_GONE
    except (UserError, OSError) as error:
        print_error(describe(error))
        return 2
    except KeyboardInterrupt:
        if interrupted:
            print(interrupted, file=sys.stderr)
        return INTERRUPTED


def close_stdout() -> None:
    """Lets all that is printed from here on vanish, where nobody takes it any more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def never_fail_to_print() -> None:
    """Prints escapes for what the terminal's encoding lacks, in place of an exception."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: object) -> None:
    """Prints a text that may hold names of users: with escapes for what a terminal would act on."""
    print(printable(str(text)))


def print_error(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)


def check_range(option: str, value: float, low: float, high: float) -> None:
    """Raises UserError unless low <= value <= high."""
    if not low <= value <= high:
        raise UserError(f"{option} must be in {low}..{high}, got {value}")
