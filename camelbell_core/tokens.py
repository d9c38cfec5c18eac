"""A tokenizer read from its file by the tokenizers library, for prompts.py, without transformers."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any


class FileTokenizer:
    """Gives the ids that the transformers tokenizer of the same ``tokenizer.json`` gives.

    ``special.json`` beside it names the special ids and holds the chat template, if there is one.
    """

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self._alone = Lock()
        self._backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
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
            self._backend.encode_special_tokens = split_special_tokens
            return {"input_ids": self._backend.encode(text, add_special_tokens=add_special_tokens).ids}

    def __len__(self) -> int:
        """Return how many tokens there are."""
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        """Return the text of ids."""
        return str(self._backend.decode(ids, skip_special_tokens=skip_special_tokens))

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
        return {name: self._backend.id_to_token(number) or "" for name, number in ids.items() if number is not None}
