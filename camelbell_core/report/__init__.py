"""One page on a run: what was asked, answered, kept and rejected, what it cost, how training and evaluation went."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

from camelbell_core import diversity
from camelbell_core.journal import read_records, read_rows, write_text
from camelbell_core.pipeline import Run
from camelbell_core.records import Pair, Question
from camelbell_core.report import charts
from camelbell_core.text import squash

_SAMPLES = 2000  # rows that the page lets people search
_EXAMPLES = 5  # rejected pairs shown a filter
_POINTS = 300  # of a curve


def write_report(run: Run, file: Path | None = None) -> Path:
    """Write the page of a run as one HTML file that needs no network; return its path."""
    from jinja2 import Environment

    page = files("camelbell_core.report").joinpath("page.html").read_text(encoding="utf-8")
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(page)
    file = file or run.workspace.reports / "report.html"
    write_text(file, template.render(**gather(run)))
    return file


def gather(run: Run) -> dict[str, Any]:
    """Return all that the page shows; charts are HTML that is safe as it is."""
    from markupsafe import Markup

    space, character = run.workspace, run.character
    questions = read_records(space.questions, Question)
    pairs, kept = read_records(space.pairs, Pair), read_records(space.kept, Pair)
    rejected = [row for _, row in read_rows(space.rejected)]
    measured = diversity.measure(questions, character)
    spent, over_time = _spending(space.root / "replies.sqlite")
    shown = {
        "heat": charts.heat_map(_by_two((q.kind, f"{q.generator or 'by hand'} {q.language}") for q in questions)),
        "entities": charts.heat_map(_entities(run, questions)),
        "askers": charts.bars(measured.askers),
        "question_lengths": charts.columns(*_histogram([len(q.text) for q in questions]), "characters of a question"),
        "answer_lengths": charts.columns(*_histogram([len(p.answer) for p in kept]), "characters of a kept answer"),
        "throughput": charts.line(over_time, "minutes", "replies a minute"),
    }
    return {
        "title": " / ".join(character.config.name.values()),
        "description": character.config.description,
        "tiles": _tiles(questions, pairs, kept, spent),
        "diversity": _measures(measured),
        "charts": {name: Markup(chart) for name, chart in shown.items() if chart},
        "filters": _filters(run, rejected, len(pairs)),
        "duplicates": _duplicates(questions),
        "losses": [(name, Markup(charts.line(points, "step", "loss"))) for name, points in _losses(space.root)],
        "scores": _scores(space.reports),
        "samples": _samples(kept, rejected),
        "of_samples": len(kept) + len(rejected),
    }


def _tiles(
    questions: Sequence[Question], pairs: Sequence[Pair], kept: Sequence[Pair], spent: Mapping[str, float]
) -> list[tuple[str, str]]:
    tiles = [("questions", f"{len(questions):,}"), ("answered", f"{len(pairs):,}"), ("kept", f"{len(kept):,}")]
    tiles.append(("of the answers kept", f"{len(kept) / len(pairs):.1%}" if pairs else "-"))
    if spent:
        tiles += [("requests", f"{spent['requests']:,.0f}"), ("tokens", f"{spent['tokens']:,.0f}")]
        tiles += [("spent", f"{spent['cost']:,.2f}")] if spent["cost"] else []
    return tiles


def _measures(measured: diversity.Diversity) -> list[tuple[str, str]]:
    measures = [
        ("different words or characters / all", f"{measured.distinct_1:.3f}"),
        ("different pairs of them / all", f"{measured.distinct_2:.3f}"),
        ("likeness of the nearest other question", f"{measured.nearest:.2f}"),
        ("kinds of questions", f"{len(measured.kinds):,}"),
    ]
    if measured.known_entities:
        known = f"{measured.entities:,} of {measured.known_entities:,}"
        measures.append(("entities of the canon asked about", known))
    return measures


def _by_two(pairs: Iterable[tuple[str, str]]) -> dict[str, dict[str, int]]:
    table: dict[str, dict[str, int]] = defaultdict(Counter)
    for one, other in pairs:
        table[one][other] += 1
    return dict(sorted(table.items(), key=lambda item: -sum(item[1].values())))


def _entities(run: Run, questions: Sequence[Question]) -> dict[str, dict[str, int]]:
    """Return for each type of entity how many are never asked about, how many a few times, how many often."""
    canon = run.character.canon
    times = Counter(entity for question in questions for entity in canon.names.ids(question.text))
    table: dict[str, dict[str, int]] = {}
    for entity in canon.entities.values():
        row = table.setdefault(
            entity.type or "other", dict.fromkeys(("never asked about", "1 to 4 times", "5 or more"), 0)
        )
        count = times[entity.id]
        row["never asked about" if not count else "1 to 4 times" if count < 5 else "5 or more"] += 1
    return dict(sorted(table.items(), key=lambda item: -sum(item[1].values())))


def _histogram(lengths: Sequence[int]) -> tuple[list[tuple[float, int]], float]:
    """Return counts in about 30 classes up to the longest but one in a hundred, the rest in the last."""
    if not lengths:
        return [], 1
    most = sorted(lengths)[int(len(lengths) * 0.99)] + 1
    step = max(1, -(-most // 30))
    counts = Counter(min(length, most) // step for length in lengths)
    return [(bound * step, counts[bound]) for bound in range(most // step + 1)], step


def _spending(file: Path) -> tuple[dict[str, float], list[tuple[float, float]]]:
    """Return what the replies took, and how many came a minute; breaks of more than ten minutes are left out."""
    if not file.exists():
        return {}, []
    with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as ledger:
        requests, tokens, cost = ledger.execute(
            "select count(*), coalesce(sum(tokens_in + tokens_out), 0), coalesce(sum(cost), 0) from replies"
        ).fetchone()
        times = [at for (at,) in ledger.execute("select at from replies order by at")]
    ledger.close()
    passed, clock = 0.0, []
    for before, now in pairwise(times):
        passed += min(600.0, max(0.0, now - before))
        clock.append(passed / 60)
    if not clock or clock[-1] == 0:
        return {"requests": requests, "tokens": tokens, "cost": cost}, []
    step = clock[-1] / 40
    counts = Counter(min(39, int(minute / step)) for minute in clock)
    return {"requests": requests, "tokens": tokens, "cost": cost}, [(n * step, counts[n] / step) for n in range(40)]


def _filters(run: Run, rejected: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Return each filter with what came, what passed, and examples of what did not."""
    from camelbell_core.character import names_of

    by_filter = defaultdict(list)
    for row in rejected:
        by_filter[row["filter"]].append(row)
    flow = []
    for name in dict.fromkeys((*names_of(run.character.config.filters), *by_filter)):
        rows = by_filter.get(name, [])
        flow.append({"name": name, "in": count, "out": count - len(rows), "examples": rows[:_EXAMPLES]})
        count -= len(rows)
    return flow


def _duplicates(questions: Sequence[Question]) -> list[tuple[str, int]]:
    """Return the questions that are asked most often but for marks and case."""
    first: dict[str, str] = {}
    times: Counter[str] = Counter()
    for question in questions:
        folded = squash(question.text)[0]
        first.setdefault(folded, question.text)
        times[folded] += 1
    return [(first[folded], count) for folded, count in times.most_common(10) if count > 1]


def _losses(root: Path) -> list[tuple[str, list[tuple[float, float]]]]:
    curves = []
    for file in sorted(root.glob("adapters/*/loss.jsonl")):
        points = [(float(row["step"]), float(row["loss"])) for _, row in read_rows(file)]
        curves.append((file.parent.name, points[:: max(1, len(points) // _POINTS)]))
    return [(name, points) for name, points in curves if len(points) > 1]


def _scores(reports: Path) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the tables of all evaluations that were written into the reports folder."""
    found = []
    for file in sorted(reports.glob("*.json")):
        row = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(row, dict) and isinstance(row.get("scores"), list):
            found.append((file.stem, row["scores"]))
    return found


def _samples(kept: Sequence[Pair], rejected: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """Return rows to be searched: kept and rejected ones in proportion, spread over the run."""
    share = min(1.0, _SAMPLES / max(1, len(kept) + len(rejected)))
    rows = [
        {"q": p.question, "a": p.answer, "l": p.language, "k": p.kind, "why": "", "before": " / ".join(p.history)}
        for p in _spread(kept, round(len(kept) * share))
    ]
    for row in _spread(rejected, round(len(rejected) * share)):
        why = f"{row['filter']}: {row['reason']}"
        rows.append(
            {
                "q": row["question"],
                "a": row["answer"],
                "l": row["language"],
                "k": row.get("kind", ""),
                "why": why,
                "before": "",
            }
        )
    return rows


def _spread(items: Sequence[Any], count: int) -> list[Any]:
    return [items[place * len(items) // count] for place in range(count)] if count else []
