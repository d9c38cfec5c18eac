"""Replies on disk by the hash of all that was sent, and what they cost: nothing is paid for twice."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from time import time
from types import TracebackType
from uuid import uuid4

from camelbell_core.errors import CamelBellError
from camelbell_core.service.replies import Reply

_TABLE = """
create table if not exists replies (
    key text primary key, text text, finish text, tokens_in integer, tokens_out integer, cost real,
    at real
) without rowid
"""


@dataclass(frozen=True, slots=True)
class Spent:
    """What the replies of a ledger took in all: requests, tokens, and money in the currency of the prices."""

    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0


class Ledger:
    """The replies that came so far; each is on disk before anything else is done with it.

    A SQLite file in write-ahead mode: a killed program loses none, a crash of the machine at most the last ones.
    Without a file the replies are kept for this run alone.
    """

    def __init__(self, file: Path | None) -> None:
        self.file = file
        try:
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(file or ":memory:", isolation_level=None, check_same_thread=False)
            self._db.execute("pragma journal_mode=wal")
            self._db.execute("pragma synchronous=normal")
            self._db.execute(_TABLE)
            row = self._db.execute(
                "select count(*), coalesce(sum(tokens_in), 0), coalesce(sum(tokens_out), 0), coalesce(sum(cost), 0)"
                " from replies"
            ).fetchone()
        except (sqlite3.Error, OSError) as error:
            raise self._broken(error) from error
        self.spent = Spent(*row)

    def get(self, key: str) -> Reply | None:
        """Return the reply to what has that hash."""
        row = self._db.execute(
            "select text, finish, tokens_in, tokens_out from replies where key = ?", (key,)
        ).fetchone()
        return Reply(*row) if row else None

    def put(self, key: str, reply: Reply, cost: float = 0.0) -> None:
        """Keep a reply."""
        values = (key, reply.text, reply.finish, reply.tokens_in, reply.tokens_out, cost, time())
        try:
            self._db.execute("insert or replace into replies values (?, ?, ?, ?, ?, ?, ?)", values)
        except sqlite3.Error as error:
            raise self._broken(error) from error
        spent = self.spent
        self.spent = Spent(
            spent.requests + 1,
            spent.tokens_in + reply.tokens_in,
            spent.tokens_out + reply.tokens_out,
            spent.cost + cost,
        )

    def count(self, reply: Reply, cost: float = 0.0) -> None:
        """Count what a reply cost that is not to be given again."""
        self.put(f"counted-{uuid4().hex}", reply, cost)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _broken(self, error: Exception) -> CamelBellError:
        if "full" in str(error):
            return CamelBellError(
                f"the disk is full: {self.file} cannot grow; what was written before is intact",
                "free some space and run the same command to go on",
            )
        return CamelBellError(
            f"cannot use {self.file}: {error}", "move it away: the replies in it would then be asked for again"
        )

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
