"""Kept pairs as other trainers read them, and back: Alpaca, ShareGPT, OpenAI messages, preference pairs, Parquet.

System text, history, question and answer are those of our own training examples: with a chat template a peer that
trains on them builds our prompt, token for token. Without one (``layout: plain``) our prompt is labelled lines that no
peer builds. The whole pair stands in the column ``camelbell``, so that nothing is lost on the way back.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from camelbell_core.errors import CamelBellError
from camelbell_core.journal import read_records, read_rows, write_json, write_rows, write_text
from camelbell_core.pipeline import Run, judge_pairs, kept_examples, teacher_tools
from camelbell_core.prompts import Prompt, as_messages
from camelbell_core.records import Pair, Question, from_row, to_row
from camelbell_core.roles import AnswerTeacher, Filter

Example = tuple[Pair, Prompt, str]
COLUMN = "camelbell"
TRUTH = ("contradiction", "unsupported", "unknown_names", "evasive", "persona_break", "misplaced")


def kept_rows(run: Run) -> list[Example]:
    """Return each kept pair with its prompt and answer, as they are trained on."""
    pairs = read_records(run.workspace.kept, Pair)
    if not pairs:
        raise CamelBellError("there are no kept pairs to export", f"make some: `camelbell filter {run.character.name}`")
    return [(pair, prompt, answer) for pair, (prompt, answer) in zip(pairs, kept_examples(run, pairs), strict=True)]


# --- one row of each format -------------------------------------------------------------------------


def alpaca(pair: Pair, prompt: Prompt, answer: str) -> dict[str, Any]:
    """Return a row of LLaMA-Factory's Alpaca: with system text and history."""
    system, *said, question = as_messages(prompt)
    history = [[said[place].content, said[place + 1].content] for place in range(0, len(said) - 1, 2)]
    row = {"instruction": question.content, "input": "", "output": answer, "system": system.content}
    return {**row, "history": history, COLUMN: _kept(pair)}


def sharegpt(pair: Pair, prompt: Prompt, answer: str) -> dict[str, Any]:
    """Return a row of ShareGPT."""
    system, *said = as_messages(prompt)
    names = {"user": "human", "assistant": "gpt"}
    turns = [{"from": names[message.role], "value": message.content} for message in said]
    return {
        "conversations": [*turns, {"from": "gpt", "value": answer}],
        "system": system.content,
        COLUMN: _kept(pair),
    }


def messages(pair: Pair, prompt: Prompt, answer: str) -> dict[str, Any]:
    """Return a row of OpenAI messages."""
    return {"messages": [*_turns(prompt), {"role": "assistant", "content": answer}], COLUMN: _kept(pair)}


def _turns(prompt: Prompt) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in as_messages(prompt)]


def _kept(pair: Pair) -> str:
    return json.dumps(to_row(pair), ensure_ascii=False)


# --- whole files ------------------------------------------------------------------------------------


def _write_json(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    write_json(file, list(rows))


def _write_parquet(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise CamelBellError("Parquet needs pyarrow", "pip install 'camelbell[parquet]'") from error
    draft = file.with_name(file.name + ".new")
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), draft)
    draft.replace(file)


_SHAREGPT = {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt"}
_OPENAI = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "system_tag": "system",
}
# Format: how a row is made, how the rows are written, the ending, and LLaMA-Factory's entry.
_Row = Callable[[Pair, Prompt, str], dict[str, Any]]
_Write = Callable[[Path, Iterable[dict[str, Any]]], None]
FORMATS: dict[str, tuple[_Row, _Write, str, dict[str, Any]]] = {
    "alpaca": (
        alpaca,
        _write_json,
        "json",
        {
            "formatting": "alpaca",
            "columns": {
                "prompt": "instruction",
                "query": "input",
                "response": "output",
                "system": "system",
                "history": "history",
            },
        },
    ),
    "sharegpt": (
        sharegpt,
        _write_json,
        "json",
        {
            "formatting": "sharegpt",
            "columns": {"messages": "conversations", "system": "system"},
            "tags": _SHAREGPT,
        },
    ),
    "messages": (
        messages,
        write_rows,
        "jsonl",
        {"formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": _OPENAI},
    ),
    "parquet": (
        messages,
        _write_parquet,
        "parquet",
        {"formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": _OPENAI},
    ),
}


def export(run: Run, kind: str, folder: Path) -> tuple[Path, int]:
    """Write the kept pairs in a format, with what LLaMA-Factory and axolotl need to read them, and a card; return file and
    number of rows."""
    make, write, ending, entry = FORMATS[kind]
    examples = kept_rows(run)
    name = f"{run.character.name}-{kind}"
    file = folder / f"{name}.{ending}"
    write(file, (make(*example) for example in examples))
    _describe(run, folder, name, file, entry, [pair for pair, _, _ in examples])
    return file, len(examples)


def export_preferences(
    run: Run, folder: Path, chosen_by: str = "canon", because: Sequence[str] = TRUTH
) -> tuple[Path, int]:
    """Write the answers that failed the truth as ``rejected``, beside one that passes all filters as ``chosen``.

    ``chosen_by`` is the teacher that answers these questions again; ``because`` names the filters whose rejections count.
    Two files: messages, as TRL reads them, and Alpaca's ranking form for LLaMA-Factory.
    """
    failed = {}
    for _, row in read_rows(run.workspace.rejected):
        if row.pop("filter") in because:
            del row["reason"]
            pair = from_row(Pair, row)
            failed[pair.id] = pair
    chosen = _passing(run, list(failed.values()), chosen_by)
    examples = list(zip(chosen, (prompt for prompt, _ in kept_examples(run, chosen)), strict=True)) if chosen else []
    rows, ranking = [], []
    for pair, prompt in examples:
        bad = failed[pair.id]
        answers = {"chosen": pair.answer, "rejected": bad.answer}
        as_turns = {name: [{"role": "assistant", "content": text}] for name, text in answers.items()}
        rows.append({"prompt": _turns(prompt), **as_turns})
        ranking.append({key: value for key, value in alpaca(pair, prompt, "").items() if key != "output"} | answers)
    name = f"{run.character.name}-preference"
    file = folder / f"{name}.jsonl"
    write_rows(file, rows)
    second = folder / f"{name}-ranking.json"
    write_json(second, ranking)
    columns = {"prompt": "instruction", "query": "input", "chosen": "chosen", "rejected": "rejected"}
    entry = {"ranking": True, "columns": {**columns, "system": "system", "history": "history"}}
    _note_entry(folder, name, {"file_name": second.name, **entry})
    return file, len(rows)


def _passing(run: Run, failed: list[Pair], chosen_by: str) -> list[Pair]:
    """Return new answers to the questions of pairs, those that pass all filters and say something else."""
    questions = [
        Question(p.question, p.language, p.kind, p.generator, p.seed, {}, p.facts, "", p.at, p.history) for p in failed
    ]
    before = {pair.id: pair.answer for pair in failed}
    teacher = run.registry.build(AnswerTeacher, "answer_teachers", chosen_by)
    tools = teacher_tools(run, _no_model)
    again = [pair for pair in teacher.answer(questions, tools) if pair.answer != before[pair.id]] if questions else []
    judges = [run.registry.build(Filter, "filters", ref) for ref in run.character.config.filters]
    return [pair for pair, verdict in judge_pairs(run, judges, again) if verdict is None] if again else []


def _no_model() -> Any:
    raise CamelBellError("preference pairs are made without loading a model", "name another teacher with --chosen-by")


# --- what other programs read beside the data -------------------------------------------------------


def _describe(run: Run, folder: Path, name: str, file: Path, entry: dict[str, Any], pairs: Sequence[Pair]) -> None:
    import yaml

    _note_entry(folder, name, {"file_name": file.name, **entry})
    if entry["columns"].get("messages") == "messages":
        kind = "parquet" if file.suffix == ".parquet" else "json"
        data = {"path": file.name, "ds_type": kind, "type": "chat_template", "field_messages": "messages"}
        text = yaml.safe_dump({"datasets": [data], "train_on_inputs": False}, sort_keys=False, allow_unicode=True)
        write_text(
            folder / "axolotl.yaml", f"# base_model and adapter are yours to choose; paths are from here\n{text}"
        )
    write_text(folder / "README.md", card(run, pairs))


def _note_entry(folder: Path, name: str, entry: dict[str, Any]) -> None:
    """Add an entry to dataset_info.json; those of other data stay."""
    info = folder / "dataset_info.json"
    try:
        known = json.loads(info.read_text(encoding="utf-8")) if info.exists() else {}
    except ValueError as error:
        raise CamelBellError(f"{info} is not JSON: {error}", "mend or move it") from error
    write_json(info, {**known, name: entry})


def card(run: Run, pairs: Sequence[Pair]) -> str:
    """Return a dataset card: what is in it, how it was made, what was rejected."""
    config, count = run.character.config, len(pairs)
    head = [f"license: {config.license.lower()}"] if config.license else []
    head += [
        "language:",
        *(f"- {language}" for language in run.character.languages),
        "task_categories:",
        "- text-generation",
    ]
    tables = {
        "language": Counter(pair.language for pair in pairs),
        "kind of question": Counter(pair.kind for pair in pairs),
        "question generator": Counter(pair.generator or "by hand" for pair in pairs),
        "teacher": Counter(" ".join(filter(None, (pair.teacher, pair.model))) or "by hand" for pair in pairs),
    }
    lines = ["---", *head, "---", "", f"# {run.character.title('en')}: {count:,} questions and answers", ""]
    lines += [config.description, ""] if config.description else []
    for title, counted in tables.items():
        lines += [
            f"| {title} | pairs |",
            "| --- | --- |",
            *(f"| {name} | {n:,} |" for name, n in counted.most_common()),
            "",
        ]
    report = run.workspace.reports / "filter.json"
    if report.exists():
        flow = json.loads(report.read_text(encoding="utf-8"))["filters"]
        lines += ["| filter | in | out |", "| --- | --- | --- |"]
        lines += [f"| {name} | {came:,} | {passed:,} |" for name, (came, passed) in flow.items()]
        lines.append("")
    lines.append("Made with CamelBell. The column `camelbell` holds each pair with its facts and where it comes from.")
    return "\n".join(lines) + "\n"


# --- and back ---------------------------------------------------------------------------------------


def read_export(file: Path) -> list[Pair]:
    """Return the pairs of a file that ``export`` wrote, as they were."""
    rows: Iterable[tuple[int, Any]]
    try:
        if file.suffix == ".parquet":
            import pyarrow.parquet as pq

            rows = enumerate(pq.read_table(file).to_pylist(), 1)
        elif file.suffix == ".json":
            rows = enumerate(json.loads(file.read_text(encoding="utf-8")), 1)
        else:
            rows = read_rows(file, torn=False)
        return [_pair_of(file, number, row) for number, row in rows]
    except (OSError, ValueError) as error:
        raise CamelBellError(f"cannot read {file}: {error}") from error


def _pair_of(file: Path, number: int, row: Any) -> Pair:
    try:
        return from_row(Pair, json.loads(row[COLUMN]))
    except (KeyError, TypeError, ValueError) as error:
        raise CamelBellError(
            f"{file}: row {number} has no pair in its column {COLUMN!r}",
            "files of other tools are read by the question generator `import`",
        ) from error
