"""The batch interface of OpenAI-compatible services: upload a file of requests, wait for hours, collect; half the price."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from camelbell_core.errors import CamelBellError
from camelbell_core.journal import Journal, read_rows
from camelbell_core.service.endpoint import Endpoint, Request, count_tokens
from camelbell_core.service.ledger import Ledger
from camelbell_core.service.replies import Reply, one_line, read_reply, reply_of

if TYPE_CHECKING:
    from openai import OpenAI

_MOST_REQUESTS, _MOST_BYTES = 50_000, 100 * 2**20  # of one file, as OpenAI's service takes it
_OVER = ("completed", "failed", "expired", "cancelled")


@dataclass
class _Sent:
    """A batch as batches.jsonl tells it: noted before it is sent, and again with the service's id for it."""

    token: str
    keys: list[str]
    batch: str = ""


def collect(
    endpoint: Endpoint, requests: Iterable[Request], ledger: Ledger, folder: Path
) -> Generator[tuple[Request, Reply], None, None]:
    """Yield each request with its reply when its batch is over.

    What was sent is remembered in ``batches.jsonl``: the same command, days later, on the same workspace, collects it
    and sends nothing twice; a batch that was made when the program was killed is found again by its metadata.
    """
    wanted: dict[str, list[Request]] = {}
    for request in requests:
        reply = ledger.get(request.key)
        if reply is not None:
            yield request, reply
        else:
            wanted.setdefault(request.key, []).append(request)
    file = folder / "batches.jsonl"
    with Journal(file) as journal, _open_client(endpoint) as client, _explained(endpoint):
        waiting = _still_open(client, file, journal)
        known = {key for sent in waiting for key in sent.keys}
        new, why = _affordable(endpoint, ledger, [group[0] for key, group in wanted.items() if key not in known])
        for part in _files(new):
            waiting.append(_send(client, journal, part))
        failed: list[str] = []
        for request, reply in _arriving(endpoint, client, journal, waiting, ledger, wanted, failed):
            yield request, reply
    if why:
        raise CamelBellError(why, "raise it, then run the same command to go on")
    if wanted:
        first = f": {failed[0]}" if failed else ""
        raise CamelBellError(
            f"{sum(map(len, wanted.values()))} requests were not answered by the batches{first}",
            "run the same command to send them again",
        )


def _still_open(client: OpenAI, file: Path, journal: Journal) -> list[_Sent]:
    """Return the batches that were sent and not collected yet."""
    sent: dict[str, _Sent] = {}
    for _, row in read_rows(file):
        if "keys" in row:
            sent[row["token"]] = _Sent(row["token"], row["keys"])
        elif "over" in row:
            sent.pop(row["token"], None)
        elif row.get("token") in sent:
            sent[row["token"]].batch = row["batch"]
    lost = {token for token, one in sent.items() if not one.batch}
    if lost:  # killed between the sending and the noting
        for batch in client.batches.list():
            token = (batch.metadata or {}).get("camelbell", "")
            if token in lost:
                sent[token].batch = batch.id
                journal.append({"token": token, "batch": batch.id})
    for token in lost:
        if not sent[token].batch:
            journal.append({"token": token, "over": "never sent"})
            del sent[token]
    return list(sent.values())


def _affordable(endpoint: Endpoint, ledger: Ledger, requests: list[Request]) -> tuple[list[Request], str]:
    """Return the requests that budget and token limit allow, and why there are not more."""
    tokens_in = tokens_out = 0
    for place, request in enumerate(requests):
        tokens_in += request.tokens_in
        tokens_out += int(request.body.get("max_tokens") or endpoint.max_tokens)
        why = endpoint.refusal(ledger.spent, tokens_in, tokens_out)
        if why:
            return requests[:place], why
    return requests, ""


def _files(requests: list[Request]) -> Iterator[list[tuple[str, bytes]]]:
    """Yield the key and the line of each request, in groups that one file may hold."""
    part: list[tuple[str, bytes]] = []
    size = 0
    for request in requests:
        row = {"custom_id": request.key, "method": "POST", "url": "/v1/chat/completions", "body": request.body}
        line = json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        if part and (len(part) >= _MOST_REQUESTS or size + len(line) > _MOST_BYTES):
            yield part
            part, size = [], 0
        part.append((request.key, line))
        size += len(line)
    if part:
        yield part


def _send(client: OpenAI, journal: Journal, part: list[tuple[str, bytes]]) -> _Sent:
    sent = _Sent(uuid4().hex, [key for key, _ in part])
    journal.append({"token": sent.token, "keys": sent.keys})
    file = client.files.create(file=("requests.jsonl", b"".join(line for _, line in part)), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"camelbell": sent.token},
    )
    sent.batch = batch.id
    journal.append({"token": sent.token, "batch": batch.id})
    return sent


def _arriving(
    endpoint: Endpoint,
    client: OpenAI,
    journal: Journal,
    waiting: list[_Sent],
    ledger: Ledger,
    wanted: dict[str, list[Request]],
    failed: list[str],
) -> Iterator[tuple[Request, Reply]]:
    """Yield what the batches bring as each is over, and take it out of ``wanted``; note what failed."""
    while waiting:
        for sent in list(waiting):
            batch = client.batches.retrieve(sent.batch)
            if batch.status not in _OVER:
                continue
            errors = batch.errors.data if batch.errors and batch.errors.data else []
            failed += [one_line(error.message) for error in errors if error.message]
            for file in (batch.output_file_id, batch.error_file_id):
                for key, outcome in _outcomes(endpoint, client.files.content(file).content if file else b""):
                    if isinstance(outcome, str):
                        failed.append(outcome)
                        continue
                    ledger.put(key, outcome, endpoint.cost(outcome.tokens_in, outcome.tokens_out))
                    for request in wanted.pop(key, ()):
                        yield request, outcome
            journal.append({"token": sent.token, "over": batch.status})
            waiting.remove(sent)
        if waiting:
            sleep(endpoint.poll)


def _outcomes(endpoint: Endpoint, lines: bytes) -> Iterator[tuple[str, Reply | str]]:
    """Yield the reply of each line of a result file, or why there is none; the lines are in any order."""
    for line in lines.split(b"\n"):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            key, response = row["custom_id"], row.get("response") or {}
            if row.get("error"):
                yield key, one_line(row["error"].get("message", row["error"]))
            elif response["status_code"] == 200:
                reply = reply_of(response["body"])
                yield key, replace(reply, tokens_out=reply.tokens_out or count_tokens(reply.text))
            else:
                body = json.dumps(response.get("body")).encode()
                outcome = read_reply(
                    endpoint.place, endpoint.model, endpoint.key_env, response["status_code"], {}, body
                )
                yield key, getattr(outcome, "message", "")
        except (ValueError, TypeError, KeyError, AttributeError):
            yield "", f"a line of the result is of no known form: {one_line(line.decode('utf-8', 'replace'))[:80]}"


def _open_client(endpoint: Endpoint) -> Any:
    from openai import OpenAI

    return closing(
        OpenAI(api_key=endpoint.key(), base_url=endpoint.url, max_retries=endpoint.retries, timeout=endpoint.timeout)
    )


class _explained:
    """Turns what the client raises into one line and what to do."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: object) -> None:
        import openai

        place = self.endpoint.place
        if isinstance(error, openai.APIStatusError):
            raw = error.response.content
            outcome = read_reply(place, self.endpoint.model, self.endpoint.key_env, error.status_code, {}, raw)
            if error.status_code == 404:
                raise CamelBellError(f"{place} has no batch interface (HTTP 404)", "use mode: now") from error
            raise CamelBellError(getattr(outcome, "message", ""), getattr(outcome, "hint", "")) from error
        if isinstance(error, openai.APIConnectionError):
            cause = one_line(error.__cause__ or error)
            raise CamelBellError(f"no connection to {place}: {cause}", "run the same command to go on") from error
        if isinstance(error, openai.OpenAIError | json.JSONDecodeError):
            raise CamelBellError(f"{place}: {one_line(error)}", "check base_url") from error
