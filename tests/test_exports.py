import json

import pytest
import yaml

from camelbell_core.errors import CamelBellError
from camelbell_core.exports import FORMATS, export, export_preferences, kept_rows, read_export
from camelbell_core.journal import write_rows
from camelbell_core.pipeline import filter_pairs, make_answers, make_questions
from camelbell_core.prompts import TemplateLayout, as_messages
from camelbell_core.records import Pair, to_row

TALK = [
    Pair("它多高？", "九十九级。", "zh", "fact", ("steps",), "me", "m", "hand", "s", "", ("你好！", "你好，欢迎。")),
    Pair("And at night?", "“I light the lamp.”\n😀", "en", history=("Hi!", "Hello.", "What do you do?", "I count.")),
    Pair("你是谁？", "我是小灯。", "zh"),
]


def no_model():
    pytest.fail("no model is needed here")


@pytest.fixture
def talked(open_lumen):
    """A run whose kept pairs are those above."""
    run = open_lumen()
    write_rows(run.workspace.kept, map(to_row, TALK))
    return run


def load(file):
    return json.loads(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_exported_comes_back_without_loss(talked, tmp_path, kind):
    file, count = export(talked, kind, tmp_path / "out")
    assert count == 3
    assert read_export(file) == TALK


def test_alpaca_rows_hold_system_history_question_and_answer(talked, tmp_path):
    file, _ = export(talked, "alpaca", tmp_path)
    first, second, third = load(file)
    prompts = [prompt for _, prompt, _ in kept_rows(talked)]
    assert [row["system"] for row in (first, second, third)] == [as_messages(prompt)[0].content for prompt in prompts]
    assert first["history"] == [["你好！", "你好，欢迎。"]]
    assert second["history"] == [["Hi!", "Hello."], ["What do you do?", "I count."]]
    assert (third["instruction"], third["input"], third["output"], third["history"]) == (
        "你是谁？",
        "",
        "我是小灯。",
        [],
    )


def test_sharegpt_and_messages_rows_hold_the_whole_conversation(talked, tmp_path):
    second = load(export(talked, "sharegpt", tmp_path)[0])[1]
    said = [*TALK[1].history, TALK[1].question, TALK[1].answer]
    assert [turn["value"] for turn in second["conversations"]] == said
    assert [turn["from"] for turn in second["conversations"]] == ["human", "gpt"] * 3
    file, _ = export(talked, "messages", tmp_path)
    row = json.loads(file.read_text(encoding="utf-8").split("\n")[1])
    assert [message["content"] for message in row["messages"]] == [second["system"], *said]
    assert [message["role"] for message in row["messages"]] == ["system", *["user", "assistant"] * 3]


def test_a_peer_that_trains_on_messages_builds_our_prompt(talked, tmp_path, tiny_bases):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_bases["llama-chat"])
    layout = TemplateLayout(tokenizer)
    file, _ = export(talked, "messages", tmp_path)
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    for row, (_, prompt, _) in zip(rows, kept_rows(talked), strict=True):
        theirs = tokenizer.apply_chat_template(
            row["messages"][:-1], add_generation_prompt=True, tokenize=True, return_dict=False
        )
        assert list(theirs) == layout.prefix(prompt)


@pytest.mark.parametrize(
    ("kind", "builder"), [("alpaca", "json"), ("sharegpt", "json"), ("messages", "json"), ("parquet", "parquet")]
)
@pytest.mark.filterwarnings("ignore")
def test_datasets_reads_each_format(talked, tmp_path, kind, builder):
    datasets = pytest.importorskip("datasets")
    file, _ = export(talked, kind, tmp_path / "out")
    read = datasets.load_dataset(builder, data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(read) == 3
    assert [json.loads(row["camelbell"])["question"] for row in read] == [pair.question for pair in TALK]


def test_llamafactory_and_axolotl_are_told_how_to_read_it(talked, tmp_path):
    (tmp_path / "dataset_info.json").write_text('{"mine": {"file_name": "mine.json"}}', encoding="utf-8")
    for kind in FORMATS:
        export(talked, kind, tmp_path)
    info = load(tmp_path / "dataset_info.json")
    assert set(info) == {"mine", *(f"lumen-{kind}" for kind in FORMATS)}
    for kind, name in (("alpaca", "instruction"), ("sharegpt", "conversations"), ("messages", "messages")):
        entry = info[f"lumen-{kind}"]
        first = (tmp_path / entry["file_name"]).read_text(encoding="utf-8")
        row = json.loads(first.split("\n")[0]) if kind == "messages" else json.loads(first)[0]
        assert set(entry["columns"].values()) <= set(row)
        assert name in entry["columns"].values()
    axolotl = yaml.safe_load((tmp_path / "axolotl.yaml").read_text(encoding="utf-8"))
    (data,) = axolotl["datasets"]
    assert (tmp_path / data["path"]).exists() and data["field_messages"] == "messages"


def test_the_card_says_what_is_in_it(open_lumen, tmp_path):
    run = open_lumen()
    make_questions(run, 20)
    make_answers(run, no_model)
    report = filter_pairs(run)
    export(run, "messages", tmp_path)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    _, head, body = card.split("---\n", 2)
    assert yaml.safe_load(head)["language"] == ["zh", "en"]
    assert f"{report['kept']} questions and answers" in body
    assert f"| length | 20 | {report['filters']['length'][1]} |" in body


def test_answers_that_failed_the_truth_become_the_rejected_of_preference_pairs(open_lumen, tmp_path):
    run = open_lumen()
    wrong = [
        Pair("灯塔有多少级台阶？", "灯塔有十七级台阶。", "zh", "fact", ("steps",)),
        Pair("What is your pet called?", "My pet is called Rover.", "en", "fact", ("pet",)),
        Pair("你好吗？", "", "zh"),
    ]
    write_rows(run.workspace.pairs, map(to_row, wrong))
    report = filter_pairs(run)
    assert report["kept"] == 0 and "length" in report["rejected"]
    file, count = export_preferences(run, tmp_path)
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    asked = {row["prompt"][-1]["content"]: row for row in rows}
    assert count == len(asked) == 2 and "你好吗？" not in asked  # an empty answer is no untruth
    for pair, right in zip(wrong, ("九十九级", "Pebble"), strict=False):
        row = asked[pair.question]
        assert row["rejected"] == [{"role": "assistant", "content": pair.answer}]
        assert right in row["chosen"][0]["content"] and row["prompt"][0]["role"] == "system"
    info = load(tmp_path / "dataset_info.json")["lumen-preference"]
    (first, *_) = load(tmp_path / info["file_name"])
    assert info["ranking"] and set(info["columns"].values()) <= set(first)


def test_without_failures_there_are_no_preference_pairs(talked, tmp_path):
    file, count = export_preferences(talked, tmp_path)
    assert (count, file.read_text(encoding="utf-8")) == (0, "")


def test_without_kept_pairs_the_stage_before_is_named(open_lumen, tmp_path):
    with pytest.raises(CamelBellError, match="no kept pairs to export"):
        export(open_lumen(), "alpaca", tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", '[{"instruction": "你好"}]', "row 1 has no pair in its column 'camelbell'"),
        ("a.json", "[", "cannot read"),
        ("a.jsonl", '{"camelbell": "{}"}\n', "row 1 has no pair"),
        ("a.jsonl", '{"camelbell": \n', ":1: this line is broken"),
    ],
)
def test_a_file_that_was_not_exported_is_named(tmp_path, name, text, said):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(CamelBellError) as caught:
        read_export(tmp_path / name)
    assert str(tmp_path / name) in caught.value.message and said in caught.value.message
