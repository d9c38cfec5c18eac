"""Which parts exist: the doors that plugins enter by, what happens when one breaks, how a part is picked."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from camelbell_core.character import BundleRef, find_character
from camelbell_core.errors import BundleError, CamelBellError
from camelbell_core.pipeline import Run, make_questions, open_run, training_examples
from camelbell_core.records import Pair, Seed, Verdict
from camelbell_core.registry import PluginInfo, Registry, build_registry
from camelbell_core.roles import ChatFrontend, Filter, Memory
from camelbell_core.scaffold import new_bundle
from camelbell_core.session import Session, personas

ROOT = Path(__file__).parent.parent
LOUD = Pair("你好吗？", "好！很好！！Fine!", "zh")
CALM = Pair("How are you?", "Fine.", "en")

FILTER = """
from camelbell_core import hookimpl
from camelbell_core.records import Verdict
from camelbell_core.roles import Filter

class Own(Filter):
    "Keeps all."
    name = "own"
    def judge(self, pair):
        return Verdict(self.name)

@hookimpl
def register_filters():
    return [Own]
"""
BREAKS_WHEN_LOADED = {
    "import": ("raise RuntimeError('boom\\n炸了')", "RuntimeError: boom 炸了"),
    "missing module": ("import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
    "no Python": ("1 +", "SyntaxError: invalid syntax (broken.py, line 1)"),
    "leaves": ("import sys\nsys.exit('bye 再见')", "SystemExit: bye 再见"),
    "misspelt hook": (
        FILTER + "\n@hookimpl\ndef register_fliters():\n    return []",
        "there is no hook 'register_fliters'; did you mean \"register_filters\"?",
    ),
    "strange argument": (
        FILTER + "\n@hookimpl\ndef register_memories(who):\n    return []",
        "PluginValidationError: Plugin 'broken' for hook 'register_memories' hookimpl definition: "
        "register_memories(who) Argument(s) {'who'} are declared in the hookimpl but can not be found in the hookspec",
    ),
    "wrapper": (
        FILTER + "\n@hookimpl(wrapper=True)\ndef load_seeds(character):\n    return (yield)",
        "load_seeds: hooks have no wrappers here",
    ),
}
OFFER = "from camelbell_core import hookimpl\n@hookimpl\ndef register_filters():\n    "
BREAKS_WHEN_CALLED = {
    "raises": ("raise RuntimeError('boom\\n炸了')", "RuntimeError: boom 炸了"),
    "leaves": ("raise SystemExit('bye 再见')", "SystemExit: bye 再见"),
    "forgets to return": ("pass", "TypeError: 'NoneType' object is not iterable"),
    "gives a text": ("return '长度'", "TypeError: '长' is not a Filter class with a name"),
    "gives another role": (
        "from camelbell_core.roles import Memory; return [Memory]",
        "TypeError: <class 'camelbell_core.roles.Memory'> is not a Filter class with a name",
    ),
    "gives a nameless part": (
        "from camelbell_core.roles import Filter; return [Filter]",
        "TypeError: <class 'camelbell_core.roles.Filter'> is not a Filter class with a name",
    ),
}


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Forget after each test the modules that it made."""
    monkeypatch.delenv("CAMELBELL_STRICT", raising=False)
    monkeypatch.delenv("CAMELBELL_PLUGINS", raising=False)
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Install a module as a distribution of its own, as pip lays it out, with an entry point of its name."""
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(str(site))

    def install_it(module: str, code: str, version: str = "1.2", target: str = "") -> Path:
        info = site / f"{module}_dist-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Name: {module}-dist\nVersion: {version}\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[camelbell]\n{module} = {target or module}\n", encoding="utf-8")
        (site / f"{module}.py").write_text(code, encoding="utf-8")
        importlib.invalidate_caches()
        return site

    return install_it


@pytest.fixture
def lumen(tmp_path: Path) -> Callable[..., BundleRef]:
    """Make the scaffold's bundle, with a plugin of its own."""

    def make(plugin: str = "") -> BundleRef:
        root = new_bundle("lumen", "", tmp_path / "characters")
        if plugin:
            (root / "plugin.py").write_text(plugin, encoding="utf-8")
        return BundleRef("lumen", root, "test")

    return make


def info_of(registry: Registry, name: str) -> PluginInfo:
    """Return the one entry of a plugin's name."""
    (info,) = (info for info in registry.plugins if info.name == name)
    return info


def readme_plugin() -> str:
    """Return the plugin that README.md shows: it offers the filter no_shouting."""
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[0]


def as_built_in(site: Path, ref: BundleRef, install: Callable[..., Path]) -> None:
    shutil.copytree(ROOT / "plugins", site / "camelbell_plugins", ignore=shutil.ignore_patterns("__pycache__"))
    (site / "camelbell_plugins" / "no_shouting.py").write_text(readme_plugin(), encoding="utf-8")


def as_entry_point(site: Path, ref: BundleRef, install: Callable[..., Path]) -> None:
    install("no_shouting", readme_plugin())


def as_bundle_plugin(site: Path, ref: BundleRef, install: Callable[..., Path]) -> None:
    (ref.root / "plugin.py").write_text(readme_plugin(), encoding="utf-8")


# --- the three doors ------------------------------------------------------------------------------


@pytest.mark.parametrize("enter", [as_built_in, as_entry_point, as_bundle_plugin])
def test_one_file_enters_by_each_of_the_three_doors(
    enter: Any, tmp_path: Path, lumen: Any, install: Any, camelbell: Any
) -> None:
    ref = lumen()
    config = ref.root / "character.yaml"
    lines = config.read_text(encoding="utf-8").splitlines()
    lines = ["filters: [no_shouting: {most: 2}]" if line.startswith("filters:") else line for line in lines]
    config.write_text("\n".join(lines), encoding="utf-8")
    run = tmp_path / "run"
    run.mkdir()
    rows = [{"question": pair.question, "answer": pair.answer, "language": pair.language} for pair in (LOUD, CALM)]
    (run / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    before = camelbell("filter", "lumen", "--workspace", run)
    assert before.returncode == 2
    assert "filters.0: there is no filter 'no_shouting'\n" in before.stderr

    enter(tmp_path / "site", ref, install)
    after = camelbell("filter", "lumen", "--workspace", run)
    assert (after.returncode, after.stdout) == (
        0,
        f"1 of 2 pairs kept\n  no_shouting: 2 in, 1 out, e.g. {LOUD.question!r}: 4 exclamation marks\n",
    )
    rejected = [json.loads(line) for line in (run / "rejected.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(row["filter"], row["reason"]) for row in rejected] == [("no_shouting", "4 exclamation marks")]


def test_a_listing_tells_where_each_plugin_comes_from(install: Any, lumen: Any) -> None:
    install("own_filter", FILTER)
    ref = lumen(FILTER.replace('"own"', '"other"'))
    registry = build_registry(ref)
    assert info_of(registry, "own_filter") == PluginInfo("own_filter", "own_filter-dist", "1.2", ("register_filters",))
    assert info_of(registry, "bundle-lumen") == PluginInfo(
        "bundle-lumen", str(ref.root / "plugin.py"), "", ("register_filters",)
    )
    assert info_of(registry, "filter_form") == PluginInfo("filter_form", "built-in", "", ("register_filters",))
    assert {"own", "other", "length"} <= set(registry.offers("filters"))


def test_every_built_in_file_is_a_plugin_that_loads() -> None:
    registry = build_registry()
    files = {p.stem for p in (ROOT / "plugins").glob("*.py")} | {
        p.parent.name for p in ROOT.glob("plugins/*/__init__.py")
    }
    loaded = {info.name for info in registry.plugins if info.source == "built-in"}
    assert loaded == files - {"__init__"}
    assert [info for info in registry.plugins if info.error or not info.hooks] == []


def test_each_registry_is_its_own(lumen: Any) -> None:
    with_bundle, without = build_registry(lumen(FILTER)), build_registry()
    assert "own" in with_bundle.offers("filters")
    assert "own" not in without.offers("filters")


def test_an_entry_point_may_name_an_object(install: Any) -> None:
    code = FILTER.replace("@hookimpl\ndef register_filters():\n    return [Own]", "")
    code += "\nclass Plugin:\n    @hookimpl(specname='register_filters')\n    def mine(self):\n        return [Own]\n"
    install("an_object", code + "\nplugin = Plugin()\n", target="an_object:plugin")
    registry = build_registry()
    assert info_of(registry, "an_object").hooks == ("register_filters",)
    assert registry.offers("filters")["own"].summary() == "Keeps all."


@pytest.mark.parametrize(
    ("wanted", "expected"), [("", ["one", "two"]), ("one", ["one"]), (" two , one,", ["one", "two"])]
)
def test_the_environment_chooses_entry_points(
    wanted: str, expected: list[str], install: Any, lumen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        install(name, FILTER.replace('"own"', f'"{name}"'))
    monkeypatch.setenv("CAMELBELL_PLUGINS", wanted)
    registry = build_registry(lumen(FILTER))
    offered = registry.offers("filters")
    assert [name for name in ("one", "two") if name in offered] == expected
    assert {"own", "length"} <= set(offered)  # built-ins and the bundle's own always load


# --- plugins that break ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", BREAKS_WHEN_LOADED)
def test_a_plugin_that_breaks_when_loaded_is_named_and_skipped(how: str, install: Any) -> None:
    code, what = BREAKS_WHEN_LOADED[how]
    install("broken", code)
    install("sound", FILTER.replace('"own"', '"sound"'))
    registry = build_registry()
    assert info_of(registry, "broken") == PluginInfo("broken", "broken-dist", "1.2", (), what)
    offered = registry.offers("filters")
    assert "own" not in offered  # nothing of the broken one stays
    assert {"sound", "length"} <= set(offered)


@pytest.mark.parametrize("how", BREAKS_WHEN_LOADED)
def test_a_plugin_that_breaks_when_loaded_is_fatal_if_strict(
    how: str, install: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, what = BREAKS_WHEN_LOADED[how]
    install("broken", code)
    monkeypatch.setenv("CAMELBELL_STRICT", "1")
    with pytest.raises(CamelBellError) as caught:
        build_registry()
    assert caught.value.message == f"plugin 'broken' (broken-dist 1.2) does not load: {what}"


@pytest.mark.parametrize("how", BREAKS_WHEN_CALLED)
def test_a_plugin_that_breaks_when_called_is_named_and_skipped(
    how: str, install: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, what = BREAKS_WHEN_CALLED[how]
    install("broken", OFFER + code)
    registry = build_registry()
    assert info_of(registry, "broken").error == ""
    assert "length" in registry.offers("filters")
    assert info_of(registry, "broken").error == f"register_filters: {what}"
    monkeypatch.setenv("CAMELBELL_STRICT", "1")
    with pytest.raises(CamelBellError) as caught:
        build_registry().offers("filters")
    assert caught.value.message == f"plugin 'broken' does not work: register_filters: {what}"


def test_a_broken_part_is_named_by_the_mistake_that_it_causes(lumen: Any) -> None:
    ref = lumen("raise RuntimeError('boom 炸了')")
    config = ref.root / "character.yaml"
    config.write_text(config.read_text(encoding="utf-8").replace("filters: [length", "filters: [own"), encoding="utf-8")
    with pytest.raises(BundleError) as caught:
        open_run(ref, ref.root.parent / "run")
    assert [problem.what for problem in caught.value.problems] == [
        "there is no filter 'own'; plugin 'bundle-lumen' is skipped: RuntimeError: boom 炸了"
    ]


@pytest.mark.parametrize(
    ("plugin", "what"),
    [
        ("def load_seeds(character):\n    raise KeyError('没有')", "load_seeds: KeyError: '没有'"),
        ("def load_seeds(character):\n    yield {'name': 'x'}", "load_seeds: TypeError: {'name': 'x'} is not a Seed"),
        ("def build_persona(character, language):\n    1 / 0", "build_persona: ZeroDivisionError: division by zero"),
        ("def build_persona(character, language):\n    return 7", "build_persona: TypeError: 7 is not text"),
        (
            "def register_base_models():\n    return [int]",
            "register_base_models: TypeError: <class 'int'> is not a BaseModel class with a name",
        ),
    ],
)
def test_a_bundle_plugin_that_breaks_when_called_is_named_before_any_work(plugin: str, what: str, lumen: Any) -> None:
    ref = lumen(f"from camelbell_core import hookimpl\n@hookimpl\n{plugin}")
    run = open_run(ref, ref.root.parent / "run")
    assert info_of(run.registry, "bundle-lumen").error == what
    assert run.character.extra_seeds == []
    plain = personas(run.character, build_registry())
    assert personas(run.character, run.registry) == plain
    assert plain["en"].startswith("I am Lumen")


def test_a_part_that_cannot_be_made_is_a_mistake_of_the_line_that_names_it(lumen: Any) -> None:
    ref = lumen(
        FILTER.replace('name = "own"', 'name = "own"\n    def __post_init__(self):\n        raise OSError("坏了")')
    )
    config = ref.root / "character.yaml"
    config.write_text(config.read_text(encoding="utf-8").replace("filters: [length", "filters: [own"), encoding="utf-8")
    with pytest.raises(BundleError) as caught:
        open_run(ref, ref.root.parent / "run")
    assert [(problem.key, problem.what) for problem in caught.value.problems] == [
        ("filters.0", "filters: own cannot be made: OSError: 坏了")
    ]


def test_two_parts_with_one_name_are_an_error_with_both_owners(install: Any) -> None:
    install("mine", FILTER.replace('"own"', '"length"'))
    with pytest.raises(CamelBellError) as caught:
        build_registry().offers("filters")
    assert caught.value.message in {
        "two filters are called 'length': one of filter_form, one of mine",
        "two filters are called 'length': one of mine, one of filter_form",
    }
    assert caught.value.hint == "uninstall one, or leave it out with CAMELBELL_PLUGINS"


def test_two_parts_with_one_name_stop_a_run_in_one_line(install: Any, lumen: Any) -> None:
    install("mine", FILTER.replace('"own"', '"length"'))
    ref = lumen()
    with pytest.raises(CamelBellError, match=r"^two filters are called 'length': one of ") as caught:
        open_run(ref, ref.root.parent / "run")
    assert not isinstance(caught.value, BundleError)


def test_the_same_part_offered_twice_is_one_part(install: Any) -> None:
    code = "from camelbell_core import hookimpl\nfrom camelbell_plugins.filter_form import Length\n"
    install("again", code + "@hookimpl\ndef register_filters():\n    return [Length]\n")
    registry = build_registry()
    assert "length" in registry.offers("filters")
    assert info_of(registry, "again").error == ""


def test_a_plugin_that_takes_the_name_of_another_is_skipped(install: Any) -> None:
    install("filter_form", "1 / 0", target="own_form")
    site = install("own_form", FILTER)
    assert (site / "own_form.py").is_file()
    registry = build_registry()
    first, second = (info for info in registry.plugins if info.name == "filter_form")
    assert (first.source, first.error) == ("built-in", "")
    assert second.source == "filter_form-dist"
    assert second.error.startswith("ValueError: Plugin name already registered: filter_form=")
    assert "length" in registry.offers("filters")


# --- the plugin of a bundle -----------------------------------------------------------------------


def test_only_the_chosen_bundles_plugin_is_imported(tmp_path: Path, camelbell: Any) -> None:
    for name in ("one", "two"):
        root = new_bundle(name, "", tmp_path / "characters")
        mark = f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).write_text('{name}')\n"
        (root / "plugin.py").write_text(mark, encoding="utf-8")
    listed = json.loads(camelbell("characters", "--json").stdout)
    assert {row["name"]: row["code"] for row in listed if row["from"] == "./characters"} == {"one": True, "two": True}
    shown = [line for line in camelbell("characters").stdout.splitlines() if line.startswith(("one ", "two "))]
    assert [line.endswith("[runs code: plugin.py]") for line in shown] == [True, True]
    assert camelbell("plugins").returncode == 0
    assert not (tmp_path / "ran").exists()

    checked = camelbell("check", "one", env={"PYTHONDONTWRITEBYTECODE": ""})
    assert (checked.returncode, checked.stderr) == (0, "")
    assert (tmp_path / "ran").read_text(encoding="utf-8") == "one"
    assert not (tmp_path / "characters" / "one" / "__pycache__").exists()  # nothing is ever written into a bundle


PLUGIN = """
from camelbell_core import hookimpl
from camelbell_core.records import Seed

@hookimpl
def load_seeds(character):
    texts = {"zh": ("你怕[thing]吗？",), "en": ("Are you afraid of [thing]?",)}
    return [Seed(f"fear_of_{character.name}", "opinion", texts)]

@hookimpl
def build_persona(character, language):
    return {"zh": "我是{who}，\\n守灯人。"}.get(language)
"""


def with_seeds(lumen: Any) -> Run:
    ref = lumen(PLUGIN)
    config = ref.root / "character.yaml"
    text = config.read_text(encoding="utf-8").replace("questions: [canon, slots]", "questions: [slots]")
    config.write_text(text + "values: {who: {zh: 小灯, en: Lumen}}\n", encoding="utf-8")
    return open_run(ref, ref.root.parent / "run")


def test_the_seeds_of_a_plugin_become_questions(lumen: Any) -> None:
    run = with_seeds(lumen)
    assert make_questions(run, 100)["questions"] == 20
    rows = [json.loads(line) for line in run.workspace.questions.read_text(encoding="utf-8").splitlines()]
    assert {row["text"] for row in rows if row["seed"] == "fear_of_lumen"} == {
        "你怕阿白吗？",
        "你怕暴风雨吗？",
        "你怕热茶吗？",
        "Are you afraid of Pebble?",
        "Are you afraid of storms?",
        "Are you afraid of hot tea?",
    }


def test_the_persona_of_a_plugin_stands_in_training_and_chat_prompts(lumen: Any, scripted: Any) -> None:
    run = with_seeds(lumen)
    chinese, english = "我是小灯， 守灯人。", run.character.config.persona["en"]
    pairs = [Pair("你是谁？", "我是小灯。", "zh"), Pair("Who are you?", "I'm Lumen.", "en")]
    assert [prompt.persona for prompt, _ in training_examples(run, pairs)] == [chinese, english]
    model = scripted(["我是小灯。"], ["I'm Lumen."])
    session = Session(run.character, model, None, (), personas(run.character, run.registry))
    assert [session.ask(pair.question) for pair in pairs] == [pair.answer for pair in pairs]
    assert [prompt.persona for prompt in model.prompts] == [chinese, english]


def test_a_seed_of_a_plugin_may_be_none(lumen: Any) -> None:
    run = open_run(
        lumen("from camelbell_core import hookimpl\n@hookimpl\ndef load_seeds(character):\n    pass"), Path("run")
    )
    assert run.character.extra_seeds == []
    assert info_of(run.registry, "bundle-lumen").error == ""


@pytest.mark.parametrize("text", ["# 编码: 中文\n", "\ufeff# BOM\n", "# line\r\n"])
def test_a_bundle_plugin_is_read_as_python_reads_files(text: str, lumen: Any) -> None:
    ref = lumen("x")
    (ref.root / "plugin.py").write_bytes((text + FILTER).encode("utf-8"))
    registry = build_registry(ref)
    assert registry.pick("filters", "own")().judge(CALM) == Verdict("own")
    assert sys.modules["camelbell_bundle_lumen"].__file__ == str(ref.root / "plugin.py")


def test_a_folder_called_plugin_py_is_no_plugin(tmp_path: Path) -> None:
    root = new_bundle("lumen", "", tmp_path / "characters")
    (root / "plugin.py").mkdir()
    assert find_character("lumen", [root.parent]).plugin is None


# --- picking and making parts ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "name", "message"),
    [
        ("filters", "lenght", "there is no filter 'lenght'; did you mean \"length\"?"),
        ("memories", "cannon", "there is no memory 'cannon'; did you mean \"canon\"?"),
        ("answer_teachers", "罗琳", "there is no answer teacher '罗琳'"),
        ("trainers", "", "there is no trainer ''"),
    ],
)
def test_an_unknown_part_names_the_nearest_and_all(role: str, name: str, message: str) -> None:
    registry = build_registry()
    with pytest.raises(CamelBellError) as caught:
        registry.pick(role, name)
    assert caught.value.message == message
    assert caught.value.hint == f"known {role.replace('_', ' ')}: {', '.join(registry.offers(role))}"


def test_a_part_is_made_with_the_options_of_the_yaml() -> None:
    registry = build_registry()
    assert registry.build(Filter, "filters", "length").judge(CALM).kept
    made = registry.build(Filter, "filters", {"length": {"least": 9}})
    assert made.judge(CALM) == Verdict("length", "5 characters, at least 9 are asked for")
    assert registry.build(Filter, "filters", {"length": {"least": 9}}, {"least": 1}).judge(CALM).kept
    assert registry.build(Filter, "filters", {"length": None}).judge(CALM).kept
    assert registry.build(Memory, "memories", "canon").name == "canon"
    assert registry.build(ChatFrontend, "chat_frontends", "repl").name == "repl"


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ({"length": {"leest": 3}}, 'filters: length: leest: unknown key; did you mean "least"?'),
        ({"length": {"least": "三"}}, "filters: length: least: must be a whole number"),
        ({"length": {"least": []}}, "filters: length: least: must be a whole number"),
        ({"no": {}}, "there is no filter 'no'"),
    ],
)
def test_a_wrong_option_is_told_by_its_name(ref: Any, message: str) -> None:
    with pytest.raises(CamelBellError) as caught:
        build_registry().build(Filter, "filters", ref)
    assert caught.value.message == message


@pytest.mark.parametrize("ref", [{}, {"length": {}, "language": {}}, {"": {}}])
def test_one_entry_names_one_part(ref: Any) -> None:
    with pytest.raises(ValueError, match=r"^name one part: "):
        build_registry().build(Filter, "filters", ref)


def test_the_hooks_of_a_plugin_are_called_with_what_they_ask_for(install: Any, lumen: Any) -> None:
    code = "from camelbell_core import hookimpl\nfrom camelbell_core.records import Seed\n"
    install(
        "no_argument", code + "@hookimpl\ndef load_seeds():\n    return (Seed('灯', 'open', {'zh': ('灯亮吗？',)}),)"
    )
    ref = lumen()
    run = open_run(ref, ref.root.parent / "run")
    assert run.character.extra_seeds == [Seed("灯", "open", {"zh": ("灯亮吗？",)})]
