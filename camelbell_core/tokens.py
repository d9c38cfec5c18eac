"""A tokenizer read from its files by the tokenizers library, for prompts.py, without transformers."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_LONG = 50_000  # characters of a text from which on the whole vocabulary is taken


class Backend(Protocol):
    """Where a tokenizer's ids come from."""

    def of(self, text: str) -> Tokenizer:
        """Return a tokenizer that is right for this text."""

    def of_ids(self, ids: list[int]) -> Tokenizer:
        """Return a tokenizer that is right for these ids."""

    def size(self) -> int:
        """Return how many tokens there are."""


class FileTokenizer:
    """Gives the ids that the transformers tokenizer of the same model gives.

    The folder holds ``tokenizer.json`` as the library reads it, or ``vocabulary.json`` (see ``ImpliedMerges``);
    ``special.json`` beside it names the special ids and holds the chat template, if there is one.
    """

    def __init__(self, folder: Path) -> None:
        self._alone = Lock()
        implied = folder / "vocabulary.json"
        self._backend: Backend = ImpliedMerges(implied) if implied.is_file() else Whole(folder / "tokenizer.json")
        special = json.loads((folder / "special.json").read_text(encoding="utf-8"))
        self.bos_token_id: int | None = special["bos_token_id"]
        self.eos_token_id: int = special["eos_token_id"]
        self.pad_token_id: int | None = special["pad_token_id"]
        self.chat_template: str | None = special["chat_template"]

    def __call__(
        self, text: str, add_special_tokens: bool = False, split_special_tokens: bool = False
    ) -> dict[str, list[int]]:
        """Return the ids of a text; ``split_special_tokens`` reads a special token that is spelled out as text."""
        with self._alone:
            backend = self._backend.of(text)
            backend.encode_special_tokens = split_special_tokens
            return {"input_ids": backend.encode(text, add_special_tokens=add_special_tokens).ids}

    def __len__(self) -> int:
        """Return how many tokens there are."""
        return self._backend.size()

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        """Return the text of ids."""
        with self._alone:
            return str(self._backend.of_ids(ids).decode(ids, skip_special_tokens=skip_special_tokens))

    def apply_chat_template(
        self, messages: list[dict[str, str]], add_generation_prompt: bool = True, **options: Any
    ) -> list[int]:
        """Return the ids that the chat template gives; it may refuse a role by jinja2's ``TemplateError``."""
        text = self._template.render(
            messages=messages, add_generation_prompt=add_generation_prompt, **self._special_texts
        )
        return self(text)["input_ids"]

    @cached_property
    def _template(self) -> Any:
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        def refuse(why: str) -> None:
            raise TemplateError(why)

        world = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        world.globals["raise_exception"] = refuse
        return world.from_string(self.chat_template or "")

    @cached_property
    def _special_texts(self) -> dict[str, str]:
        ids = {"bos_token": self.bos_token_id, "eos_token": self.eos_token_id, "pad_token": self.pad_token_id}
        given = {name: number for name, number in ids.items() if number is not None}
        return {name: self._backend.of_ids([number]).id_to_token(number) or "" for name, number in given.items()}


class Whole:
    """A tokenizer as its file has it."""

    def __init__(self, file: Path) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(file))

    def of(self, text: str) -> Tokenizer:
        """Return the tokenizer."""
        return self._tokenizer

    def of_ids(self, ids: list[int]) -> Tokenizer:
        """Return the tokenizer."""
        return self._tokenizer

    def size(self) -> int:
        """Return how many tokens there are."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))


class ImpliedMerges:
    """A BPE tokenizer whose merges follow from its vocabulary, opened with as much of it as a text needs.

    Half a million merges take a second and a half to read. Byte pair encoding of a text can only make tokens that
    stand in the text, by merges of tokens that stand in it, too: so a tokenizer that has these alone gives the same
    ids. It is made in milliseconds, and anew for a text that needs another part. ``vocabulary.json`` holds the tokens
    in their order, which is that of the merges (the longest left part first), those that are kept whole, and the
    tokenizer's other settings as ``frame``.
    """

    def __init__(self, file: Path) -> None:
        data = json.loads(file.read_text(encoding="utf-8"))
        self._frame: dict[str, Any] = data["frame"]
        self._tokens: list[str] = data["tokens"]
        self._ids = {token: number for number, token in enumerate(self._tokens)}
        self._added: dict[str, bool] = data["added"]  # those that are kept whole, and whether they are special
        self._blank: str = data["blank"]  # what a blank is spelled as
        self._longest: int = data["longest"]
        self._always: frozenset[str] = frozenset(data["always"])
        self._known: frozenset[str] = frozenset()
        self._tokenizer: Tokenizer | None = None

    def of(self, text: str) -> Tokenizer:
        """Return the tokenizer, with every token that stands in this text."""
        if len(text) > _LONG:
            return self._with(self._ids.keys())
        spelled, reach = text.replace(" ", self._blank), range(1, self._longest + 1)
        ids = self._ids
        found = {part for i in range(len(text)) for n in reach if (part := spelled[i : i + n]) in ids}
        if text != spelled:
            found |= {part for i in range(len(text)) for n in reach if (part := text[i : i + n]) in self._added}
        return self._with(found)

    def of_ids(self, ids: list[int]) -> Tokenizer:
        """Return the tokenizer, with every one of these tokens and what it is made of."""
        parts = set()
        for number in ids:
            token = self._tokens[number]
            parts |= {token, *(token[i:j] for i in range(len(token)) for j in range(i + 1, len(token) + 1))}
        return self._with(parts & self._ids.keys())

    def size(self) -> int:
        """Return how many tokens there are."""
        return len(self._tokens)

    def _with(self, tokens: Any) -> Tokenizer:
        from tokenizers import Tokenizer

        if self._tokenizer is None or not tokens <= self._known:
            self._known = self._always | tokens
            self._tokenizer = Tokenizer.from_str(json.dumps(self._part(), ensure_ascii=False))
        return self._tokenizer

    def _part(self) -> dict[str, Any]:
        """Return the tokenizer's file as far as it is known, its tokens under the numbers that they have in the whole."""
        known, added = self._known, self._added
        tokens = sorted(known, key=self._ids.__getitem__)
        merges = [
            (token[:cut], token[cut:])
            for token in tokens
            for cut in range(len(token) - 1, 0, -1)
            if token[:cut] in known and token[cut:] in known
        ]
        plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        whole = [{"id": self._ids[t], "content": t, **plain, "special": added[t]} for t in tokens if t in added]
        model = {**self._frame["model"], "vocab": {token: self._ids[token] for token in tokens}, "merges": merges}
        return {**self._frame, "added_tokens": whole, "model": model}
