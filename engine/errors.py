"""Errors that are the user's to mend: the scripts print them as one line and exit with code 2."""


class UserError(Exception):
    """Something outside the program is wrong; the message says what, in one sentence with names and values."""


def one_line(error: Exception) -> str:
    """The message of an error as one line.

    A data loader's worker wraps the message of an exception in a traceback of its own; the message is its last line.
    """
    text = str(error).strip()
    if text.startswith("Caught ") and "Traceback" in text:
        text = text.splitlines()[-1].partition(": ")[2]
    return " ".join(text.split())
