"""tokens.py gives, id for id, what the transformers tokenizer of the same model gives."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFWriter
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_base import CHAT, EN, STRICT, ZH
from tiny_gguf import GEMMA_TOKENS, byte_level_words, gemma_words

from camelbell_core.prompts import layout_for
from camelbell_core.tokens import FileTokenizer
from camelbell_plugins.base_gguf.convert import write_tokenizer
from camelbell_plugins.base_gguf.header import read_header
from camelbell_plugins.base_gguf.tokenizer import build_tokenizer

TEXTS = [
    "",
    " ",
    "hello world",
    "你好，hello  world\n\n\n",
    "  <eos>hello<start_of_turn>\n",
    "𠮷é😀 1,234.5\t▁▁ x",
    "<0x41><unheard of>",
    "哈利·波特 Harry Potter",
]


def make(folder: Path, words: Any) -> tuple[FileTokenizer, Any]:
    """Write a tokenizer as a GGUF file has it; return it without and with transformers."""
    folder.mkdir()
    writer = GGUFWriter(folder / "words.gguf", "llama")
    words(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    metadata = read_header(folder / "words.gguf").metadata
    write_tokenizer(metadata, folder)
    return FileTokenizer(folder), build_tokenizer(metadata)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[FileTokenizer, Any]]:
    """A tokenizer of each kind, twice."""
    root = tmp_path_factory.mktemp("tokens")
    kinds = {
        "gemma": gemma_words,
        "bytes": byte_level_words(),
        "smollm": byte_level_words(pre="smollm"),
        "chat": byte_level_words(CHAT),
        "strict": byte_level_words(STRICT),
    }
    return {name: make(root / name, words) for name, words in kinds.items()}


KINDS = ("gemma", "bytes", "smollm", "chat", "strict")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", TEXTS)
def test_the_ids_and_their_text_are_those_of_transformers(
    pairs: dict[str, tuple[FileTokenizer, Any]], kind: str, text: str
) -> None:
    ours, theirs = pairs[kind]
    for split in (False, True):
        expected = theirs(text, add_special_tokens=False, split_special_tokens=split)["input_ids"]
        assert ours(text, split_special_tokens=split)["input_ids"] == expected
        assert ours.decode(expected) == theirs.decode(expected)
    special = ("bos_token_id", "eos_token_id", "pad_token_id")
    assert {key: getattr(ours, key) for key in special} == {key: getattr(theirs, key) for key in special}
    assert len(ours) == len(theirs)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from([*GEMMA_TOKENS, " ", "\n", "<eo", "s>", "😀", "\x00", "hel", "低"]), max_size=14).map(
        "".join
    )
)
def test_a_part_of_the_vocabulary_gives_the_ids_of_the_whole(
    pairs: dict[str, tuple[FileTokenizer, Any]], text: str
) -> None:
    ours, theirs = pairs["gemma"]
    for split in (False, True):
        expected = theirs(text, add_special_tokens=False, split_special_tokens=split)["input_ids"]
        assert ours(text, split_special_tokens=split)["input_ids"] == expected


def test_a_long_text_takes_the_whole_vocabulary(pairs: dict[str, tuple[FileTokenizer, Any]]) -> None:
    ours, theirs = pairs["gemma"]
    text = "hello world 你好，" * 4000
    assert ours(text)["input_ids"] == theirs(text, add_special_tokens=False)["input_ids"]
    assert ours("你好")["input_ids"] == theirs("你好", add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("kind", ["gemma", "bytes", "chat", "strict"])
def test_the_layouts_prompts_are_the_same(pairs: dict[str, tuple[FileTokenizer, Any]], kind: str) -> None:
    ours, theirs = (layout_for(tokenizer) for tokenizer in pairs[kind])
    assert type(ours) is type(theirs)
    for prompt in (ZH, EN):
        assert ours.prefix(prompt) == theirs.prefix(prompt)
    assert (ours.digest(), ours.end_ids) == (theirs.digest(), theirs.end_ids)


def test_transformers_is_not_imported(pairs: dict[str, tuple[FileTokenizer, Any]], tmp_path: Path) -> None:
    make(tmp_path / "again", byte_level_words(CHAT))
    code = (
        "import sys; from pathlib import Path; from camelbell_core.tokens import FileTokenizer; "
        "from camelbell_core.prompts import Prompt, layout_for; tokenizer = FileTokenizer(Path(sys.argv[1])); "
        "print(layout_for(tokenizer).prefix(Prompt('zh', '我', '你好')), "
        "*({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "again"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)


@pytest.mark.real_base
def test_gemmas_ids_are_the_same_on_the_bundles_words(
    real_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from random import Random

    from transformers import AutoTokenizer

    from camelbell_core.character import find_character, read_character
    from camelbell_plugins.base_gguf import PACKAGES, PackagedBase
    from camelbell_plugins.base_gguf.convert import cached_folder

    monkeypatch.setenv("CAMELBELL_HOME", str(real_home))
    ours = PackagedBase().gguf("embedded").tokenizer()
    theirs = AutoTokenizer.from_pretrained(str(cached_folder("embedded", PACKAGES["embedded"])))
    facts = read_character(find_character("harry_potter")).canon.facts.values()
    texts = [text for fact in facts for texts in (fact.text, fact.voice) for text in texts.values()]
    tokens = theirs.convert_ids_to_tokens(list(range(0, len(theirs), 97)))
    for text in [*Random(1).sample(texts, 300), *TEXTS, *tokens]:
        for split in (False, True):
            expected = theirs(text, add_special_tokens=False, split_special_tokens=split)["input_ids"]
            assert ours(text, split_special_tokens=split)["input_ids"] == expected, text
