"""Append-only JSONL that survives kill -9, and the folder of a run with its one writer."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import IO, Any, TypeVar

from camelbell_core.errors import CamelBellError, WorkspaceBusy
from camelbell_core.records import Pair, Question, from_row, to_row

R = TypeVar("R", Question, Pair)
_SYNC_EVERY = 1.0  # seconds; a crash of the program loses nothing, one of the machine at most this much


def read_rows(file: Path, torn: bool = True) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line number and object of each line; a broken line is an error that names it.

    A last line without its line break was torn by a kill: it is left out if it is not whole. ``torn=False``
    is for files that people write, where such a line is a mistake like any other.
    """
    if not file.exists():
        return
    try:
        lines = file.open("rb")
    except OSError as error:
        raise CamelBellError(f"cannot read {file}: {error.strerror or error}") from error
    with lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = _row(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except ValueError as error:
                if torn and not line.endswith(b"\n"):
                    return
                raise CamelBellError(
                    f"{file}:{number}: this line is broken: {error}", "mend or delete the line, then run again"
                ) from error
            yield number, row


def _row(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line.rstrip())
    except json.JSONDecodeError as error:
        raise ValueError(f"column {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise ValueError("its brackets are nested too deeply") from error
    if not isinstance(row, dict):
        raise ValueError("is not a JSON object")
    return row


def read_records(file: Path, kind: type[R]) -> list[R]:
    """Return the records of a file, one for each id (the last one wins, in the place of the first)."""
    found: dict[str, R] = {}
    for number, row in read_rows(file):
        try:
            record = from_row(kind, row)
        except ValueError as error:
            raise CamelBellError(f"{file}:{number}: {error}", "mend or delete the line, then run again") from error
        found[record.id] = record
    return list(found.values())


class Journal:
    """Adds records to a JSONL file, each whole or not at all."""

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            _repair_tail(file)
            # Unbuffered: what did not fit on a full disk is not kept back to be written later.
            self._out = file.open("ab", buffering=0)
        except OSError as error:
            raise _disk_error(file, error) from error
        self._synced = monotonic()

    def append(self, row: dict[str, Any]) -> None:
        """Write one line; on a full disk nothing of it stays and earlier lines are intact."""
        data = json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        start = os.fstat(self._out.fileno()).st_size
        try:
            while data:  # a nearly full disk takes the beginning first, and then fails
                data = data[self._out.write(data) :]
        except OSError as error:
            with suppress(OSError):  # where it cannot be cut off, the next opening does it
                self._out.truncate(start)
            raise _disk_error(self.file, error) from error
        if monotonic() - self._synced > _SYNC_EVERY:
            self._sync()

    def add(self, record: Question | Pair) -> None:
        """Write one record."""
        self.append(to_row(record))

    def close(self) -> None:
        """Put everything on the disk."""
        if not self._out.closed:
            try:
                self._sync()
            finally:
                self._out.close()

    def _sync(self) -> None:
        try:
            os.fsync(self._out.fileno())
        except OSError as error:
            if error.errno != errno.EINVAL:  # a pipe or a device has no disk to put things on
                raise _disk_error(self.file, error) from error
        self._synced = monotonic()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def write_rows(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Replace a JSONL file at once: a reader sees the old rows or the new ones, never a part."""
    write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_json(file: Path, value: object) -> None:
    """Replace a JSON file at once."""
    write_text(file, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def write_text(file: Path, text: str) -> None:
    """Replace a text file at once, UTF-8."""
    draft = file.with_name(file.name + ".new")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("w", encoding="utf-8", newline="\n", errors="backslashreplace") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        os.replace(draft, file)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise _disk_error(file, error) from error


class Workspace:
    """The folder of a run: what each stage made, and a lock for one writer at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.questions = root / "questions.jsonl"
        self.pairs = root / "pairs.jsonl"
        self.kept = root / "kept.jsonl"
        self.examples = root / "examples.jsonl"
        self.rejected = root / "rejected.jsonl"
        self.reports = root / "reports"

    def adapter(self, base: str) -> Path:
        """Return where the adapter for a base lives."""
        return self.root / "adapters" / base_slug(base)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the workspace; a second process is refused with the first one's id."""
        from filelock import FileLock, Timeout

        owner = self.root / "run.pid"
        lock = FileLock(self.root / "run.lock", timeout=0)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout as error:
            raise WorkspaceBusy(
                f"the workspace {str(self.root)!r} is in use by process {_owner_id(owner)}",
                "wait for it, end it, or name another with --workspace DIR",
            ) from error
        except OSError as error:
            raise CamelBellError(
                f"cannot use the workspace {str(self.root)!r}: {error.strerror or error}",
                "name another with --workspace DIR",
            ) from error
        try:
            write_text(owner, str(os.getpid()))
            yield
        finally:
            owner.unlink(missing_ok=True)
            lock.release()


def _owner_id(owner: Path) -> str:
    try:
        return owner.read_text(encoding="utf-8").strip() or "unknown"
    except OSError:
        return "unknown"


def base_slug(base: str) -> str:
    """Return the folder name that stands for a base model's name or path."""
    name = base.rstrip("/\\").replace("\\", "/").split("/")[-1].lower()
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in name).strip(".") or "base"


def _repair_tail(file: Path) -> None:
    """Cut off a torn last line; a whole one that only lacks its line break gets it."""
    if not file.exists() or file.stat().st_size == 0:
        return
    with file.open("r+b") as data:
        size = data.seek(0, os.SEEK_END)
        start = _last_line_start(data, size)
        data.seek(start)
        tail = data.read()
        if tail.endswith(b"\n"):
            return
        try:
            _row(tail.decode("utf-8-sig"))
            data.write(b"\n")
        except ValueError:
            data.truncate(start)


def _last_line_start(data: IO[bytes], size: int) -> int:
    step, end = 65536, size - 1  # a line break at the very end closes the last line
    while end > 0:
        begin = max(0, end - step)
        data.seek(begin)
        found = data.read(end - begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


def _disk_error(file: Path, error: OSError) -> CamelBellError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return CamelBellError(
            f"the disk is full: {file} cannot grow; the rows written before are intact",
            "free some space and run the same command to go on",
        )
    return CamelBellError(f"cannot write {file}: {error.strerror or error}")
