"""Files that are whole whatever happens: written beside their place, flushed, renamed; and locks on folders."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from athlete.record.errors import LockedError


def write_beside(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part, a power cut included.

    Raises OSError that names the file; nothing is left beside it then.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    with beside(path) as temporary, named(path), temporary.open("wb") as file:
        file.write(data)
        flush(file)


def short_path(path: str | os.PathLike[str]) -> str:
    """The path as a person would type it here: from the current folder, else from `~`, else whole."""
    path = Path(path)
    for base, begin in ((Path.cwd(), ""), (Path.home(), "~/")):
        if path.is_relative_to(base) and path != base:
            return f"{begin}{path.relative_to(base).as_posix()}"
    return str(path)


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A place for a file's new content, which becomes the file where the block ends well, and else is removed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with named(path):
            os.replace(temporary, path)
            flush_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Let an OSError in the block name the file that could not be written, and its folder where that is gone.

    A full disk tells neither.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if not path.parent.is_dir():
            raise FileNotFoundError(error.errno, f"the folder {path.parent} was removed", str(path)) from error
        raise OSError(error.errno, f"{path.name} could not be written into {path.parent}: {reason}") from error


def flush(file: IO) -> None:
    """Put what was written to an open file onto the disk itself."""
    file.flush()
    os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Put the names in a folder onto the disk: a rename is only then sure to survive a power cut."""
    if os.name == "nt":  # Windows opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> None:
    """Remove what killed processes left half written beside the files of a folder that nobody else writes."""
    for left in folder.glob(".*.tmp"):
        left.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`, a file beside it, within the block. What a killed process held is free at once.

    Raises LockedError where somebody holds it.
    """
    path = folder.with_name(f".lock-{folder.name}")
    file = _acquired(path)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows removes no open files
            path.unlink()
        file.close()


def _acquired(path: Path) -> IO[str]:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        file = os.fdopen(descriptor, "r+", encoding="utf-8")
        if not _lock(descriptor):
            holder = file.read().strip() or "another process"
            file.close()
            raise LockedError(holder)
        with contextlib.suppress(FileNotFoundError):
            if os.name == "nt" or os.path.samestat(os.fstat(descriptor), path.stat()):
                file.truncate(0)
                file.write(f"process {os.getpid()}")
                file.flush()
                return file
        file.close()  # its holder has just removed it: take the new one


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> bool:
        try:
            os.lseek(descriptor, 1000, os.SEEK_SET)  # beyond the text, which others shall read
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _lock(descriptor: int) -> bool:
        """Whether the file is ours now; a file system without locks gives it to all."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True
