"""Sessions out of this host's shared memory: no socket, no system call, no third-party package.

    from annulus import Reader, Session, SlowDown, Status

    with Reader.table("my-cluster", "sessions") as reader:
        match reader.get(b"key"):
            case Session(value=value):
                ...  # bytes, or a dict of bytes to bytes
            case Status.ENDED:
                ...  # logged out for good
            case SlowDown(retry_after_ms=wait_ms):
                ...  # used too much: come back then, and not before
            case _:
                ...  # shared memory cannot tell: ask a node

This reads. Writes, and every answer with `must_ask`, are a node's matter (its socket, or the Redis
protocol); none of those answers means that there is no session. What you wrote through a node of
another host may not have arrived here yet.

Stands on libannulus.so and its header annulus.h, which say more. The library is looked for where
ANNULUS_LIBRARY says, then where the system's loader does.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from types import TracebackType
from typing import NamedTuple, Union

__all__ = ["Answer", "Error", "Reader", "Session", "SlowDown", "Status", "Version"]


class Status(IntEnum):
    """Why there is no session in an answer."""

    ENDED = 1
    """The session was ended; nothing brings it back."""
    MISS = 2
    """Not in this host's table."""
    EXPIRED = 3
    """This host's copy has expired; a use of it may have reached another host."""
    STALE = 4
    """The node does not vouch for this part of the table."""
    CONTENDED = 5
    """The record changed each time it was read."""
    DAMAGED = 6
    """The record makes no sense, or is of a format that the library does not know."""
    NOT_ATTACHED = 7
    """The node gave its segment up, and there is no new one yet."""

    @property
    def must_ask(self) -> bool:
        """Whether a node has to be asked."""
        return self is not Status.ENDED


class Version(NamedTuple):
    """Which write: in order by `hlc`, then by `node`."""

    hlc: int
    """Hybrid milliseconds in the upper 48 bits, a counter in the lower 16."""
    node: int
    """The node that stamped it."""


@dataclass(slots=True)
class Session:
    """A live session. Times are hybrid milliseconds: since 1970, as the cluster's nodes agree."""

    value: Union[bytes, dict[bytes, bytes]]
    """The value: bytes, or the fields of a map."""
    birth: Version
    """The write that created it: what has another birth is another session."""
    version: Version
    """Its last write."""
    deadline_ms: int
    """When it expires unless it is used; 0 = never."""
    touched_ms: int
    """When it was last used."""
    read_at_ms: int
    """When it was read."""


@dataclass(slots=True)
class SlowDown:
    """The session is used too much, and kept away from its users for a while."""

    retry_after_ms: int
    """How long to wait before asking again, in milliseconds."""

    @property
    def must_ask(self) -> bool:
        """Whether a node has to be asked: it would say the same."""
        return False


Answer = Union[Session, SlowDown, Status]


class Error(Exception):
    """The library refuses, or cannot open a table. `code` is one of annulus.h."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Reader:
    """One table of this host, for any number of threads (but not for signal handlers).

    When the node gives the segment up and makes another (after a change of its size, say), the
    reader attaches to the new one by itself: it looks at most once a second, and only when a get
    had no answer.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Attaches to the segment in a file. Raises `Error`."""
        self._attach(_library().annulus_open, os.fsencode(path))

    @classmethod
    def table(
        cls, cluster: str, table: str, directory: str | os.PathLike[str] = "/dev/shm"
    ) -> Reader:
        """Attaches to a table by name; `directory` is the node's `shm_dir`.

        Raises `Error`, also if several nodes made such a table there: name the file then.
        """
        reader = cls.__new__(cls)
        names = os.fsencode(directory), cluster.encode(), table.encode()
        reader._attach(_library().annulus_open_table, *names)
        return reader

    def get(self, key: bytes) -> Answer:
        """Looks a key of 1 to 255 bytes up. Raises `Error` for any other key."""
        handle, room = self._handle, self._room()
        if handle is None:
            raise ValueError("the reader is closed")
        size = len(key)
        status = self._get(handle.pointer, key, size, room.at, room.size, room.found_at)
        while status == _TOO_SMALL:
            room.grow(_SESSION.unpack_from(room.found)[-1])
            status = self._get(handle.pointer, key, size, room.at, room.size, room.found_at)
        if status == _LIVE:
            return _session(room, _SESSION.unpack_from(room.found), room.found_at)
        if status == _SLOW_DOWN:
            return _slow_down(_SESSION.unpack_from(room.found))
        if status in _MAY_BE_DETACHED and self._look_after(handle):
            return self.get(key)
        return _status(status)

    def get_many(self, keys: Iterable[bytes]) -> list[Answer]:
        """Looks keys up together, which is cheaper than one by one. Answers in the keys' order."""
        keys = list(keys)
        handle, room = self._handle, self._room()
        if handle is None:
            raise ValueError("the reader is closed")
        # An array of annulus_key, by address and size. `pointers` holds on to the keys.
        pointers = (ctypes.c_char_p * len(keys))(*keys)
        asked = (ctypes.c_size_t * (2 * len(keys)))()
        asked[::2] = memoryview(pointers).cast("B").cast("N").tolist()
        asked[1::2] = [len(key) for key in keys]
        found = ctypes.create_string_buffer(_SESSION.size * len(keys))
        at = ctypes.addressof(found)
        status = self._library.annulus_get_many(
            handle.pointer, asked, len(keys), room.at, room.size, at
        )
        if status != _LIVE:
            _fail(self._library, status)
        # All that lies in the buffer is taken out before a single get uses it again.
        sessions = _SESSION.iter_unpack(memoryview(found)[: _SESSION.size * len(keys)])
        answers: list[Answer] = []
        again: list[int] = []
        short = 0
        for place, session in enumerate(sessions):
            status = session[0]
            if status == _LIVE:
                answers.append(_session(room, session, at + _SESSION.size * place))
                continue
            if status == _SLOW_DOWN:
                answers.append(_slow_down(session))
                continue
            if status == _TOO_SMALL or status in _MAY_BE_DETACHED:
                short += session[-1]
                again.append(place)
                status = Status.MISS
            answers.append(_status(status))
        for place in again:
            answers[place] = self.get(keys[place])
        if short:
            # Next time they fit at once.
            room.grow(max(room.size, min(room.size + short, _ROOM_KEPT_MAX)))
        return answers

    def detached(self) -> bool:
        """Whether the node gave the segment up, or its file is gone or another one now."""
        return self._library.annulus_detached(self._open_handle().pointer) == 1

    def reopen(self) -> None:
        """Attaches anew. Raises `Error`, and stays attached to the old segment then."""
        _check(self._library, self._library.annulus_reopen(self._open_handle().pointer))

    def close(self) -> None:
        """Lets go of the segment, once no thread reads any more."""
        self._handle = None

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _attach(self, call: ctypes._CFuncPtr, *names: bytes) -> None:
        self._library = _library()
        self._get = self._library.annulus_get
        self._local = threading.local()
        self._looked_at = time.monotonic()
        pointer = ctypes.c_void_p()
        _check(self._library, call(*names, ctypes.byref(pointer)))
        self._handle: _Handle | None = _Handle(self._library, pointer)

    def _open_handle(self) -> _Handle:
        handle = self._handle
        if handle is None:
            raise ValueError("the reader is closed")
        return handle

    def _room(self) -> _Room:
        try:
            return self._local.room
        except AttributeError:
            self._local.room = _Room()
            return self._local.room

    def _look_after(self, handle: _Handle) -> bool:
        """Whether the segment was another one, and has been replaced."""
        now = time.monotonic()
        if now - self._looked_at < _LOOK_AFTER_S:
            return False
        self._looked_at = now
        if self._library.annulus_detached(handle.pointer) != 1:
            return False
        return self._library.annulus_reopen(handle.pointer) == _LIVE


_LIVE = 0
_TOO_SMALL = 8
_SLOW_DOWN = 9
_STATUSES = {int(status): status for status in Status}
_MAY_BE_DETACHED = frozenset((int(Status.STALE), int(Status.NOT_ATTACHED)))
_LOOK_AFTER_S = 1.0
_ROOM_MIN = 4096
_ROOM_KEPT_MAX = 1 << 20
_ABI = 1


# annulus_session: status, kind, birth, version, deadline, touched, read_at, value, its size, needed.
_SESSION = struct.Struct("@iIQQQQQQQPNN")
# annulus_field: name, its size, value, its size, version, expire_at.
_FIELD = struct.Struct("@PNPNQQQ")


class _Handle:
    """The library's reader. Closed with the last reference, and each call holds one."""

    __slots__ = ("_close", "pointer")

    def __init__(self, library: ctypes.CDLL, pointer: ctypes.c_void_p) -> None:
        self._close = library.annulus_close
        self.pointer = pointer

    def __del__(self) -> None:
        self._close(self.pointer)


class _Room:
    """One thread's buffer and result, so that a get makes neither."""

    __slots__ = ("at", "bytes", "found", "found_at", "size", "view")

    def __init__(self) -> None:
        # Made of 64-bit words for their alignment.
        self.found = (ctypes.c_uint64 * (_SESSION.size // 8))()
        self.found_at = ctypes.addressof(self.found)
        self.grow(_ROOM_MIN)

    def grow(self, size: int) -> None:
        self.bytes = ctypes.create_string_buffer(size)
        self.view = memoryview(self.bytes).cast("B")
        self.at = ctypes.addressof(self.bytes)
        self.size = size


def _session(room: _Room, found: tuple[int, ...], found_at: int) -> Session:
    _, kind, birth, born_by, version, by, deadline, touched, read_at, at, size, _ = found
    value: Union[bytes, dict[bytes, bytes]]
    if kind == 1:
        begin = at - room.at
        value = bytes(room.view[begin : begin + size])
    else:
        value = _fields(room, found_at)
    return Session(
        value, Version(birth, born_by), Version(version, by), deadline, touched, read_at
    )


def _slow_down(found: tuple[int, ...]) -> SlowDown:
    _, _, _, _, _, _, until, _, read_at, *_ = found
    return SlowDown(until - read_at)


def _fields(room: _Room, found_at: int) -> dict[bytes, bytes]:
    library = _library()
    fields: dict[bytes, bytes] = {}
    field, cursor = (ctypes.c_uint64 * (_FIELD.size // 8))(), ctypes.c_size_t()
    arguments = found_at, ctypes.addressof(cursor), ctypes.addressof(field)
    start, view = room.at, room.view
    while (more := library.annulus_map_next(*arguments)) == 1:
        name, name_size, value, value_size, *_ = _FIELD.unpack_from(field)
        name, value = name - start, value - start
        fields[bytes(view[name : name + name_size])] = bytes(view[value : value + value_size])
    _check(library, more)
    return fields


def _status(code: int) -> Status:
    if code < 0:
        _fail(_library(), code)
    # What a later library may say beside these means that a node has to be asked.
    return _STATUSES.get(code, Status.DAMAGED)


def _check(library: ctypes.CDLL, code: int) -> None:
    if code < 0:
        _fail(library, code)


def _fail(library: ctypes.CDLL, code: int) -> None:
    text = library.annulus_strerror(code).decode()
    # -2 and below come from opening, which says more.
    more = library.annulus_last_error().decode(errors="replace") if -4 <= code <= -2 else ""
    raise Error(code, more or text)


_loaded: ctypes.CDLL | None = None
_loading = threading.Lock()


def _library() -> ctypes.CDLL:
    global _loaded
    if _loaded is None:
        with _loading:
            if _loaded is None:
                _loaded = _load()
    return _loaded


def _load() -> ctypes.CDLL:
    library = ctypes.CDLL(os.environ.get("ANNULUS_LIBRARY", "libannulus.so.1"))
    pointer, text, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
    for name, result, arguments in [
        ("annulus_abi", ctypes.c_uint32, []),
        ("annulus_open", ctypes.c_int, [text, pointer]),
        ("annulus_open_table", ctypes.c_int, [text, text, text, pointer]),
        ("annulus_close", None, [pointer]),
        ("annulus_detached", ctypes.c_int, [pointer]),
        ("annulus_reopen", ctypes.c_int, [pointer]),
        ("annulus_get", ctypes.c_int, [pointer, text, size, pointer, size, pointer]),
        ("annulus_get_many", ctypes.c_int, [pointer, pointer, size, pointer, size, pointer]),
        ("annulus_map_next", ctypes.c_int, [pointer, pointer, pointer]),
        ("annulus_strerror", text, [ctypes.c_int]),
        ("annulus_last_error", text, []),
    ]:
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    if library.annulus_abi() != _ABI:
        raise ImportError(f"libannulus has interface {library.annulus_abi()}, not {_ABI}")
    return library
