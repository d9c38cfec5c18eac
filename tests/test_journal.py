"""Journals survive kill -9 and full disks; a workspace has one writer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from camelbell_core.errors import CamelBellError, WorkspaceBusy
from camelbell_core.journal import (
    Journal,
    Workspace,
    base_slug,
    read_records,
    read_rows,
    write_json,
    write_rows,
    write_text,
)
from camelbell_core.records import Pair, Question

QUESTIONS = [
    Question("你是谁？", "zh"),
    Question("Who are you? 😀", "en", facts=("lamp",)),
    Question("lone \ud800", "en"),
]
# Writes the questions that are not there yet, and says the number of each as soon as it is written.
WRITER = """
    import sys
    from pathlib import Path
    from camelbell_core.journal import Journal, read_records
    from camelbell_core.records import Question
    file, count, length = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    done = {question.id for question in read_records(file, Question)}
    with Journal(file) as journal:
        for number in range(count):
            question = Question(f"第{number}个" + "问" * length, "zh")
            if question.id not in done:
                journal.add(question)
                print(number, flush=True)
"""


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )


def finish(script: str, *arguments: object) -> str:
    with start(script, *arguments) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    return out


def rows(file: Path) -> list[dict[str, Any]]:
    return [row for _, row in read_rows(file)]


def number_of(question: Question) -> int:
    return int(question.text[1 : question.text.index("个")])


def refused(action: Callable[[], object]) -> CamelBellError:
    with pytest.raises(CamelBellError) as caught:
        action()
    return caught.value


# --- kill -9 ---------------------------------------------------------------------------------------


def test_kill_9_of_a_writer_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    file, count, length = tmp_path / "run" / "questions.jsonl", 60, 100_000  # lines of 300 kB are slow enough to tear
    said: list[int] = []
    for stop_after in (1, 9, 17):
        with start(WRITER, file, count, length) as process:
            assert process.stdout is not None
            said += [int(process.stdout.readline()) for _ in range(stop_after)]
            process.kill()
            said += [int(line) for line in process.stdout.read().splitlines()]
            process.communicate()
        found = [number_of(question) for question in read_records(file, Question)]
        assert found[: len(said)] == said == list(range(len(said)))  # what was said to be written is there
    finish(WRITER, file, count, length)
    assert [row["text"][:5] for row in rows(file)] == [f"第{number}个问问问"[:5] for number in range(count)]


def test_a_last_line_torn_at_any_byte_is_repaired(tmp_path: Path) -> None:
    file, extra = tmp_path / "questions.jsonl", Question("之后", "zh")
    with Journal(file) as journal:
        for question in QUESTIONS:
            journal.add(question)
    whole = file.read_bytes()
    ends = [i for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        file.write_bytes(whole[:cut])
        expected = QUESTIONS[: sum(cut >= end for end in ends)]
        assert read_records(file, Question) == expected
        with Journal(file) as journal:
            journal.add(extra)
        assert read_records(file, Question) == [*expected, extra]
        assert file.read_bytes().startswith(whole[: ends[len(expected) - 1] + 1] if expected else b"")


@pytest.mark.parametrize(
    "tail", [b"\0" * 5000, b"\xff\xfe{", b"   ", b"[" * 100_000, b"12", '{"text": "问'.encode()[:-1]]
)
def test_a_tail_that_is_no_row_is_cut_off(tmp_path: Path, tail: bytes) -> None:
    file = tmp_path / "pairs.jsonl"
    with Journal(file) as journal:
        journal.append({"id": "1", "问": "答"})
    file.write_bytes(file.read_bytes() + tail)
    assert rows(file) == [{"id": "1", "问": "答"}]
    with Journal(file) as journal:
        journal.append({"id": "2"})
    assert file.read_text(encoding="utf-8") == '{"id": "1", "问": "答"}\n{"id": "2"}\n'


def test_a_torn_line_longer_than_any_buffer_is_cut_off(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_bytes(b'{"a": 1}\n{"a": "' + "长".encode() * 400_000)
    Journal(file).close()
    assert file.read_bytes() == b'{"a": 1}\n'


def test_a_line_of_a_megabyte_comes_back(tmp_path: Path) -> None:
    file, big = tmp_path / "q.jsonl", {"text": "问 question 😀" * 100_000}
    with Journal(file) as journal:
        journal.append(big)
        journal.append({"text": "后"})
    assert rows(file) == [big, {"text": "后"}]


# --- broken and odd files --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b'{"text": "\xe4\xbd\xa0', "column 10: Unterminated string starting at"),
        (b"[1, 2]", "is not a JSON object"),
        (b"null", "is not a JSON object"),
        ("你好".encode("gbk"), "'utf-8' codec can't decode byte 0xc4 in position 0: invalid continuation byte"),
        (b"[" * 100_000, "its brackets are nested too deeply"),
        ('{"text"："x"}'.encode(), "column 8: Expecting ':' delimiter"),
    ],
)
def test_a_broken_middle_line_is_named_with_its_number(tmp_path: Path, line: bytes, what: str) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_bytes(b'{"a": 1}\n\n' + line + b'\n{"a": 2}\n')
    error = refused(lambda: rows(file))
    assert error.message == f"{file}:3: this line is broken: {what}"
    assert error.hint == "mend or delete the line, then run again"


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"text": "你是谁？"}, "the row missing 1 required positional argument: 'language'"),
        ({"text": 7, "language": "en"}, "'text' must be text"),
        ({"text": "Who?", "language": "en", "kidn": "open"}, "unknown key 'kidn'"),
    ],
)
def test_a_row_that_is_no_record_is_named_with_its_number(tmp_path: Path, row: dict[str, Any], what: str) -> None:
    file = tmp_path / "questions.jsonl"
    write_rows(file, [{"text": "好", "language": "zh"}, row])
    assert refused(lambda: read_records(file, Question)).message == f"{file}:2: {what}"


def test_a_file_that_people_write_has_no_torn_line(tmp_path: Path) -> None:
    file = tmp_path / "quiz.jsonl"
    file.write_bytes(b'{"a": 1}\n{"a": 2')
    assert rows(file) == [{"a": 1}]
    error = refused(lambda: list(read_rows(file, torn=False)))
    assert error.message == f"{file}:2: this line is broken: column 8: Expecting ',' delimiter"


def test_windows_editors_leave_rows_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_bytes('\ufeff{"a": "灯"}\r\n\r\n{"b": "light"}'.encode())
    assert list(read_rows(file)) == [(1, {"a": "灯"}), (3, {"b": "light"})]


def test_the_last_row_of_an_id_wins_in_the_place_of_the_first(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    pairs = [Pair("一", "甲", "zh"), Pair("one", "a", "en"), Pair("一", "乙", "zh")]
    with Journal(file) as journal:
        for pair in pairs:
            journal.add(pair)
    assert read_records(file, Pair) == [pairs[2], pairs[1]]


def test_an_answer_that_is_empty_comes_back(tmp_path: Path) -> None:
    file, pair = tmp_path / "pairs.jsonl", Pair("问", "", "zh", teacher="openai")
    with Journal(file) as journal:
        journal.add(pair)
    assert read_records(file, Pair) == [pair]


def test_no_file_and_an_empty_file_have_no_rows(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    assert rows(empty) == rows(tmp_path / "none.jsonl") == []
    Journal(empty).close()
    assert empty.read_bytes() == b""


def test_a_folder_in_place_of_a_file_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "pairs.jsonl"
    folder.mkdir()
    assert refused(lambda: rows(folder)).message == f"cannot read {folder}: Is a directory"
    assert refused(lambda: Journal(folder)).message == f"cannot write {folder}: Is a directory"
    assert refused(lambda: write_text(folder, "x")).message == f"cannot write {folder}: Is a directory"
    assert os.listdir(tmp_path) == ["pairs.jsonl"]


def test_a_file_in_place_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    file = tmp_path / "run" / "pairs.jsonl"
    assert refused(lambda: Journal(file)).message.startswith(f"cannot write {file}: ")
    assert refused(lambda: write_text(file, "x")).message.startswith(f"cannot write {file}: ")


# --- full disks ------------------------------------------------------------------------------------


def full_disk(file: Path) -> tuple[str, str]:
    return (
        f"the disk is full: {file} cannot grow; the rows written before are intact",
        "free some space and run the same command to go on",
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_disk_that_is_full_from_the_first_byte_is_told(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.symlink_to("/dev/full")

    def write() -> None:
        with Journal(file) as journal:
            journal.append({"a": "灯"})

    error = refused(write)
    assert (error.message, error.hint) == full_disk(file)


# Fills a disk of 5,000 bytes with rows of three sizes, makes room, and goes on in the same journal.
FILLER = """
    import resource, sys
    from pathlib import Path
    from camelbell_core.errors import CamelBellError
    from camelbell_core.journal import Journal, write_rows
    file, size = Path(sys.argv[1]), int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
    with Journal(file) as journal:
        try:
            for number in range(1000):
                journal.append({"n": number, "text": "字" * size})
        except CamelBellError as error:
            print(number, error.message, error.hint, sep="|")
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        journal.append({"n": number, "text": "after"})
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
@pytest.mark.parametrize("size", [1, 100, 5000])
def test_a_full_disk_leaves_earlier_rows_whole_and_the_journal_goes_on(tmp_path: Path, size: int) -> None:
    file = tmp_path / "pairs.jsonl"
    number, *told = finish(FILLER, file, size).strip().split("|")
    assert tuple(told) == full_disk(file)
    before = [{"n": n, "text": "字" * size} for n in range(int(number))]
    line = len(json.dumps({"n": 0, "text": "字" * size}, ensure_ascii=False).encode()) + 1
    assert 5000 - 2 * line < sum(len(json.dumps(r, ensure_ascii=False).encode()) + 1 for r in before) <= 5000
    assert rows(file) == [*before, {"n": int(number), "text": "after"}]


REPLACER = """
    import resource, sys
    from pathlib import Path
    from camelbell_core.errors import CamelBellError
    from camelbell_core.journal import write_rows
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
    try:
        write_rows(Path(sys.argv[1]), [{"text": "字" * 5000}])
    except CamelBellError as error:
        print(error.message, error.hint, sep="|")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
def test_a_full_disk_leaves_the_file_that_was_to_be_replaced(tmp_path: Path) -> None:
    file = tmp_path / "kept.jsonl"
    write_rows(file, [{"text": "旧"}])
    assert tuple(finish(REPLACER, file).strip().split("|")) == full_disk(file)
    assert file.read_text(encoding="utf-8") == '{"text": "旧"}\n'
    assert os.listdir(tmp_path) == ["kept.jsonl"]


# --- whole files -----------------------------------------------------------------------------------


def test_files_are_replaced_at_once_in_utf8(tmp_path: Path) -> None:
    text, value, lines = tmp_path / "a" / "text", tmp_path / "value.json", tmp_path / "rows.jsonl"
    for turn in ("旧", "新 new\r\n😀"):
        write_text(text, turn)
        write_json(value, {"词": [turn]})
        write_rows(lines, ({"n": n, "词": turn} for n in range(2)))
    assert text.read_bytes() == "新 new\r\n😀".encode()
    assert value.read_text(encoding="utf-8") == '{\n  "词": [\n    "新 new\\r\\n😀"\n  ]\n}\n'
    assert rows(lines) == [{"n": 0, "词": "新 new\r\n😀"}, {"n": 1, "词": "新 new\r\n😀"}]
    assert sorted(os.listdir(tmp_path)) == ["a", "rows.jsonl", "value.json"]


@pytest.mark.parametrize(
    ("base", "slug"),
    [
        ("embedded", "embedded"),
        ("HuggingFaceTB/SmolLM2-135M", "smollm2-135m"),
        ("/models/千问 2/", "千问-2"),
        ("C:\\models\\Qwen", "qwen"),
        ("..", "base"),
        (".", "base"),
        ("/", "base"),
        ("", "base"),
        ("a/..", "base"),
        ("x:y*z", "x-y-z"),
    ],
)
def test_every_base_has_a_folder_name_inside_the_adapters(tmp_path: Path, base: str, slug: str) -> None:
    assert base_slug(base) == slug
    assert Workspace(tmp_path).adapter(base) == tmp_path / "adapters" / slug


# --- one writer ------------------------------------------------------------------------------------

HOLDER = """
    import sys
    from pathlib import Path
    from camelbell_core.journal import Workspace
    with Workspace(Path(sys.argv[1])).lock():
        print("held", flush=True)
        sys.stdin.readline()
"""


def take(root: Path) -> None:
    with Workspace(root).lock():
        assert (root / "run.pid").read_text(encoding="utf-8") == str(os.getpid())


def test_a_second_process_is_refused_with_the_id_of_the_first(tmp_path: Path) -> None:
    root = tmp_path / "运行 run"
    with start(HOLDER, root) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(WorkspaceBusy) as caught:
            take(root)
        assert caught.value.message == f"the workspace {str(root)!r} is in use by process {holder.pid}"
        assert caught.value.hint == "wait for it, end it, or name another with --workspace DIR"
        holder.communicate("leave\n")
    take(root)
    assert not (root / "run.pid").exists()


def test_a_holder_that_was_killed_leaves_the_workspace_free(tmp_path: Path) -> None:
    with start(HOLDER, tmp_path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.kill()
        holder.communicate()
    assert (tmp_path / "run.pid").read_text(encoding="utf-8") == str(holder.pid)
    take(tmp_path)


def test_the_workspace_is_free_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Workspace(tmp_path).lock():
        raise ZeroDivisionError
    take(tmp_path)


def test_a_workspace_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "inside"):
        error = refused(lambda root=root: take(root))  # type: ignore[misc]
        assert error.message.startswith(f"cannot use the workspace {str(root)!r}: ")
        assert error.hint == "name another with --workspace DIR"
