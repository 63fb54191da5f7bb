"""Errors that are the user's to mend: the scripts print them as one line and exit with code 2."""


class UserError(Exception):
    """Something outside the program is wrong; the message says what, in one sentence with names and values."""


class OneProcessError(UserError):
    """Of several processes one has met it, maybe alone: that one must say so."""
