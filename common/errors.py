"""Errors that the user can correct: a command prints them as one line and ends with exit code 2."""


class UserError(Exception):
    """Something outside the program is wrong; the message says what, in one sentence with names and values."""


class OneProcessError(UserError):
    """An error that one of several processes may meet alone, so that this process itself must print it."""


class DataError(OneProcessError):
    """A problem of the user's data: a list, a class file, a frame, a video."""

    def __init__(self, message: str) -> None:
        # DataLoader raises the error of a worker again, with the whole traceback of the worker as its text, which ends
        # in "module.DataError: message". The user needs the message alone.
        name = f"{type(self).__module__}.{type(self).__qualname__}: "
        super().__init__(message.rpartition(name)[2].strip())


def one_line(text: object) -> str:
    """A message on one line, whatever line feeds, runs of blanks and control characters it has."""
    return printable(" ".join(str(text).split()))


def printable(text: str) -> str:
    """The text with escapes for what a terminal would act on, or could not show; line feeds stay."""
    if text.replace("\n", "").isprintable():
        return text
    return "".join(c if c == "\n" or c.isprintable() else ascii(c)[1:-1] for c in text)


def shown_name(name: object) -> str:
    """A file's name on one line, each blank of it kept."""
    return printable(str(name)).replace("\n", "\\n")


def describe(error: Exception) -> str:
    """The message of an error on one line; of a failed system call, the file, where there is one, and the reason."""
    if isinstance(error, OSError) and error.strerror:
        return one_line(error.strerror if error.filename is None else f"{error.filename}: {error.strerror}")
    return one_line(error)
