"""The folder in which compiled programs wait for the next process: who may touch it, and how files come and go.

A file is written under another name and then renamed, so that nobody ever sees half of it, whatever happens to the
writer; what is damaged all the same fails its checksum. Only a folder and files that belong to this user, and that
nobody else may write, are read: what is in them becomes machine code.
"""
from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from graphc.config import options
from graphc.errors import ParseError
from graphc.program import packed, unpacked
from graphc.records import record

MAGIC = b"graphc-cache\n"
SUFFIX = ".program"
_FILE = re.compile(r"[0-9a-f]{64}\.program\Z")
_PART = re.compile(r"[0-9a-f]{64}\.[0-9a-f]{16}\.part\Z")
ABANDONED = 3600        # seconds after which an unfinished file is nobody's
KEPT = 0.75             # of the limit, once it was passed


@record(frozen=True)
class Entry:
    """A file of the folder: its key, bytes, and when it was last used."""

    key: str
    size: int
    used: float


class Refused(OSError):
    """The folder or a file in it cannot be trusted."""


def default_folder() -> Path:
    """Where this system keeps a user's caches; of a user without a home, a folder among the temporary ones."""
    try:
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "graphc"
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "graphc"
    except RuntimeError:
        import tempfile
        return Path(tempfile.gettempdir()) / f"graphc-{os.getuid()}"


def folder() -> Folder:
    """The folder that the options name."""
    return Folder(Path(options.cache_dir) if options.cache_dir else default_folder(), options.cache_limit)


class Folder:
    """Documents with blobs (see `program.packed`) by keys of 64 hexadecimal digits. `limit`: bytes of all files together."""

    def __init__(self, path: Path, limit: int):
        self.path, self.limit = path, limit

    # one file ----------------------------------------------------------------------------------------------------------

    def load(self, key: str) -> tuple[dict, list[bytes]] | None:
        """What is kept under a key; None where there is nothing, or nothing that can be used. Never raises."""
        try:
            with self._opened() as directory:
                return self.checked(directory, key)
        except FileNotFoundError:
            return None
        except (OSError, ParseError) as e:
            warn_once(f"the compiled program in {self.path} is not used: {_first_line(e)}")
            return None

    def checked(self, directory: int, key: str, uses: bool = True) -> tuple[dict, list[bytes]]:
        """The document under a key; `uses`: note that it was used. Raises OSError, Refused, ParseError."""
        name = key + SUFFIX
        handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        with open(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise Refused(f"{name} is not a file")
            _require_ours(status, name)
            data = file.read()
            if uses:
                with contextlib.suppress(OSError):
                    os.utime(handle)
        document, blobs = unpacked(MAGIC, data)
        if document.get("key") != key:
            raise Refused(f"{name} has the content of another file")
        return document, blobs

    def save(self, key: str, document: dict, blobs: list[bytes]) -> None:
        """Keep a document. Warns, once, when that is not possible. Never raises."""
        data = packed(MAGIC, {"key": key, **document}, blobs)
        if len(data) > self.limit:
            return
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._opened() as directory:
                _write(directory, key, data)
                self._trim(directory)
        except OSError as e:
            warn_once(f"compiled programs are not kept in {self.path}: {_first_line(e)}")

    # all files ---------------------------------------------------------------------------------------------------------

    def entries(self) -> list[Entry]:
        """The files, the one that was used last first. Raises OSError for a folder that cannot be used."""
        try:
            with self._opened() as directory:
                found = [e for e in _entries(directory) if _FILE.match(e.key)]
        except FileNotFoundError:
            return []
        return [Entry(e.key.removesuffix(SUFFIX), e.size, e.used) for e in sorted(found, key=lambda e: -e.used)]

    def read(self, key: str) -> tuple[dict, list[bytes]]:
        """Like `load`, to look at it; raises OSError or ParseError that says what is wrong."""
        with self._opened() as directory:
            return self.checked(directory, key, uses=False)

    def clear(self) -> int:
        """Remove all files, and give their number. Raises OSError."""
        try:
            with self._opened() as directory:
                return sum(_removed(directory, e.key) for e in _entries(directory))
        except FileNotFoundError:
            return 0

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        """The folder, open: what is checked is what is then used, whatever is put in its place meanwhile."""
        if hasattr(os, "geteuid") and os.lstat(self.path).st_uid != os.geteuid():
            raise Refused("the folder belongs to another user")
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _require_ours(os.fstat(directory), "the folder")
            yield directory
        finally:
            os.close(directory)

    def _trim(self, directory: int) -> None:
        """Remove what was not used for longest until the rest fits, and what somebody began to write and never ended."""
        found, now = _entries(directory), time.time()
        for part in [e for e in found if _PART.match(e.key) and e.used < now - ABANDONED]:
            _removed(directory, part.key)
            found.remove(part)
        total = sum(e.size for e in found)
        if total <= self.limit:
            return
        for entry in sorted((e for e in found if _FILE.match(e.key)), key=lambda e: e.used):
            if total <= KEPT * self.limit:
                break
            _removed(directory, entry.key)
            total -= entry.size


def _write(directory: int, key: str, data: bytes) -> None:
    part = f"{key}.{os.urandom(8).hex()}.part"
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        with open(handle, "wb") as file:
            file.write(data)
        os.rename(part, key + SUFFIX, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        _removed(directory, part)
        raise


def _entries(directory: int) -> list[Entry]:
    """The files that are ours by name, unfinished ones too; `key` is the whole name."""
    found = []
    with os.scandir(directory) as files:
        for file in files:
            if _FILE.match(file.name) or _PART.match(file.name):
                with contextlib.suppress(FileNotFoundError):    # another process was faster
                    status = file.stat(follow_symlinks=False)
                    found.append(Entry(file.name, status.st_size, status.st_mtime))
    return found


def _removed(directory: int, name: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)
        return True
    return False


def _require_ours(status: os.stat_result, what: str) -> None:
    """Raise Refused unless it belongs to this user, and nobody else may write it."""
    if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
        raise Refused(f"{what} belongs to another user")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Refused(f"others may write {what}")


_warned: set[str] = set()


def warn_once(text: str) -> None:
    """A warning, the first time in a process."""
    if text not in _warned:
        _warned.add(text)
        warnings.warn(f"graphc: {text}", RuntimeWarning, stacklevel=2)


def _first_line(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.splitlines()[0]
