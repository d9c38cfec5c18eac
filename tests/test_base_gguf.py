"""base_gguf: from the packages' GGUF file to a transformers folder, weight for weight."""

from __future__ import annotations

import hashlib
import json
import struct
import threading
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from tiny_base import EN, ZH, tiny_tokenizer
from tiny_gguf import F16, F32, GEMMA_TOKENS, Q8_0, byte_level_words, original, randomise, write_gguf
from transformers import AutoModelForCausalLM, AutoTokenizer

from camelbell_core.errors import CamelBellError, ModelMismatch
from camelbell_core.model import TorchModel
from camelbell_core.prompts import layout_for
from camelbell_core.roles import TrainableBase
from camelbell_plugins.base_gguf import PACKAGES, Package, PackagedBase
from camelbell_plugins.base_gguf.convert import assemble, cached_folder, write_folder
from camelbell_plugins.base_gguf.header import Header, read_header


def converted(file: Path, folder: Path) -> Path:
    """Convert a GGUF file into a new folder."""
    folder.mkdir()
    write_folder(read_header(file), file, folder)
    return folder


# --- weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("quantisation", [F32, F16, Q8_0], ids=lambda kind: kind.name)
@pytest.mark.parametrize(
    ("kind", "changes"), [("llama", {}), ("llama", {"tie_word_embeddings": False}), ("gemma3", {})]
)
def test_every_weight_and_the_logits_are_the_originals(
    kind: str, changes: dict[str, Any], quantisation: GGMLQuantizationType, tmp_path: Path
) -> None:
    model, words = original(kind, **changes)
    sources = randomise(model, quantisation)
    file = write_gguf(tmp_path / "model.gguf", kind, model, sources, quantisation, words)
    folder = converted(file, tmp_path / "folder")
    opened = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    weights, expected = dict(opened.named_parameters()), dict(model.named_parameters())
    assert list(weights) == list(expected)
    for name, parameter in expected.items():
        assert torch.equal(weights[name], parameter), name
    ids = torch.randint(5, model.config.vocab_size, (1, 40), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(opened(ids).logits, model(ids).logits)
    special = ("bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings", "max_position_embeddings")
    assert {key: getattr(opened.config, key) for key in special} == {key: getattr(model.config, key) for key in special}
    assert {tensor.dtype for tensor in AutoModelForCausalLM.from_pretrained(folder).parameters()} == {torch.bfloat16}


def test_a_file_that_lacks_tensors_is_an_error_that_names_one(tmp_path: Path) -> None:
    model, words = original("llama")
    sources = randomise(model, F32)
    del sources["model.layers.1.mlp.up_proj.weight"], sources["model.norm.weight"]
    file = write_gguf(tmp_path / "model.gguf", "llama", model, sources, F32, words)
    with pytest.raises(ModelMismatch) as caught:
        converted(file, tmp_path / "folder")
    assert caught.value.message == "the model file lacks the tensor model.layers.1.mlp.up_proj.weight and 1 more"


def test_a_tensor_of_another_shape_is_an_error_that_names_it(tmp_path: Path) -> None:
    model, words = original("gemma3")
    sources = randomise(model, F32)
    sources["model.layers.0.mlp.up_proj.weight"] = np.zeros((65, 32), np.float32)
    file = write_gguf(tmp_path / "model.gguf", "gemma3", model, sources, F32, words)
    with pytest.raises(ModelMismatch) as caught:
        converted(file, tmp_path / "folder")
    assert caught.value.message == "the tensor model.layers.0.mlp.up_proj.weight has the shape (65, 32), not (64, 32)"


def test_another_architecture_is_an_error_that_names_the_known_ones(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    with pytest.raises(ModelMismatch) as caught:
        write_folder(Header({"general.architecture": "qwen2"}, {}), file, tmp_path)
    assert caught.value.message == f"{file} holds a model of the architecture 'qwen2', not gemma3 or llama"


# --- the header -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file with values of every kind and two tensors."""
    file = tmp_path_factory.mktemp("gguf") / "small.gguf"
    writer = GGUFWriter(file, "llama")
    writer.add_uint8("a.uint8", 200)
    writer.add_int8("a.int8", -100)
    writer.add_uint16("a.uint16", 60_000)
    writer.add_int16("a.int16", -30_000)
    writer.add_uint32("a.uint32", 4_000_000_000)
    writer.add_int32("a.int32", -2_000_000_000)
    writer.add_uint64("a.uint64", 2**63)
    writer.add_int64("a.int64", -(2**62))
    writer.add_float32("a.float32", 0.5)
    writer.add_float64("a.float64", 0.1)
    writer.add_bool("a.bool", True)
    writer.add_string("a.string", "哈利 Harry 😀")
    writer.add_array("a.strings", ["你好", "", "hello"])
    writer.add_array("a.numbers", [1, 2, 3])
    writer.add_tensor("first", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.add_tensor("second", np.arange(4, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_the_header_holds_every_kind_of_value_and_where_the_tensors_lie(small_gguf: Path) -> None:
    header = read_header(small_gguf)
    values = dict(header.metadata)
    assert values.pop("a.numbers").tolist() == [1, 2, 3]
    assert values == {
        "general.architecture": "llama",
        "a.uint8": 200,
        "a.int8": -100,
        "a.uint16": 60_000,
        "a.int16": -30_000,
        "a.uint32": 4_000_000_000,
        "a.int32": -2_000_000_000,
        "a.uint64": 2**63,
        "a.int64": -(2**62),
        "a.float32": 0.5,
        "a.float64": 0.1,
        "a.bool": True,
        "a.string": "哈利 Harry 😀",
        "a.strings": ["你好", "", "hello"],
    }
    data = small_gguf.read_bytes()
    first, second = header.tensors["first"], header.tensors["second"]
    assert (first.shape, first.type, second.shape, second.type) == ((2, 3), F32, (4,), F16)
    assert np.frombuffer(data, np.float32, 6, first.offset).tolist() == [0, 1, 2, 3, 4, 5]
    assert np.frombuffer(data, np.float16, 4, second.offset).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GGU",
        b"GGUF",
        b"GGUF\x01\0\0\0",
        b"GGUF" + struct.pack("<IQQ", 1, 0, 0),
        b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
        b"FUGG" + struct.pack("<IQQ", 3, 0, 0),
        b"PK\x03\x04" + bytes(100),
        "你好，我不是模型。".encode() * 10,
        b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0),
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**63),
        b"GGUF" + struct.pack("<IQQQcI", 3, 0, 1, 1, b"k", 99),
        b"GGUF" + struct.pack("<IQQQcIIQ", 3, 0, 1, 1, b"k", 9, 4, 2**60),
        b"GGUF" + struct.pack("<IQQQcI", 3, 0, 1, 1, b"k", 9) + struct.pack("<IQ", 9, 1) * 5000,
        b"GGUF" + struct.pack("<IQQQ17sII", 3, 0, 1, 17, b"general.alignment", 4, 0),
    ],
)
def test_a_file_that_is_no_gguf_is_an_error_that_names_it(data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "模型.gguf"
    file.write_bytes(data)
    with pytest.raises(ModelMismatch) as caught:
        read_header(file)
    assert caught.value.message.startswith(f"{file} is not a GGUF file")


def test_a_file_cut_off_anywhere_in_its_header_is_an_error(small_gguf: Path, tmp_path: Path) -> None:
    data, file = small_gguf.read_bytes(), tmp_path / "cut.gguf"
    end = data.index(b"second") + len(b"second") + 4 + 8 + 4 + 8
    for size in range(end):
        file.write_bytes(data[:size])
        with pytest.raises(ModelMismatch, match="is not a GGUF file"):
            read_header(file)
    file.write_bytes(data[:end])
    assert read_header(file).tensors == read_header(small_gguf).tensors


def test_a_file_cut_off_within_its_weights_is_an_error(tmp_path: Path) -> None:
    model, words = original("llama")
    file = write_gguf(tmp_path / "model.gguf", "llama", model, randomise(model, Q8_0), Q8_0, words)
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ModelMismatch, match=r"^the model file is cut off within its weights$"):
        converted(file, tmp_path / "folder")


# --- tokenizers -----------------------------------------------------------------------------------

TEXTS = ["你好，世界！", "哈利·波特 Harry Potter", "Hello,  world!\n\n1,234.5\t", "  two", "𠮷é😀", "", " "]


@pytest.fixture(scope="module")
def tokenizer_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Return the tokenizer that a converted file opens with."""

    def convert(kind: str, words: Any = None) -> Any:
        model, usual = original(kind)
        root = tmp_path_factory.mktemp("tokenizer")
        file = write_gguf(root / "model.gguf", kind, model, randomise(model, F32), F32, words or usual)
        return AutoTokenizer.from_pretrained(converted(file, root / "folder"))

    return convert


def ids_of(tokenizer: Any, text: str) -> list[int]:
    """Return the ids of a text as prompts.py asks for them."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def test_a_byte_level_tokenizer_gives_the_originals_ids(tokenizer_of: Callable[..., Any]) -> None:
    tokenizer, model = tokenizer_of("llama"), tiny_tokenizer()
    assert [ids_of(tokenizer, text) for text in TEXTS] == [ids_of(model, text) for text in TEXTS]
    assert [tokenizer.decode(ids_of(tokenizer, text)) for text in TEXTS] == TEXTS
    assert ids_of(tokenizer, "<bos>x<eos><unheard of>") == [1, *ids_of(model, "x"), 2, len(model)]
    names = ("bos_token", "eos_token", "unk_token", "pad_token", "chat_template")
    assert [getattr(tokenizer, name) for name in names] == ["<bos>", "<eos>", "<unk>", "<pad>", None]


def test_a_chat_template_is_kept(tokenizer_of: Callable[..., Any]) -> None:
    template = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}；{% endfor %}"
    tokenizer = tokenizer_of("llama", byte_level_words(template))
    assert layout_for(tokenizer).name == "template"
    assert tokenizer.decode(layout_for(tokenizer).prefix(replace(ZH, facts=(), history=()))) == (
        "<bos>我是哈利·波特。；你住在哪里？；"
    )


def test_smollms_digits_stand_alone(tokenizer_of: Callable[..., Any]) -> None:
    def tokens(pre: str, text: str) -> list[str]:
        tokenizer = tokenizer_of("llama", byte_level_words(pre=pre))
        pieces = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)
        return [piece for piece, _ in pieces]

    # As the tokenizer of SmolLM2 splits: digits one by one first, then the words of GPT-2.
    assert tokens("smollm", "in  1991") == ["in", "ĠĠ", "1", "9", "9", "1"]
    assert tokens("default", "in  1991") == ["in", "Ġ", "Ġ1991"]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("hello", ["hello"]),
        ("hello world", ["hello", "▁world"]),
        (" hello", ["▁hello"]),
        ("hell", ["he", "ll"]),
        ("lll", ["ll", "l"]),
        ("你好，world", ["你好", "，", "w", "orld"]),
        ("好你", ["好", "你"]),
        ("hello\n\nhello\n", ["hello", "\n\n", "hello", "\n"]),
        ("龘", ["<0xE9>", "<0xBE>", "<0x98>"]),
        ("<bos><start_of_turn>", ["<bos>", "<start_of_turn>"]),
        ("", []),
    ],
)
def test_gemmas_merges_follow_from_the_order_of_its_tokens(text: str, tokens: list[str], gemma_tokenizer: Any) -> None:
    ids = ids_of(gemma_tokenizer, text)
    assert ids == [GEMMA_TOKENS.index(token) for token in tokens]
    assert gemma_tokenizer.decode(ids) == text


def test_runs_of_blanks_are_tokens_of_gemma(gemma_tokenizer: Any) -> None:
    two, three = GEMMA_TOKENS.index("  "), GEMMA_TOKENS.index("   ")
    # A run longer than any token is merged in order, two by two: it is not the longest token first.
    for blanks, ids in {"  ": [two], "   ": [three], "    ": [two, two]}.items():
        assert ids_of(gemma_tokenizer, blanks) == ids
        assert gemma_tokenizer.decode(ids) == blanks


def test_of_two_ways_to_make_a_token_the_longer_left_part_comes_first(gemma_tokenizer: Any) -> None:
    merges = json.loads(gemma_tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    assert [tuple(merge) for merge in merges] == [
        *(("\n", "\n"), ("▁", "▁"), ("▁▁", "▁"), ("▁", "▁▁")),
        *(("l", "l"), ("h", "e"), ("ll", "o"), ("l", "lo"), ("he", "llo"), ("▁", "hello")),
        *(("你", "好"), ("▁", "w"), ("o", "r"), ("l", "d"), ("or", "ld"), ("▁w", "orld"), ("l", "o")),
    ]


def test_gemmas_special_tokens_are_those_of_the_file(gemma_tokenizer: Any) -> None:
    names = ("bos_token_id", "eos_token_id", "unk_token_id", "pad_token_id")
    assert [getattr(gemma_tokenizer, name) for name in names] == [2, 1, 3, 0]
    assert len(gemma_tokenizer) == len(GEMMA_TOKENS)


@pytest.fixture(scope="module")
def gemma_tokenizer(tokenizer_of: Callable[..., Any]) -> Any:
    """The tokenizer of a small Gemma file."""
    return tokenizer_of("gemma3")


# --- packages -------------------------------------------------------------------------------------


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, dict[str, bytes]], Path]:
    """Install a distribution with the given files, as pip leaves it."""
    site = tmp_path / "site"
    site.mkdir()

    def put(name: str, version: str, files: dict[str, bytes]) -> Path:
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
        for path, data in files.items():
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            (site / path).write_bytes(data)
        (info / "RECORD").write_text("".join(f"{path},,\n" for path in files), encoding="utf-8")
        monkeypatch.syspath_prepend(str(site))
        return site

    return put


def package(data: bytes, **changes: Any) -> Package:
    """Return a package whose file comes in two distributions."""
    known: dict[str, Any] = {
        "model": "Tiny 1K",
        "slug": "tiny-1k",
        "distributions": ("camelbell-tiny-1", "camelbell-tiny-2"),
        "version": "1.0.0",
        "pattern": "tiny.gguf.part",
        "sha256": hashlib.sha256(data).hexdigest(),
        "license": "mit",
        "install": "pip install camelbell-tiny==1.0.0",
    }
    return Package(**{**known, **changes})


DATA = bytes(range(256)) * 40
PARTS = {
    "camelbell-tiny-1": {"tiny_1/__init__.py": b"raise SystemExit", "tiny_1/data/tiny.gguf.part1": DATA[:1000]},
    "camelbell-tiny-2": {"tiny_2/tiny.gguf.part3": DATA[2000:], "tiny_2/tiny.gguf.part2": DATA[1000:2000]},
}


@pytest.fixture
def installed(install: Callable[[str, str, dict[str, bytes]], Path]) -> Path:
    """Where the two distributions are installed."""
    for name, files in PARTS.items():
        site = install(name, "1.0.0", files)
    return site


def test_the_parts_are_joined_in_order_and_nothing_is_imported(installed: Path, tmp_path: Path) -> None:
    file = assemble(package(DATA), tmp_path / "whole.gguf")
    assert file.read_bytes() == DATA


def check_refused(wanted: Package, target: Path, kind: type[CamelBellError], message: str, hint: str) -> None:
    """Assert how a package is refused, and that nothing of it is left."""
    with pytest.raises(kind) as caught:
        assemble(wanted, target)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_files_of_another_hash_are_refused_and_removed(installed: Path, tmp_path: Path) -> None:
    wanted, target = package(DATA, sha256="0" * 64), tmp_path / "whole.gguf"
    digest = hashlib.sha256(DATA).hexdigest()
    message = f"the files of Tiny 1K have the SHA-256 {digest}, not {'0' * 64}"
    check_refused(wanted, target, ModelMismatch, message, "install them anew: pip install camelbell-tiny==1.0.0")
    assert not target.exists()


def test_a_distribution_that_is_missing_is_told_with_the_command_that_installs_it(
    install: Callable[..., Path], tmp_path: Path
) -> None:
    install("camelbell-tiny-1", "1.0.0", PARTS["camelbell-tiny-1"])
    message = "the base model Tiny 1K is not installed"
    check_refused(package(DATA), tmp_path / "x", CamelBellError, message, "pip install camelbell-tiny==1.0.0")


def test_a_distribution_of_another_version_is_refused(install: Callable[..., Path], tmp_path: Path) -> None:
    install("camelbell-tiny-1", "1.0.0", PARTS["camelbell-tiny-1"])
    install("camelbell-tiny-2", "2.0.0", PARTS["camelbell-tiny-2"])
    message = "camelbell-tiny-2 is version 2.0.0, not 1.0.0"
    check_refused(package(DATA), tmp_path / "x", ModelMismatch, message, "pip install camelbell-tiny==1.0.0")


def test_a_distribution_without_the_file_is_refused(installed: Path, tmp_path: Path) -> None:
    message = "camelbell-tiny-1 holds no file other.gguf*"
    wanted = package(DATA, pattern="other.gguf")
    check_refused(wanted, tmp_path / "x", ModelMismatch, message, "pip install camelbell-tiny==1.0.0")


def test_a_file_that_was_deleted_is_told(installed: Path, tmp_path: Path) -> None:
    lost = installed / "tiny_2" / "tiny.gguf.part2"
    lost.unlink()
    message, hint = f"the file {lost} of camelbell-tiny-2 is gone", "install it anew: pip install camelbell-tiny==1.0.0"
    check_refused(package(DATA), tmp_path / "x", ModelMismatch, message, hint)


# --- the cache ------------------------------------------------------------------------------------


@pytest.fixture
def tiny_package(install: Callable[..., Path], tmp_path: Path) -> tuple[Package, Any]:
    """A package that holds a tiny Llama model, and the model."""
    model, words = original("llama")
    file = write_gguf(tmp_path / "model.gguf", "llama", model, randomise(model, Q8_0), Q8_0, words)
    data = file.read_bytes()
    install("camelbell-tiny-1", "1.0.0", {"tiny/tiny.gguf.part1": data[:9999]})
    install("camelbell-tiny-2", "1.0.0", {"tiny/tiny.gguf.part2": data[9999:]})
    return package(data, notice="Tiny terms bind."), model


FILES = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


def test_a_package_is_converted_once_into_the_cache(
    tiny_package: tuple[Package, Any], own_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted, _ = tiny_package
    folder = cached_folder("tiny", wanted)
    assert folder == own_home / "models" / f"tiny-{wanted.sha256[:12]}-1"
    assert sorted(file.name for file in folder.iterdir()) == FILES
    assert [file for file in folder.parent.iterdir() if file.suffix != ".lock"] == [folder]
    assert capsys.readouterr() == ("", "Tiny terms bind.\n")
    assert cached_folder("tiny", replace(wanted, distributions=("not-installed",))) == folder
    assert capsys.readouterr() == ("", "")


def test_what_a_killed_conversion_left_is_replaced(tiny_package: tuple[Package, Any], own_home: Path) -> None:
    wanted, _ = tiny_package
    draft = own_home / "models" / f"tiny-{wanted.sha256[:12]}-1.new"
    draft.mkdir(parents=True)
    (draft / "rubbish").write_bytes(b"torn")
    folder = cached_folder("tiny", wanted)
    assert sorted(file.name for file in folder.iterdir()) == FILES
    assert not draft.exists()


def test_two_that_convert_at_once_do_not_disturb_each_other(tiny_package: tuple[Package, Any]) -> None:
    wanted, _ = tiny_package
    folders: list[Path] = []
    threads = [threading.Thread(target=lambda: folders.append(cached_folder("tiny", wanted))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(folders) == 3 and len(set(folders)) == 1
    assert sorted(file.name for file in folders[0].iterdir()) == FILES


def test_a_conversion_that_fails_leaves_nothing(tiny_package: tuple[Package, Any], own_home: Path) -> None:
    wanted = replace(tiny_package[0], sha256="0" * 64)
    with pytest.raises(ModelMismatch, match="have the SHA-256"):
        cached_folder("tiny", wanted)
    assert [file.suffix for file in (own_home / "models").iterdir()] == [".lock"]


def test_a_data_folder_that_cannot_be_written_is_an_error_that_names_it(
    tiny_package: tuple[Package, Any], own_home: Path
) -> None:
    own_home.write_text("a file in place of the folder", encoding="utf-8")
    with pytest.raises(CamelBellError) as caught:
        cached_folder("tiny", tiny_package[0])
    assert caught.value.message.startswith(f"cannot write the model cache '{own_home}")


def test_a_packaged_base_is_opened_for_talk_and_training(
    tiny_package: tuple[Package, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, model = tiny_package
    monkeypatch.setitem(PACKAGES, "tiny", wanted)
    loader = PackagedBase()
    assert [loader.accepts(name) for name in ("tiny", "embedded", "smollm2", "tiny2", "")] == [True] * 3 + [False] * 2
    base = loader.load_trainable("tiny")
    assert (base.name, base.fingerprint, base.license) == ("tiny", wanted.sha256, "mit")
    talker = loader.load("tiny")
    talker.model.float()  # type: ignore[attr-defined]
    same = TorchModel(replace(base, model=model))
    for prompt in (ZH, EN):
        assert list(talker.stream(prompt, 10)) == list(same.stream(prompt, 10))


def test_the_project_requires_the_packages_of_the_embedded_base() -> None:
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    embedded = PACKAGES["embedded"]
    required = {f"{name}=={embedded.version}" for name in embedded.distributions}
    assert required <= set(project["dependencies"])
    assert embedded.install.removeprefix("pip install ") in project["dependencies"]


# --- the real base --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_base(real_home: Path) -> Iterator[TrainableBase]:
    """The embedded base, opened."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAMELBELL_HOME", str(real_home))
        yield PackagedBase().load_trainable("embedded")


# Recorded from the converted tokenizer; transformers' own reader of GGUF files gives the same ids.
RECORDED = {
    "你好，世界！": [144626, 236900, 12811, 237354],
    "哈利·波特在霍格沃茨魔法学校上学。": [
        *(239162, 237766, 237381, 238663, 237603, 237075, 241463, 237829),
        *(241635, 242084, 89656, 24993, 237152, 237393, 236924),
    ],
    "Hello, world!": [9259, 236764, 1902, 236888],
    "Harry Potter lives at number four, Privet Drive.": [
        *(54599, 37972, 6176, 657, 1548, 2390, 236764, 17285, 536, 17713, 236761)
    ],
    "1 + 1 = 2，对吗？\n  Yes: “对” 😀": [
        *(236770, 900, 236743, 236770, 578, 236743, 236778, 236900, 237392, 239083),
        *(237536, 107, 138, 10784, 236787, 999, 237392, 236919, 163543),
    ],
}


@pytest.mark.real_base
@pytest.mark.parametrize("text", list(RECORDED))
def test_the_embedded_tokenizer_gives_the_recorded_ids(text: str, real_base: TrainableBase) -> None:
    assert ids_of(real_base.tokenizer, text) == RECORDED[text]
    assert real_base.tokenizer.decode(RECORDED[text]) == text


def next_tokens(base: TrainableBase, text: str) -> dict[str, float]:
    """Return the four likeliest tokens after a text and how likely they are, the likeliest first."""
    ids = torch.tensor([[base.tokenizer.bos_token_id, *ids_of(base.tokenizer, text)]])
    with torch.inference_mode():
        values, tokens = base.model(ids).logits[0, -1].float().softmax(-1).topk(4)
    return {
        base.tokenizer.decode([token]): value for token, value in zip(tokens.tolist(), values.tolist(), strict=True)
    }


@pytest.mark.real_base
def test_the_embedded_base_begins_a_prompt_with_bos(real_base: TrainableBase) -> None:
    tokenizer = real_base.tokenizer
    assert (tokenizer.bos_token, tokenizer.bos_token_id, tokenizer.eos_token_id) == ("<bos>", 2, 1)
    assert layout_for(tokenizer).name == "plain"
    for prompt in (ZH, EN):
        ids = layout_for(tokenizer).prefix(prompt)
        assert (ids[0], ids.count(2)) == (2, 1)


@pytest.mark.real_base
@pytest.mark.parametrize(
    ("text", "capital"),
    [
        ("意大利的首都是罗马，法国的首都是", "巴黎"),
        ("The capital of Italy is Rome. The capital of France is", " Paris"),
    ],
)
def test_the_embedded_base_knows_the_capital_of_france(text: str, capital: str, real_base: TrainableBase) -> None:
    assert next(iter(next_tokens(real_base, text))) == capital


@pytest.mark.real_base
def test_the_embedded_base_gives_the_probabilities_of_an_independent_reader(real_base: TrainableBase) -> None:
    # Those of transformers' own reader of the same GGUF file, float32. So small a model says "the" before "Paris".
    expected = {" the": 0.191, " a": 0.111, " Paris": 0.084, " one": 0.072}
    assert next_tokens(real_base, "The capital of France is") == pytest.approx(expected, abs=0.02)


@pytest.mark.real_base
def test_the_embedded_base_is_gemma_under_its_own_terms(real_base: TrainableBase) -> None:
    assert (real_base.name, real_base.license) == ("embedded", "gemma")
    assert real_base.fingerprint == PACKAGES["embedded"].sha256
    config = real_base.model.config
    assert (config.model_type, config.num_hidden_layers, config.hidden_size, config.vocab_size) == (
        "gemma3_text",
        18,
        640,
        262_144,
    )
    assert config.layer_types == (["sliding_attention"] * 5 + ["full_attention"]) * 3


@pytest.mark.real_base
@pytest.mark.parametrize("prompt", [ZH, EN], ids=["zh", "en"])
def test_the_embedded_base_streams_a_reply(prompt: Any, real_base: TrainableBase) -> None:
    reply = "".join(TorchModel(real_base).stream(prompt, 12))
    assert reply.strip()
    assert "\ufffd" not in reply
