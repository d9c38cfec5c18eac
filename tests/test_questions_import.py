import json
from pathlib import Path
from random import Random

import pytest

from camelbell_core.errors import CamelBellError
from camelbell_core.records import Question
from camelbell_plugins.questions_import import ImportQuestions

SEED_DATA = Path(__file__).resolve().parents[2] / "shared/seed-data"


@pytest.fixture
def imported(open_lumen, tmp_path):
    """Import a file that holds the given bytes, text, rows of JSONL (a list), or JSON (a tuple)."""
    run = open_lumen()

    def generate(content, count=1000, name="data.json", **options):
        if isinstance(content, tuple):
            content = json.dumps(list(content), ensure_ascii=False, indent=2)
        if isinstance(content, list):
            content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        part = ImportQuestions(files=(str(tmp_path / name),), **options)
        return list(part.generate(run.character, count, Random(0)))

    return generate


def pairs(questions):
    return [(question.text, question.answer) for question in questions]


ALPACA = {"instruction": "灯塔高吗？", "input": "", "output": "很高。"}
CAPITAL = {"Instruction": "Is it high?", "input": "The light, I mean.", "output": "Very."}
TASK = {
    "id": "seed_task_0",
    "name": "deep",
    "instruction": "回答问题。",
    "instances": [{"input": "海深吗？", "output": "深。"}],
}
SHARE = {
    "conversations": [
        {"from": "system", "value": "You are Lumen."},
        {"from": "human", "value": "Hello?"},
        {"from": "gpt", "value": "Hello."},
        {"from": "human", "value": "冷吗？"},
        {"from": "gpt", "value": "不冷。"},
        {"from": "human", "value": "unanswered"},
    ]
}
OPENAI = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Who"}, {"type": "text", "text": "are you?"}]},
        {"role": "assistant", "content": "Lumen."},
        {"role": "user", "content": "Call it."},
        {"role": "assistant", "content": None, "tool_calls": []},
    ]
}
FORMS = {
    "alpaca": (ALPACA, [("灯塔高吗？", "很高。")]),
    "capital": (CAPITAL, [("Is it high?\nThe light, I mean.", "Very.")]),
    "seed task": (TASK, [("回答问题。\n海深吗？", "深。")]),
    "sharegpt": (SHARE, [("Hello?", "Hello."), ("冷吗？", "不冷。")]),
    "openai": (OPENAI, [("Who\nare you?", "Lumen."), ("Call it.", "")]),
}


@pytest.mark.parametrize("whole", [tuple, list], ids=["json", "jsonl"])
@pytest.mark.parametrize("form", FORMS)
def test_every_known_form_is_read_from_json_and_jsonl(imported, form, whole):
    row, wanted = FORMS[form]
    assert pairs(imported(whole([row]))) == wanted


def test_a_question_tells_its_file_its_number_and_its_language(imported):
    assert imported([ALPACA, CAPITAL], name="old.jsonl") == [
        Question("灯塔高吗？", "zh", "import", "import", "old.jsonl:1", answer="很高。"),
        Question("Is it high?\nThe light, I mean.", "en", "import", "import", "old.jsonl:2", answer="Very."),
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + json.dumps([ALPACA]).encode(),
        b"\xef\xbb\xbf" + json.dumps(ALPACA).encode() + b"\r\n",
        b" \r\n\r\n" + json.dumps([ALPACA], indent=1).replace("\n", "\r\n").encode(),
        json.dumps(ALPACA).encode() + b"\n\n  \n",
        json.dumps(ALPACA).encode(),
    ],
    ids=["bom json", "bom crlf jsonl", "crlf json", "blank lines", "no line break at the end"],
)
def test_byte_order_marks_windows_line_ends_and_blank_lines_are_read(imported, content):
    assert pairs(imported(content)) == [("灯塔高吗？", "很高。")]


def test_each_question_is_taken_once_in_the_order_of_the_file(imported):
    rows = [CAPITAL, ALPACA, {**ALPACA, "output": "不高。"}, TASK]
    assert [text.split("\n")[0] for text, _ in pairs(imported(rows))] == ["Is it high?", "灯塔高吗？", "回答问题。"]


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_no_more_than_asked_for(imported, count):
    assert len(imported([ALPACA, CAPITAL, TASK, SHARE], count)) == count


def test_without_answers_the_questions_come_alone(imported):
    assert pairs(imported([ALPACA, CAPITAL], answers=False)) == [
        ("灯塔高吗？", ""),
        ("Is it high?\nThe light, I mean.", ""),
    ]


def test_templates_are_left_out_and_brackets_in_answered_questions_are_not(imported):
    template = {"instruction": "", "instances": [{"input": "[event]和谁有关？", "output": "10X = 5"}]}
    open_template = {"instruction": "Who is [person]?", "output": ""}
    code = {"instruction": "What is a[i]?", "output": "An element."}
    assert pairs(imported([template, open_template, code])) == [("What is a[i]?", "An element.")]


def test_rows_that_ask_nothing_are_left_out(imported):
    rows = [
        {"instruction": " ", "input": None, "output": "x"},
        {"conversations": []},
        {"messages": [{"role": "assistant", "content": "Hi."}]},
        {"instruction": "x", "instances": []},
    ]
    assert imported(rows) == []


def test_values_that_are_no_text_do_not_stop_the_import(imported):
    rows = [
        {"instruction": "How many?", "input": 5, "output": 99},
        {"instruction": "Why?", "output": None},
        {"instruction": "Half \ud83d?", "output": "\ude00"},
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    assert pairs(imported(lines)) == [("How many?\n5", "99"), ("Why?", ""), ("Half ??", "?")]


def test_a_line_of_a_megabyte_is_read_whole(imported):
    row = {"instruction": "灯" * 400_000, "output": "😀" * 1000}
    assert pairs(imported([row])) == [("灯" * 400_000, "😀" * 1000)]


FORM_HINT = (
    "known: Alpaca (instruction, input, output), self-instruct (instances), ShareGPT (conversations), OpenAI (messages)"
)


@pytest.mark.parametrize(
    "row",
    [
        {"question": "?"},
        {},
        {"instruction": 5},
        {"conversations": ["hi"]},
        {"messages": "hi"},
        {"messages": None},
        {"instruction": None, "instances": [{"input": "x"}]},
    ],
)
def test_a_row_of_no_known_form_is_named(imported, tmp_path, row):
    with pytest.raises(CamelBellError) as caught:
        imported([ALPACA, row])
    assert caught.value.message == f"{tmp_path / 'data.json'}:2: this row is of no known form"
    assert caught.value.hint == FORM_HINT


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'[{"instruction": "x"', ": is not JSON: "),
        (b'["x"]', ": row 1 is not an object"),
        ('[{"instruction": "你好"}]'.encode("gbk"), ": is not JSON: 'utf-8' codec can't decode"),
        ('{"instruction": "你好"}\n'.encode("gbk"), ":1: this line is broken: 'utf-8' codec can't decode"),
        ('{"instruction": "x"}\n'.encode("utf-16"), ":1: this line is broken: 'utf-8' codec can't decode"),
        (b"<html></html>\n", ":1: this line is broken: "),
        (b'{"instruction": "x"}\n{"instruction": "y', ":2: this line is broken: "),
        ('{"instruction"： "x"}\n'.encode(), ":1: this line is broken: "),
    ],
    ids=["torn", "list of texts", "gbk json", "gbk jsonl", "utf-16", "html", "torn jsonl", "full-width colon"],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(imported, tmp_path, content, said):
    with pytest.raises(CamelBellError) as caught:
        imported(content)
    assert caught.value.message.startswith(f"{tmp_path / 'data.json'}{said}")


@pytest.mark.parametrize("name", ["nothing.json", "."])
def test_a_missing_file_and_a_folder_are_named(open_lumen, name):
    character = open_lumen().character
    with pytest.raises(CamelBellError) as caught:
        list(ImportQuestions(files=(name,)).generate(character, 5, Random(0)))
    assert caught.value.message == f"there is no file {str(character.root / name)!r} to import"


def test_relative_files_are_looked_for_in_the_bundle(open_lumen):
    run = open_lumen({"old/rows.jsonl": json.dumps(ALPACA) + "\n"})
    made = list(ImportQuestions(files=("old/rows.jsonl",)).generate(run.character, 5, Random(0)))
    assert pairs(made) == [("灯塔高吗？", "很高。")]


def import_of_2023(open_lumen, name):
    part = ImportQuestions(files=(str(SEED_DATA / name),))
    return list(part.generate(open_lumen().character, 10_000, Random(0)))


@pytest.mark.skipif(not SEED_DATA.is_dir(), reason="the data of 2023 is not here")
@pytest.mark.parametrize(
    ("name", "key", "count"), [("output.json", "Instruction", 2156), ("developer_instruction.json", "instruction", 48)]
)
def test_the_data_of_2023_is_read_whole(open_lumen, name, key, count):
    rows = json.loads((SEED_DATA / name).read_text(encoding="utf-8"))
    made = import_of_2023(open_lumen, name)
    assert pairs(made) == [
        ("\n".join(filter(None, (row[key].strip(), row["input"].strip()))), row["output"].strip()) for row in rows
    ]
    assert len(made) == count


@pytest.mark.skipif(not SEED_DATA.is_dir(), reason="the data of 2023 is not here")
def test_the_seed_tasks_of_2023_are_templates_and_no_questions(open_lumen):
    assert import_of_2023(open_lumen, "seed_tasks.jsonl") == []
