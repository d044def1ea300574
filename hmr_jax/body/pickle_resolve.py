"""From what a restricted unpickler has built to arrays, within a file's budget."""

import contextlib
from collections.abc import Iterator
from typing import Any, NoReturn

from hmr_jax.body.pickle_names import Call, Foreign, StandIn, brief
from hmr_jax.outside import FileError

_FREE_BYTES, _BYTES_PER_BYTE = 2**25, 16
_FREE_OBJECTS, _OBJECTS_PER_BYTE = 10**6, 4
_TEXT_PER_OBJECT = 16
_FREE_INFLATED, _INFLATED_PER_BYTE = 2**24, 256
_MAX_NAMES, _MAX_NAME = 3, 60
_UNREADABLE_BYTES = 300


class Budget:
    """What reading a file may cost: a fixed sum and some bytes for each of its own.

    A few hundred bytes can describe gigabytes: a sparse matrix by its shape, a tensor
    by strides of 0, a tree by tuples that hold the same tuple twice. Published files
    need less than twice their own size; sparse ones, small, live on the fixed sum.

    Args:
        file_bytes: size of the pickle.
        stored_bytes: of the pickle as it lies on the disk, where it is compressed.

    Attributes:
        objects: entries that its containers may have, with each counted as often as it
            is reached.
    """

    def __init__(self, file_bytes: int, stored_bytes: int | None = None):
        stored = file_bytes if stored_bytes is None else stored_bytes
        self._containers = _FREE_OBJECTS + stored
        self._left = _FREE_BYTES + _BYTES_PER_BYTE * file_bytes
        self.objects = _FREE_OBJECTS + _OBJECTS_PER_BYTE * file_bytes

    def make(self) -> None:
        """Count a container, which one instruction of one byte makes.

        Raises:
            ValueError: a file of this size has not so many.
        """
        self._containers -= 1
        if self._containers < 0:
            raise ValueError("it makes more objects than a file of this size has")

    def spend(self, size_bytes: int) -> None:
        """Pay for something before it is made.

        Args:
            size_bytes: its size.

        Raises:
            ValueError: there is not so much left; nothing is spent.
        """
        if size_bytes > self._left:
            raise ValueError(
                f"it needs {brief(size_bytes)} bytes, {self._left} are left of what a "
                "file of this size may need"
            )
        self._left -= size_bytes


def largest_inflation(stored_bytes: int) -> int:
    """How long a pickle may be that is compressed: its instructions cost more than it.

    Args:
        stored_bytes: its compressed size.
    """
    return _FREE_INFLATED + _INFLATED_PER_BYTE * stored_bytes


class Unreadable:
    """An entry of a file that could not be read; using it in any way is the error.

    Args:
        source: the file.
        names: of the entry, from outside to inside.
        reason: why it could not be read.
    """

    def __init__(self, source: str, names: tuple[str, ...], reason: str):
        self._source, self._names, self._reason = source, names, reason

    def __repr__(self) -> str:
        return f"<unreadable: {self.error()}>"

    def error(self) -> FileError:
        """The error of whoever needs the entry."""
        field = f": field {'.'.join(self._names)!r}" if self._names else ""
        return FileError(f"{self._source}{field}: cannot be read: {self._reason}")

    def _refuse(self, *arguments: Any, **options: Any) -> NoReturn:
        raise self.error()

    __array__ = __len__ = __iter__ = __getitem__ = __contains__ = _refuse
    __bool__ = __int__ = __float__ = __index__ = __lt__ = __gt__ = _refuse

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # what protocols and copies look for
            raise AttributeError(name)
        raise self.error()


def resolve(content: Any, budget: Budget, source: str) -> Any:
    """Turn the stand-ins inside plain containers into arrays and Python objects.

    Args:
        content: what an unpickler returned.
        budget: pays for them.
        source: the file's name.

    Returns:
        The same with dicts, lists, tuples and sets rebuilt; records that make no sense
        are ``Unreadable``, and so is an entry of an outermost dictionary that cannot be
        rebuilt.

    Raises:
        ValueError: the whole is unreadable, or contains itself.
    """
    resolver = _Resolver(budget, source)
    found = (
        resolver.entries(content) if isinstance(content, dict) else resolver(content)
    )
    if isinstance(found, Unreadable):
        raise found.error()
    return found


class _Resolver:
    """One pass over a pickle's content; see ``pickle_names.Resolve``."""

    def __init__(self, budget: Budget, source: str):
        self.spend = budget.spend
        self._limit, self._source = budget.objects, source
        self._count = 0
        # id -> the object, which must live for its id to be its own; value and count
        self._done: dict[int, tuple[Any, Any, int]] = {}
        self._active: set[int] = set()
        self._names: list[str] = []

    def __call__(self, x: Any) -> Any:
        if isinstance(x, type | Call):
            name = getattr(x, "__name__", "function").strip("_")
            return self._unreadable(f"unexpected {name} object")
        if not isinstance(x, dict | list | tuple | set | frozenset | StandIn):
            long = len(x) if isinstance(x, str | bytes | bytearray) else 0
            self._count += 1 + long // _TEXT_PER_OBJECT
            return x
        if isinstance(x, Foreign):
            self._count += 1
            return self._unreadable(x.reason)
        if id(x) in self._done:
            _, value, count = self._done[id(x)]
            self._count += count
            return value
        if id(x) in self._active:
            raise ValueError("the pickled structure contains itself")
        before = self._count
        self._active.add(id(x))
        value = self._resolved(x)
        self._active.discard(id(x))
        count = self._count - before + 1
        if count > self._limit:
            reason = f"it unfolds to {brief(count)} objects, more than such a file has"
            value, count = self._unreadable(reason), 1
        self._count = before + count
        self._done[id(x)] = x, value, count
        return value

    def _resolved(self, x: Any) -> Any:
        if isinstance(x, dict):
            return {self(key): self._entry(key, value) for key, value in x.items()}
        if not isinstance(x, StandIn):
            return type(x)(map(self, x))
        try:
            return x.resolve(self)
        except RecursionError:
            raise
        # A stand-in may come across anything: its parts are as the file has them.
        except Exception as error:  # noqa: BLE001
            return self._unreadable(str(error) or type(error).__name__)

    def _entry(self, key: Any, value: Any) -> Any:
        with self._inside(key):
            return self(value)

    def entries(self, content: dict) -> Any:
        """The outermost dictionary: one entry that fails does not take the others."""
        found, before = {}, self._count
        for key, value in content.items():
            with self._inside(key):
                try:
                    found[self(key)] = self(value)
                except Exception as error:  # noqa: BLE001 -- see _resolved
                    self._active.clear()
                    reason = str(error) or type(error).__name__
                    found[self(key)] = self._unreadable(reason)
        if self._count - before > self._limit:
            return self._unreadable("its entries unfold to more than such a file has")
        return found

    @contextlib.contextmanager
    def _inside(self, key: Any) -> Iterator[None]:
        text = key.decode("latin1") if isinstance(key, bytes) else key
        self._names.append(text[:_MAX_NAME] if isinstance(text, str) else brief(text))
        try:
            yield
        finally:
            self._names.pop()

    def _unreadable(self, reason: str) -> Unreadable:
        self.spend(_UNREADABLE_BYTES)
        return Unreadable(self._source, tuple(self._names[:_MAX_NAMES]), reason)
