"""The guard under which every file from outside is read: its errors name the file."""

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any, Concatenate, ParamSpec, TypeVar

from hmr_jax.errors import UserError

_P = ParamSpec("_P")
_T = TypeVar("_T")
_REASON_CHARACTERS, _ERROR_CHARACTERS = 400, 1500


class FileError(UserError):
    """A file from outside is damaged, or is not what it should be."""


@contextlib.contextmanager
def reading(
    path: Any, expected: str, error: type[UserError] = FileError
) -> Iterator[None]:
    """Guard the reading of a file from outside: every error is the user's, and named.

    Whatever a parser raises over damaged bytes, or a check over wrong types and shapes,
    leaves the block as a ``UserError`` whose message begins with the file. Only code
    that reads or checks the file belongs into the block. An error that names the file
    already keeps its text (and its class, where no other is asked for); an ``OSError``
    that does (no such file, no permission) and an error of import pass as they are.

    Args:
        path: the file, as errors name it.
        expected: what it should be, with its article: "a manifest of records".
        error: class of the error.

    Raises:
        UserError: of the class ``error``, naming the file and what was found.
    """
    source = str(path)
    try:
        yield
    except ImportError:
        raise
    except (UserError, OSError) as found:
        text = str(found)
        if source in text:
            if error is FileError or isinstance(found, error | OSError):
                raise
            raise error(text) from found
        raise error(f"{source}: expected {expected}; {text}") from found
    # Parsers of damaged bytes raise whatever they come across (struct.error,
    # RuntimeError, AssertionError, MemoryError, ...); no list of these is complete.
    except Exception as found:  # noqa: BLE001
        missing = "its end is missing" if isinstance(found, EOFError) else ""
        text = str(found) or missing or type(found).__name__
        if source not in text:
            kind = "" if isinstance(found, ValueError) else f"{type(found).__name__}: "
            text = f"{source}: expected {expected}, found: {kind}{_brief(text)}"
        raise error(_brief(text, _ERROR_CHARACTERS)) from found


def _brief(text: str, characters: int = _REASON_CHARACTERS) -> str:
    """The text, cut where it quotes half the file."""
    return text if len(text) <= characters else text[:characters] + " ..."


def json_object(data: bytes | str, source: Any, expected: str) -> dict[str, Any]:
    """The content of a JSON file whose value must be an object.

    Args:
        data: the file.
        source: its name, for errors.
        expected: what it should be, with its article.

    Raises:
        FileError: it is none; the message names it.
    """
    with reading(source, expected):
        content = json.loads(data)
        if not isinstance(content, dict):
            raise ValueError(f"a JSON {type(content).__name__}, not an object")
        return content


def json_digest(value: Any) -> str:
    """SHA-256 of a JSON value, whatever the order of its fields."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def reader(
    expected: str,
) -> Callable[[Callable[Concatenate[Any, _P], _T]], Callable[Concatenate[Any, _P], _T]]:
    """Put a function whose first argument is a path under the guard of ``reading``.

    Args:
        expected: what the file should be, with its article.
    """

    def decorate(
        function: Callable[Concatenate[Any, _P], _T],
    ) -> Callable[Concatenate[Any, _P], _T]:
        @functools.wraps(function)
        def guarded(path: Any, *args: _P.args, **kwargs: _P.kwargs) -> _T:
            with reading(path, expected):
                return function(path, *args, **kwargs)

        return guarded

    return decorate
