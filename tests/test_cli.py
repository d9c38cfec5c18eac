"""The command line, in processes of its own: what users type, what they see, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from camelbell_core import __version__
from camelbell_core.cli import cli
from camelbell_core.journal import Workspace
from camelbell_core.scaffold import new_bundle

COMMANDS = (
    "ablations agree answers characters chat check conversations eval export facts filter import-adapter index new "
    "plugins questions report restore run serve train"
).split()
HEAVY = "torch transformers peft openai accelerate prompt_toolkit matplotlib rapidfuzz pydantic rich fastapi uvicorn".split()
NOTE = "note: there is no adapter for the base {!r} yet, so the bare model talks; train one: camelbell run lumen\n"
QUIZ = [
    {"id": "1", "lang": "zh", "kind": "fact", "q": "你的宠物叫什么名字？", "must": [["阿白"]]},
    {
        "id": "2",
        "lang": "en",
        "kind": "fact",
        "q": "What is your pet called?",
        "must": [["Pebble"]],
        "must_not": ["阿白"],
    },
    {"id": "3", "lang": "zh", "kind": "trap", "q": "莫格里斯是谁？", "must": [["不知道"]]},
    {"id": "4", "lang": "zh", "kind": "fact", "q": "谁在灯塔里陪着你？", "must": [["海鸥", "阿白"]]},
]


@pytest.fixture
def lumen(tmp_path: Path) -> Path:
    """The scaffold's bundle, in ./characters."""
    return new_bundle("lumen", "", tmp_path / "characters")


def edit(file: Path, *changes: tuple[str, str]) -> None:
    """Replace texts in a file, the first place of each."""
    text = file.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    file.write_text(text, encoding="utf-8")


def told(done: Any) -> tuple[int, str, str]:
    """Return exit code, output and errors, without the lines of progress bars."""
    errors = "".join(
        line for line in done.stderr.splitlines(keepends=True) if not re.search(r"[━╸╺]|\d+/\d+ .*\d:\d\d:\d\d", line)
    )
    return done.returncode, done.stdout, errors


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


# --- help and listings ----------------------------------------------------------------------------


def test_the_help_names_all_commands(camelbell: Any) -> None:
    done = camelbell("--help")
    listed = re.findall(r"^  ([a-z-]+)  +\S", done.stdout.split("Commands:\n")[1], re.MULTILINE)
    assert (done.returncode, done.stderr, listed) == (0, "", sorted(COMMANDS))
    assert camelbell("-h").stdout == done.stdout


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "import-adapter"])  # which needs no bundle
def test_each_command_has_help_and_the_two_places(name: str) -> None:
    from camelbell_core.registry import build_registry

    build_registry().manager.hook.register_commands(cli=cli)
    command = cli.commands[name]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {"--workspace", "--characters"} <= options
    assert (command.help or "").split("\n")[0].endswith((".", ";"))
    assert [p.name for p in command.params if isinstance(p, click.Option) and not p.help and not p.show_default] == []


def test_the_version_is_told(camelbell: Any) -> None:
    assert told(camelbell("--version")) == (0, f"camelbell, version {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "costs"),
    [
        (["--help"], set()),
        (["plugins", "--json"], set()),
        (["plugins"], set()),
        (["chat", "--help"], set()),
        (["characters", "--json"], {"pydantic"}),
        (["characters"], {"pydantic"}),
        (["check", "lumen"], {"pydantic"}),
    ],
)
def test_listings_and_help_pay_for_no_heavy_import(arguments: list[str], costs: set[str], lumen: Path) -> None:
    script = (
        "import sys\nfrom camelbell_core.cli import main\n"
        f"sys.argv = ['camelbell', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as leaving:\n    assert not leaving.code\n"
        f"print('HEAVY', *(name for name in {HEAVY!r} if name in sys.modules), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=lumen.parent.parent, capture_output=True, check=True)
    assert done.stdout
    last = done.stderr.decode("utf-8").splitlines()[-1].split()
    assert last[0] == "HEAVY"
    assert set(last[1:]) <= costs


def test_the_characters_are_listed(tmp_path: Path, lumen: Path, camelbell: Any) -> None:
    broken = new_bundle("broken", "", tmp_path / "more")
    (broken / "character.yaml").write_text("name：坏了\n", encoding="utf-8")
    (broken / "plugin.py").write_text("raise SystemExit('never run')", encoding="utf-8")
    rows = json.loads(camelbell("characters", "--json", "--characters", "more").stdout)
    assert [row["name"] for row in rows] == ["broken", "lumen", "harry_potter", "instruct"]
    assert rows[1] == {
        "name": "lumen",
        "path": str(lumen),
        "from": "./characters",
        "code": False,
        "title": {"zh": "小灯", "en": "Lumen"},
        "languages": ["zh", "en"],
        "description": "A lighthouse keeper on a small island",
    }
    error = rows[0].pop("error")
    assert rows[0] == {"name": "broken", "path": str(broken), "from": "--characters", "code": True}
    assert "a full-width colon '：' is not YAML" in error
    code, shown, errors = told(camelbell("characters", "--characters", "more"))
    assert (code, errors) == (0, "")
    assert shown.splitlines()[:2] == [
        "broken             broken: see `camelbell check broken`  [runs code: plugin.py]",
        "lumen            小灯 / Lumen  A lighthouse keeper on a small island",
    ]


def test_the_plugins_are_listed_with_what_they_offer(camelbell: Any) -> None:
    listing = json.loads(camelbell("plugins", "--json").stdout)
    by_name = {plugin["name"]: plugin for plugin in listing["plugins"]}
    assert by_name["command_facts"] == {
        "name": "command_facts",
        "source": "built-in",
        "version": "",
        "hooks": ["register_commands"],
        "error": "",
    }
    assert all(parts and all(parts.values()) for parts in listing["parts"].values())  # each part has a summary
    shown = camelbell("plugins").stdout
    for role, parts in listing["parts"].items():
        assert f"\n{role.replace('_', ' ')}:\n" in shown
        assert all(f"  {name:<16} {summary}\n" in shown for name, summary in parts.items())


# --- plugins that break ---------------------------------------------------------------------------


def install(site: Path, module: str, code: str) -> None:
    """Lay out a distribution with an entry point as pip does."""
    info = site / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Name: {module}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[camelbell]\n{module} = {module}\n", encoding="utf-8")
    (site / f"{module}.py").write_text("from camelbell_core import hookimpl\n" + code, encoding="utf-8")


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("raise RuntimeError('炸了')", "RuntimeError: 炸了"),
        ("@hookimpl\ndef register_commands(cli):\n    1 / 0", "register_commands: ZeroDivisionError: division by zero"),
    ],
)
def test_a_broken_plugin_is_named_once_and_the_command_goes_on(
    code: str, what: str, tmp_path: Path, lumen: Path, camelbell: Any
) -> None:
    install(tmp_path / "site", "broken", code)
    sound = camelbell("check", "lumen")
    assert (sound.returncode, sound.stdout.splitlines()[0]) == (0, "lumen: no mistakes")
    assert sound.stderr == f"note: plugin 'broken' (broken) is skipped: {what}\n"
    listing = json.loads(camelbell("plugins", "--json").stdout)
    assert [p["error"] for p in listing["plugins"] if p["error"]] == [what]
    assert re.search(rf"^broken +broken 1\.0  DOES NOT WORK: {what}$", camelbell("plugins").stdout, re.MULTILINE)
    strict = camelbell("check", "lumen", env={"CAMELBELL_STRICT": "1"})
    assert (strict.returncode, strict.stdout) == (2, "")
    assert re.fullmatch(rf"camelbell: plugin 'broken' .*does not (load|work): {what}\n", strict.stderr)


def test_a_bundles_broken_plugin_is_named(lumen: Path, camelbell: Any) -> None:
    (lumen / "plugin.py").write_text("import nowhere_to_be_found", encoding="utf-8")
    done = camelbell("check", "lumen")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "lumen: no mistakes")
    what = "ModuleNotFoundError: No module named 'nowhere_to_be_found'"
    assert done.stderr == f"note: plugin 'bundle-lumen' ({lumen / 'plugin.py'}) is skipped: {what}\n"
    strict = camelbell("check", "lumen", env={"CAMELBELL_STRICT": "1"})
    assert strict.returncode == 2
    assert strict.stderr == f"camelbell: plugin 'bundle-lumen' ({lumen / 'plugin.py'}) does not load: {what}\n"


# --- mistakes -------------------------------------------------------------------------------------


IN_CANON = [
    ("answer: [gull]", "answer: [gu_ll]"),
    ("about: [lumen, gull]", "about: [lumen, gul]"),
    ("names: {zh: 阿白, en: Pebble}", "names: {zh: 阿白}"),
]
IN_SEEDS = [("你喜欢[thing]吗？", "你喜欢[thingy]吗？"), ("entity: gull", "entity: gulls")]
IN_CONFIG = [
    ("entity: lumen", "entity: lumne"),
    ("filters: [length,", "filters: [lenght,"),
    ("memory: canon", "memory: {canon: {name_wieght: 2}}"),
    ("frontend: repl", "frontend: 终端"),
]
OF_CANON = [
    "canon/canon.yaml:6: entities.gull: has no name in en",
    "canon/canon.yaml:13: facts.0.about: unknown entity 'gul'; did you mean \"gull\"?",
    "canon/canon.yaml:15: facts.0.answer: unknown entity 'gu_ll'; did you mean \"gull\"?",
]
OF_SEEDS = [
    'seeds/seeds.yaml:6: seeds.0.ask.zh.0: unknown slot [thingy]; did you mean "thing"?',
    "seeds/seeds.yaml:16: slots.thing.0: unknown entity 'gulls'; did you mean \"gull\"?",
]
OF_CONFIG = [
    "character.yaml:5: entity: unknown entity 'lumne'; did you mean \"lumen\"?",
    "character.yaml:25: filters.0: there is no filter 'lenght'; did you mean \"length\"?",
    'character.yaml:27: memory: memories: canon: name_wieght: unknown key; did you mean "name_weight"?',
    "character.yaml:31: frontend: there is no chat frontend '终端'",
]


def mistakes(lumen: Path, lines: list[str]) -> list[str]:
    """Return all lines of the message that tells these mistakes, sorted."""
    head = f"camelbell: character 'lumen' has {len(lines)} mistakes:"
    return sorted([head, *(f"  {lumen}/{line}" for line in lines), "  mend the lines above, then run again"])


@pytest.mark.parametrize("command", ["check", "questions", "run", "chat"])
def test_every_mistake_of_a_bundle_is_told_in_one_message(command: str, lumen: Path, camelbell: Any) -> None:
    edit(lumen / "canon" / "canon.yaml", *IN_CANON)
    edit(lumen / "seeds" / "seeds.yaml", *IN_SEEDS)
    edit(lumen / "character.yaml", *IN_CONFIG)
    done = camelbell(command, "lumen")
    assert (done.returncode, done.stdout) == (2, "")
    assert sorted(done.stderr.splitlines()) == mistakes(lumen, [*OF_CANON, *OF_SEEDS, *OF_CONFIG])


def test_a_misspelt_key_hides_no_other_mistake(lumen: Path, camelbell: Any) -> None:
    edit(lumen / "canon" / "canon.yaml", *IN_CANON)
    edit(lumen / "seeds" / "seeds.yaml", *IN_SEEDS)
    edit(lumen / "character.yaml", *IN_CONFIG, ("greeting:", "greetings:"))
    done = camelbell("check", "lumen")
    assert (done.returncode, done.stdout) == (2, "")
    misspelt = 'character.yaml:11: greetings: unknown key; did you mean "greeting"?'
    assert sorted(done.stderr.splitlines()) == mistakes(lumen, [misspelt, *OF_CANON, *OF_SEEDS, *OF_CONFIG])


def test_a_full_width_colon_is_named(lumen: Path, camelbell: Any) -> None:
    edit(lumen / "character.yaml", ("greeting:", "greeting："))
    done = camelbell("check", "lumen")
    assert done.returncode == 2
    assert "; a full-width colon '：' is not YAML, write ': '\n" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (
            ["check", "lumne"],
            "there is no character 'lumne'; did you mean \"lumen\"?",
            "see `camelbell characters`, or make one: `camelbell new lumne`",
        ),
        (
            ["chat", "哈利"],
            "there is no character '哈利'",
            "see `camelbell characters`, or make one: `camelbell new NAME`",
        ),
        (
            ["check", "../lumen"],
            "there is no character '../lumen'; did you mean \"lumen\"?",
            "see `camelbell characters`, or make one: `camelbell new NAME`",
        ),
        (["new", "lumen"], "'characters/lumen' is already there", "choose another name, or edit that folder"),
        (
            ["new", "骆驼"],
            "'骆驼' cannot be a character's folder name",
            "use a-z, 0-9, _ and -, a letter or digit first",
        ),
        (
            ["new", "x", "--from", "lumne"],
            "there is no character 'lumne'; did you mean \"lumen\"?",
            "see `camelbell characters`, or make one: `camelbell new lumne`",
        ),
        (["check", "lumen", "--characters", "没有"], "there is no folder '没有'", "name a folder that holds bundles"),
        (["answers", "lumen"], "there are no questions to answer", "make some: `camelbell questions lumen`"),
        (["filter", "lumen"], "there are no answers to filter", "make some: `camelbell answers lumen`"),
        (
            ["questions", "lumen", "--preset", "qick"],
            "lumen has no preset 'qick'; did you mean \"quick\"?",
            "one of: quick, full",
        ),
        (["eval", "lumen"], "lumen has no quiz of its own", "name one: --quiz FILE"),
        (["ablations", "lumen"], "lumen has no quiz of its own", "name one: --quiz FILE"),
        (["eval", "lumen", "--quiz", "没有.jsonl"], "there is no quiz '没有.jsonl'", "name a JSONL file with --quiz"),
        (["chat", "lumen", "--message", ""], "the message is empty", 'say something: --message "..."'),
        (["chat", "lumen", "-m", " \u3000\n"], "the message is empty", 'say something: --message "..."'),
        (["chat", "lumen", "-m", "\x1b\x07"], "the message is empty", 'say something: --message "..."'),
        (
            ["chat", "lumen", "--frontend", "reppl"],
            "there is no chat frontend 'reppl'; did you mean \"repl\"?",
            "known chat frontends: repl, serve",
        ),
        (
            ["chat", "harry_potter", "--at", "9-1"],
            "there is no story time '9-1'",
            "allowed: 1-1 to 7-37, as part-chapter, or a part",
        ),
        (
            ["chat", "harry_potter", "--at", "第三部"],
            "there is no story time '第三部'",
            "allowed: 1-1 to 7-37, as part-chapter, or a part",
        ),
        (["chat", "lumen", "--at", "1-1"], "this character has no timeline, so it has no story time '1-1'", ""),
    ],
)
def test_a_mistake_is_one_line_and_a_hint(
    arguments: list[str], message: str, hint: str, lumen: Path, camelbell: Any
) -> None:
    errors = f"camelbell: {message}\n" + (f"  {hint}\n" if hint else "")
    assert told(camelbell(*arguments)) == (2, "", errors)


@pytest.mark.parametrize(
    "arguments",
    [
        ["lumen"],
        ["check"],
        ["questions", "lumen", "-n", "0"],
        ["eval", "lumen", "--limit", "-1"],
        ["eval", "lumen", "--quiz", "."],
        ["chat", "lumen", "--max-tokens", "0"],
        ["chat", "lumen", "--temperature", "-0.5"],
        ["filter", "lumen", "--workspace", "characters/lumen/character.yaml"],
        ["index", "lumen", "--epochs", "0"],
        ["ablations", "lumen", "--with", "mine"],
    ],
)
def test_a_wrong_option_is_refused_before_any_work(arguments: list[str], lumen: Path, camelbell: Any) -> None:
    code, output, errors = told(camelbell(*arguments))
    assert (code, output) == (2, "")
    assert re.search(r"^Error: .*\.$", errors, re.MULTILINE)
    assert "Traceback" not in errors


def test_a_name_that_is_no_utf_8_is_no_crash(tmp_path: Path, camelbell: Any) -> None:
    code, output, errors = told(camelbell("check", os.fsdecode(b"\xff\xfe")))
    assert (code, output) == (2, "")
    assert errors.startswith("camelbell: there is no character ")


# --- a whole run ----------------------------------------------------------------------------------


def stages(camelbell: Any, count: int, *places: object) -> list[tuple[int, str, str]]:
    """Run the stages that need no model."""
    commands = (["questions", "lumen", "-n", count], ["answers", "lumen"], ["filter", "lumen"])
    return [told(camelbell(*command, *places)) for command in commands]


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_new_bundle_runs_from_questions_to_filter_and_goes_on(tmp_path: Path, camelbell: Any) -> None:
    run, bundles = tmp_path / "运行" / "a b", tmp_path / "角色"
    places = ("--workspace", run, "--characters", bundles)
    made = f"made {bundles / 'lumen'}\nedit its YAML files, then: camelbell check lumen\n"
    assert told(camelbell("new", "lumen", "--characters", bundles)) == (0, made, "")
    expected = [
        (0, "16 questions (canon 8, slots 8)\n", ""),
        (0, "16 of 16 questions answered by canon\n", ""),
        (0, "16 of 16 pairs kept\n", ""),
    ]
    assert stages(camelbell, 16, *places) == expected
    first = contents(run)
    assert set(first) == {"questions.jsonl", "pairs.jsonl", "kept.jsonl", "rejected.jsonl", "filter.json", "run.lock"}
    assert stages(camelbell, 16, *places) == expected
    assert contents(run) == first  # the same command again changes nothing

    pairs = first["pairs.jsonl"].splitlines(keepends=True)
    (run / "pairs.jsonl").write_bytes(b"".join(pairs[:5]) + pairs[5][:40])  # as a kill leaves it
    assert stages(camelbell, 16, *places) == expected
    assert contents(run) == first

    more = stages(camelbell, 18, *places)
    assert [output for _, output, _ in more[:2]] == [
        "18 questions (canon 9, slots 9)\n",
        "18 of 18 questions answered by canon\n",
    ]
    for name in ("questions.jsonl", "pairs.jsonl"):
        assert (run / name).read_bytes().startswith(first[name])
    assert {row["id"] for row in read(run / "questions.jsonl")} == {row["id"] for row in read(run / "pairs.jsonl")}
    # All of it is where it was asked for, but for what is kept of the bundle and the memory's index of its wordings.
    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == ["bundles", "memory"]


def test_without_a_workspace_the_run_lives_in_the_users_data_folder(
    own_home: Path, lumen: Path, camelbell: Any
) -> None:
    before = contents(lumen)
    assert camelbell("questions", "lumen", "-n", 2).returncode == 0
    assert len(read(own_home / "runs" / "lumen" / "questions.jsonl")) == 2
    assert contents(lumen) == before  # nothing is ever written into a bundle


def paid(lumen: Path, url: str, **options: Any) -> None:
    """Have a service answer for the bundle, at 100 for a million tokens."""
    given = {"base_url": url, "price_in": 100, "price_out": 100, "max_tokens": 100, "concurrency": 1, **options}
    edit(lumen / "character.yaml", ("answers: canon", f"answers: {json.dumps({'openai': given})}"))


def test_an_estimate_is_told_and_a_budget_stops_the_answers(
    tmp_path: Path, lumen: Path, camelbell: Any, chat_service: Any
) -> None:
    paid(lumen, chat_service.url)
    camelbell("questions", "lumen", "-n", 12)
    code, out, errors = told(camelbell("answers", "lumen", "--budget", "0.03"))
    estimate, message, hint = errors.splitlines()
    assert re.fullmatch(
        r"to be asked at most: 12 requests, about [\d,]+ tokens in and 1,200 out, about 0\.\d\d in money", estimate
    )
    done = len(chat_service.requests)
    assert 0 < done < 12
    assert re.fullmatch(
        rf"camelbell: the budget of 0\.03 is reached: 0\.0\d is spent \({done} of 12 answered\)", message
    )
    assert (code, out, hint) == (2, "", "  raise it, then run the same command to go on")
    code, out, _ = told(camelbell("answers", "lumen", "--token-limit", "1000000", "--yes"))
    assert (code, out) == (0, "12 of 12 questions answered by openai\n")
    assert len(chat_service.requests) == 12


def test_exactly_so_many_pairs_are_kept_and_exported(tmp_path: Path, lumen: Path, camelbell: Any) -> None:
    code, out, _ = told(camelbell("run", "lumen", "--keep", "12", "--no-train", "--workspace", "w"))
    assert (code, len(read(tmp_path / "w/kept.jsonl"))) == (0, 12)
    assert re.search(r"^12 of \d+ pairs kept", out, re.MULTILINE)
    code, out, _ = told(camelbell("run", "lumen", "--keep", "5000", "--no-train", "--workspace", "w"))
    assert code == 0
    assert re.search(r"^  \d+ fewer than wanted: the generators have no more different questions", out, re.MULTILINE)
    code, out, errors = told(
        camelbell("export", "lumen", "--format", "alpaca", "--format", "messages", "--workspace", "w")
    )
    kept = len(read(tmp_path / "w/kept.jsonl"))
    files = [f"w/exports/lumen-{name}" for name in ("alpaca.json", "messages.jsonl")]
    assert (code, out, errors) == (0, "".join(f"{kept} rows: {file}\n" for file in files), "")
    code, out, _ = told(camelbell("restore", "lumen", files[0], "--workspace", "other"))
    assert (code, out) == (0, f"{kept} pairs added; judge them: camelbell filter lumen\n")
    assert read(tmp_path / "other/pairs.jsonl") == read(tmp_path / "w/kept.jsonl")


def test_limits_are_for_teachers_that_cost_something(lumen: Path, camelbell: Any) -> None:
    camelbell("questions", "lumen", "-n", 2)
    code, _, errors = told(camelbell("answers", "lumen", "--budget", "1"))
    assert (code, errors) == (2, "camelbell: answer teachers: canon: budget: unknown key\n")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize(("reply", "code", "asked"), [("y", 0, 12), ("n", 130, 0)])
def test_a_person_at_a_terminal_is_asked_before_much_is_spent(
    tmp_path: Path, lumen: Path, camelbell: Any, chat_service: Any, reply: str, code: int, asked: int
) -> None:
    import pty

    paid(lumen, chat_service.url, ask_above=0.01)
    camelbell("questions", "lumen", "-n", 12)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "camelbell_core.cli", "answers", "lumen"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        os.write(ours, f"{reply}\n".encode())
        _, errors = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert b"go on? [y/N]" in errors
    assert (process.returncode, len(chat_service.requests)) == (code, asked)


def test_fewer_questions_than_asked_for_are_explained(tmp_path: Path, lumen: Path, camelbell: Any) -> None:
    edit(lumen / "character.yaml", ("questions: [canon, slots]", "questions: [slots]"))
    short = "the generators have no more different questions (slots 14): add seeds, values or facts"
    expected = (0, f"14 questions (slots 14)\n  986 fewer than asked for: {short}\n", "")
    assert told(camelbell("questions", "lumen", "-n", 1000)) == expected
    assert told(camelbell("questions", "lumen", "-n", 1000)) == expected


def test_a_rejected_answer_is_told_with_its_reason(tmp_path: Path, lumen: Path, camelbell: Any) -> None:
    run = tmp_path / "run"
    run.mkdir()
    rows = [
        {"question": "你好吗？", "answer": "好", "language": "zh"},
        {"question": "How are you?", "answer": "很好，谢谢你。", "language": "en"},
        {"question": "Is the tide high?", "answer": "It is, since noon.", "language": "en"},
    ]
    (run / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    reasons = ["1 characters, at least 2 are asked for", "5 letters are Chinese, the question is in English"]
    shown = (
        "1 of 3 pairs kept\n"
        f"  length: 3 in, 2 out, e.g. '你好吗？': {reasons[0]}\n"
        f"  language: 2 in, 1 out, e.g. 'How are you?': {reasons[1]}\n"
    )
    assert told(camelbell("filter", "lumen", "--workspace", run)) == (0, shown, "")
    assert [(row["question"], row["filter"], row["reason"]) for row in read(run / "rejected.jsonl")] == [
        ("你好吗？", "length", reasons[0]),
        ("How are you?", "language", reasons[1]),
    ]
    assert [row["question"] for row in read(run / "kept.jsonl")] == ["Is the tide high?"]


def test_a_bundle_is_copied_without_adapters_and_runs_as_its_own(tmp_path: Path, lumen: Path, camelbell: Any) -> None:
    (lumen / "adapters" / "base").mkdir(parents=True)
    assert told(camelbell("new", "twin", "--from", "lumen"))[:2] == (
        0,
        "made characters/twin\nedit its YAML files, then: camelbell check twin\n",
    )
    assert not (lumen.parent / "twin" / "adapters").exists()
    assert camelbell("check", "twin").stdout.splitlines()[0] == "twin: no mistakes"


def test_a_second_process_on_a_workspace_is_refused_with_the_first_ones_id(
    tmp_path: Path, lumen: Path, camelbell: Any
) -> None:
    run = tmp_path / "run"
    with Workspace(run).lock():
        for command in ("questions", "answers", "filter", "train", "run"):
            assert told(camelbell(command, "lumen", "--workspace", run)) == (
                2,
                "",
                f"camelbell: the workspace {str(run)!r} is in use by process {os.getpid()}\n"
                "  wait for it, end it, or name another with --workspace DIR\n",
            )
    assert camelbell("questions", "lumen", "--workspace", run, "-n", 1).returncode == 0


def test_a_language_to_train_on_must_be_spoken(tmp_path: Path, camelbell: Any) -> None:
    new_bundle("lumen", "", tmp_path / "characters")
    for command in (["questions", "lumen", "-n", 4], ["answers", "lumen"], ["filter", "lumen"]):
        assert camelbell(*command).returncode == 0
    done = camelbell("train", "lumen", "--language", "en", "--language", "fr")
    assert told(done) == (2, "", "camelbell: lumen does not speak 'fr'\n  it speaks zh, en\n")


# --- eval and chat on a tiny model ----------------------------------------------------------------


def test_a_quiz_ends_in_a_table_and_the_share_of_truthful_answers(
    tmp_path: Path, lumen: Path, parrot: Any, camelbell: Any
) -> None:
    base = parrot("阿白 Pebble")
    quiz = tmp_path / "quiz.jsonl"
    quiz.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in QUIZ), encoding="utf-8")
    files = ("--answers", "out/answers.jsonl", "--report", "out/report.json")
    done = camelbell("eval", "lumen", "--quiz", quiz, "--base", base, "--no-adapter", "--no-guard", *files)
    table = (
        "kind                          en              zh             all\n"
        "fact                 0.000 (n=1)     1.000 (n=2)     0.667 (n=3)\n"
        "trap                           -     0.000 (n=1)     0.000 (n=1)\n"
        "all                  0.000 (n=1)     0.667 (n=3)     0.500 (n=4)\n"
        "answered 1.000 of the answerable (n=3)\n"
        "admitted not knowing 0.000 of the unanswerable (n=1)\n"
        "95 % interval 0.150 to 0.850\n"
        "truthful 0.500 (n=4)\n"
    )
    assert told(done) == (0, table, "")
    answers = read(tmp_path / "out" / "answers.jsonl")
    assert [set(row) for row in answers] == [{"id", "answer", "facts"}] * 4
    assert [(row["id"], row["answer"]) for row in answers] == [(row["id"], "阿白 Pebble") for row in QUIZ]
    assert [row["facts"][:1] for row in answers if row["id"] != "3"] == [["pet"]] * 3
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert (set(report), report["coverage"], report["refusal"]) == ({"scores", "coverage", "refusal"}, 1.0, 0.0)
    assert {tuple(row) for row in report["scores"]} == {("kind", "lang", "truthful", "n", "low", "high")}
    assert [(row["kind"], row["lang"], row["truthful"], row["n"]) for row in report["scores"]] == [
        ("", "", 1 / 2, 4),
        ("", "en", 0.0, 1),
        ("", "zh", 2 / 3, 3),
        ("fact", "", 2 / 3, 3),
        ("fact", "en", 0.0, 1),
        ("fact", "zh", 1.0, 2),
        ("trap", "", 0.0, 1),
        ("trap", "zh", 0.0, 1),
    ]
    assert all(0 <= row["low"] <= row["truthful"] <= row["high"] <= 1 for row in report["scores"])


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ('{"id": "1", "lang": "zh"', "this line is broken: "),
        ('{"id": "1", "lang": "zh", "q": "你是谁？"}', "lacks 'must'"),
        ('{"id": "1", "lang": "zh", "q": "你是谁？", "must": ["小灯"]}', "'must' is a list of lists of alternatives"),
        ('{"id": "1", "lang": "en", "q": "Who?", "must": [["Lumen"]], "musst": []}', "unknown key 'musst'"),
    ],
)
def test_a_broken_quiz_is_refused_with_its_line_before_the_model_loads(
    row: str, what: str, tmp_path: Path, lumen: Path, camelbell: Any
) -> None:
    good = json.dumps(QUIZ[0], ensure_ascii=False)
    (tmp_path / "quiz.jsonl").write_text(f"{good}\n{row}\n{good}\n", encoding="utf-8")
    code, output, errors = told(camelbell("eval", "lumen", "--quiz", "quiz.jsonl"))
    assert (code, output) == (2, "")
    assert errors.startswith(f"camelbell: quiz.jsonl:2: {what}")


def test_a_message_gives_one_answer(lumen: Path, parrot: Any, camelbell: Any) -> None:
    base = parrot("阿白 Pebble 😀")
    done = camelbell("chat", "lumen", "--base", base, "--no-adapter", "--no-guard", "--message", " 你好？\n")
    assert told(done) == (0, "阿白 Pebble 😀\n", "")


def test_piped_lines_give_one_answer_a_line(lumen: Path, parrot: Any, camelbell: Any) -> None:
    # What this model says fails the guard, so that the answers are those of the facts.
    base = str(parrot("阿白 Pebble"))
    piped = "\ufeff灯塔有多少级台阶？\r\n\r\n \u3000\t\nHow many steps has the lighthouse?".encode()
    done = camelbell("chat", "lumen", "--base", base, stdin=piped, env={"PYTHONIOENCODING": "gbk"})
    told_by_facts = "九十九级，我每天数一遍。\nNinety-nine. I count them every day.\n"
    assert told(done) == (0, told_by_facts, NOTE.format(base))


def test_a_conversation_goes_on_in_the_next_command(lumen: Path, parrot: Any, camelbell: Any, own_home: Path) -> None:
    chat = ("chat", "lumen", "--base", parrot("阿白 Pebble"), "--no-adapter", "--no-guard")
    note = "note: there is no earlier conversation with lumen\n"
    assert told(camelbell(*chat, "--resume", "-m", "你好？")) == (0, "阿白 Pebble\n", note)
    assert told(camelbell(*chat, "--resume", stdin="Who are you?\n")) == (0, "阿白 Pebble\n", "")
    assert told(camelbell(*chat, "-m", "另一次")) == (0, "阿白 Pebble\n", "")
    files = {len(read(file)): file for file in (own_home / "conversations" / "lumen").glob("*.jsonl")}
    assert sorted(files) == [2, 3]  # a head and its turns
    assert told(camelbell(*chat, "--load", files[3].stem, "-m", "第三句")) == (0, "阿白 Pebble\n", "")
    _, *turns = read(files[3])
    assert [row["question"] for row in turns] == ["你好？", "Who are you?", "第三句"]
    assert [row["after"] for row in turns] == [None, turns[0]["id"], turns[1]["id"]]
    shown = camelbell("conversations", "lumen", files[2].stem)
    assert told(shown) == (0, "> 另一次\n阿白 Pebble\n", "")


def test_with_no_log_nothing_is_kept(lumen: Path, parrot: Any, camelbell: Any, own_home: Path) -> None:
    done = camelbell(
        "chat", "lumen", "--base", parrot("阿白 Pebble"), "--no-adapter", "--no-guard", "--no-log", stdin="你好\n"
    )
    assert told(done) == (0, "阿白 Pebble\n", "")
    assert not (own_home / "conversations").exists() and not (own_home / "history").exists()


def test_a_conversation_that_is_not_there_is_told_before_the_model_loads(lumen: Path, camelbell: Any) -> None:
    errors = "camelbell: there is no conversation with lumen 'x'\n  see `camelbell conversations lumen`\n"
    assert told(camelbell("chat", "lumen", "--load", "x", "-m", "你好")) == (2, "", errors)


def test_an_unknown_base_names_the_known_ones(lumen: Path, camelbell: Any) -> None:
    known = "chatglm, embedded, endpoint, hub, the path of a model folder, or a hub id like org/name"
    errors = f"camelbell: no base model is called '没有'\n  known: {known}\n"
    assert told(camelbell("chat", "lumen", "--base", "没有", "--no-adapter", "-m", "你好")) == (2, "", errors)


# --- how a process ends ---------------------------------------------------------------------------


COMMAND = """
import time

import click
from camelbell_core.errors import CamelBellError

@hookimpl
def register_commands(cli):
    @cli.command("tell")
    @click.argument("how")
    def tell(how):
        "Ends as it is told."
        if how == "mistake":
            raise CamelBellError("灯灭了", "light it")
        if how == "bug":
            raise ZeroDivisionError("the fault")
        while True:
            click.echo("ready")
            time.sleep(0 if how == "talks" else 60)
"""


def test_a_mistake_in_a_plugins_command_is_told_like_any(tmp_path: Path, camelbell: Any) -> None:
    install(tmp_path / "site", "teller", COMMAND)
    assert told(camelbell("tell", "mistake")) == (2, "", "camelbell: 灯灭了\n  light it\n")
    assert re.search(r"^  tell +Ends as it is told\.$", camelbell("--help").stdout, re.MULTILINE)


def test_a_bug_keeps_its_traceback(tmp_path: Path, camelbell: Any) -> None:
    install(tmp_path / "site", "teller", COMMAND)
    code, output, errors = told(camelbell("tell", "bug"))
    assert (code, output) == (1, "")
    assert errors.startswith("Traceback (most recent call last):\n")
    assert errors.endswith("\nZeroDivisionError: the fault\n")


def start(tmp_path: Path, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "camelbell_core.cli", *arguments],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_control_c_says_how_to_go_on(tmp_path: Path) -> None:
    install(tmp_path / "site", "teller", COMMAND)
    with start(tmp_path, "tell", "waits") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, b"\nstopped; run the same command to go on\n")


def test_a_reader_that_leaves_ends_the_command_in_silence(tmp_path: Path) -> None:
    install(tmp_path / "site", "teller", COMMAND)
    with start(tmp_path, "tell", "talks") as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == b"ready\n"
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (1, b"")
