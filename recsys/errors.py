"""The one error that a user can mend."""


class InputError(ValueError):
    """Something the user gave is wrong.

    The message is one line: the file, the column or setting, the value, what is allowed and what to
    do. The command line prints it without a traceback and exits with status 2.
    """
