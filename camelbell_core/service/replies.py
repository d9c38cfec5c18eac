"""What a service sends back: a reply, or trouble of a kind that says what to do about it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from camelbell_core.text import printable

Kind = Literal["stop", "busy", "again", "never"]
_QUOTA = ("insufficient_quota", "exceeded_current_quota", "billing_hard_limit", "billing_not_active", "credit balance")


@dataclass(frozen=True, slots=True)
class Reply:
    """What a service said: ``finish`` is its reason to end (stop, length ...), tokens are as it counts them."""

    text: str
    finish: str = "stop"
    tokens_in: int = 0
    tokens_out: int = 0


@dataclass(frozen=True, slots=True)
class Trouble:
    """What went wrong with a request.

    ``stop`` concerns every request (key, quota, model), ``busy`` asks to wait, ``again`` may be mended by another try,
    ``never`` is wrong with this one request. ``wait`` is in seconds, 0 where the service names no time.
    """

    kind: Kind
    message: str
    hint: str = "run the same command to go on"
    wait: float = 0.0


def read_reply(
    place: str, model: str, key_env: str, status: int, headers: Mapping[str, str], raw: bytes
) -> Reply | Trouble:
    """Return what the answer of a service means; ``place`` and ``model`` are named in what is shown."""
    if status == 200:
        return _read_body(place, raw)
    said = _said(raw)
    answers = f"{place} answers HTTP {status}" + (f": {said}" if said else "")
    if status == 402 or (status in (403, 429) and any(word in raw.decode("utf-8", "replace") for word in _QUOTA)):
        return Trouble(
            "stop",
            f"{place} says that the quota is used up (HTTP {status})",
            "add credit, then run the same command to go on",
        )
    if status in (401, 403):
        return Trouble("stop", f"{place} refuses the key (HTTP {status})", f"check the key in {key_env}")
    if status == 404:
        return Trouble("stop", f"{place} has no model {model!r} (HTTP 404)", "check model and base_url")
    if status in (429, 503, 529):
        return Trouble("busy", answers, wait=retry_after(headers))
    if status in (408, 409, 425) or status >= 500:
        return Trouble("again", answers, wait=retry_after(headers))
    return Trouble("never", answers)


def speaks_otherwise(place: str) -> Trouble:
    """Return the trouble with a service that answers something else than JSON of the right shape."""
    return Trouble(
        "again", f"{place} does not answer as OpenAI's chat API does", "check base_url: it often ends in /v1"
    )


def _read_body(place: str, raw: bytes) -> Reply | Trouble:
    try:
        row = json.loads(raw.decode("utf-8"))
        return reply_of(row)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return speaks_otherwise(place)


def reply_of(row: Any) -> Reply:
    """Return the reply in a chat completion object; one of another shape is a ``TypeError`` or ``KeyError``."""
    choices = row["choices"]
    if not isinstance(choices, list):
        raise TypeError("choices")
    usage = row.get("usage") or {}
    counts = (_count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")))
    if not choices:
        return Reply("", "stop", *counts)
    text = choices[0]["message"].get("content")
    if not isinstance(text, str | None):
        raise TypeError("content")
    # What no file can hold in UTF-8 does not come in.
    text = (text or "").encode("utf-8", "replace").decode("utf-8").strip()
    return Reply(text, str(choices[0].get("finish_reason") or "stop"), *counts)


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value >= 0 else 0


def retry_after(headers: Mapping[str, str]) -> float:
    """Return how many seconds a service asks to wait, 0 where it does not say.

    A date is taken against the service's own clock, so that a wrong one here does no harm.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        try:
            seconds = float(value) * unit
        except ValueError:
            seconds = _until(value, headers.get("date", "")) if value else 0.0
        if seconds > 0 and math.isfinite(seconds):
            return seconds
    return 0.0


def _until(date: str, now: str) -> float:
    try:
        return (parsedate_to_datetime(date) - parsedate_to_datetime(now)).total_seconds()
    except (ValueError, TypeError):
        return 0.0


def _said(raw: bytes) -> str:
    """Return the message of an error body, or its beginning, as one line that is safe to show."""
    text = raw[:4000].decode("utf-8", "replace")
    try:
        row = json.loads(raw)
        error = row.get("error") if isinstance(row, dict) else None
        text = error.get("message", "") if isinstance(error, dict) else error if isinstance(error, str) else ""
    except (ValueError, RecursionError):
        pass
    return one_line(text)


def one_line(text: object) -> str:
    """Return a text as one short line that is safe to show on a terminal."""
    return printable(" ".join(str(text).split()))[:200]
