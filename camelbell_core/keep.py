"""Exactly so many pairs that pass: questions are asked, answered and judged until they are there, or it is said why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from camelbell_core.errors import CamelBellError
from camelbell_core.journal import read_records, write_json, write_rows
from camelbell_core.pipeline import Run, filter_pairs, make_answers, make_questions
from camelbell_core.records import Pair, to_row

if TYPE_CHECKING:
    from camelbell_core.roles import LanguageModel

_FIRST_GUESS = 0.8  # of the share of pairs that pass
_ENOUGH = 200  # pairs in a row of which hardly any passed, before it is given up
_HARDLY = 0.01
_MORE = 1.1  # so many more questions than the share says, so that few rounds are needed


def keep_exactly(
    run: Run, count: int, load_model: Callable[[], LanguageModel], options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Bring kept.jsonl to exactly ``count`` pairs that passed all filters; the report's ``stopped`` says why it cannot.

    Questions go on from those that are there. What passes beyond ``count`` stays in pairs.jsonl for a larger one. A teacher that
    stops, at its budget for instance, is told after what it answered is judged.
    """
    asked = passed = 0
    report: dict[str, Any] = {}
    stopped = ""
    while True:
        before_asked, before_passed = asked, passed
        share = max(_HARDLY, passed / asked) if asked else _FIRST_GUESS
        made = make_questions(run, before_asked + max(1, round((count - passed) / share * _MORE)))
        failure = _answered(run, load_model, options)
        report = filter_pairs(run)
        asked, passed = report["in"], report["kept"]
        if passed >= count:
            break
        if failure is not None:
            _write(run, report, count, str(failure))
            raise CamelBellError(f"{failure.message}; {passed} of {count} pairs kept", failure.hint) from failure
        if asked == before_asked:
            stopped = made["short"] or "nothing new came"
        elif asked - before_asked >= _ENOUGH and passed - before_passed < (asked - before_asked) * _HARDLY:
            stopped = f"of the last {asked - before_asked} pairs {max(0, passed - before_passed)} passed"
        if stopped:
            break
    return _write(run, report, count, stopped)


def _answered(
    run: Run, load_model: Callable[[], LanguageModel], options: Mapping[str, Any] | None
) -> CamelBellError | None:
    """Have the questions answered; return why the teacher stopped, if it did and there is something to judge."""
    try:
        make_answers(run, load_model, options)
    except CamelBellError as error:
        if not run.workspace.pairs.exists() or not read_records(run.workspace.pairs, Pair):
            raise
        return error
    return None


def _write(run: Run, report: dict[str, Any], count: int, stopped: str) -> dict[str, Any]:
    """Cut kept.jsonl to the count, and add to the filter's report what was wanted and why it stopped."""
    kept = read_records(run.workspace.kept, Pair)
    spare = max(0, len(kept) - count)
    if spare:
        write_rows(run.workspace.kept, map(to_row, kept[:count]))
    by_filter = Counter(report["rejected"]).most_common()
    why = ", ".join(f"{name} {number / report['in']:.0%}" for name, number in by_filter)
    if stopped and why:
        stopped += f"; rejected: {why}"
    report = {**report, "kept": min(count, len(kept)), "wanted": count, "spare": spare, "stopped": stopped}
    write_json(run.workspace.reports / "filter.json", report)
    return report
