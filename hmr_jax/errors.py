"""Errors that are meant for whoever gave the input, not for whoever wrote the code."""


class UserError(ValueError):
    """Something given from outside is wrong, and the message says what.

    Raise it where a file, a config's field, a flag or data is not as it must be. The
    message names the file or field, what was expected and what was found: the command
    line prints it alone, in one line, without a traceback, and ends with code 1.

    Everything else (a ``ValueError`` or ``TypeError`` of JAX or numpy, a shape that our
    own code got wrong) is a fault of the program: leave its class as it is, and the
    command line shows where it came from. So never turn an error into this one without
    knowing that the input caused it: catch the one exception of the one call.

    It is a ``ValueError``. Where callers expect another class too, derive from both:
    ``class Missing(UserError, KeyError)``. An ``OSError`` (no such file, no permission,
    a full disk) needs no conversion: it is printed in the same way.
    """


class MissingPackageError(UserError, ImportError):
    """An optional package is needed and not installed; the message says which."""
