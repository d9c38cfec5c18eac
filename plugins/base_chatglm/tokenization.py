"""The ice_text tokenizer of ChatGLM-6B, on sentencepiece alone.

Line breaks, tabs and runs of blanks are pieces of their own; a text ends in [gMASK] <sop>, which the answer follows.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from transformers import AutoTokenizer, PreTrainedTokenizer

from camelbell_plugins.base_chatglm.configuration import ChatGLMConfig

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

_MODEL = "ice_text.model"
_SPECIAL = ("[MASK]", "[gMASK]", "[sMASK]", "<unused_0>", "<sop>", "<eop>", "<ENC>", "<dBLOCK>")
_LONGEST = 80  # blanks that one piece holds at most
_BLANKS = re.compile(f" {{2,{_LONGEST}}}")
_CONTROL, _USER_DEFINED, _BYTE = 3, 4, 6  # types of pieces in a sentencepiece model
_BACK = re.compile(rf"<n>|<\|tab\|>|<\|blank_([2-9]|[1-7]\d|{_LONGEST})\|>")
_CJK = r"[\u4e00-\u9fff]"
_WIDE = {",": "，", "!": "！", ":": "：", ";": "；", "?": "？"}
# The first round is number 0; a single question is laid out bare. A system turn, which the model does not know, stands
# at the head of the first question.
_TEMPLATE = (
    "{% set ns = namespace(system='', round=0) %}"
    "{% for m in messages %}"
    "{% if m['role'] == 'system' %}{% set ns.system = ns.system + m['content'] + '\n\n' %}"
    "{% elif m['role'] == 'user' %}"
    "{% set asked = ns.system + m['content'] %}{% set ns.system = '' %}"
    "{% if messages | rejectattr('role', 'equalto', 'system') | list | length == 1 %}{{ asked }}"
    "{% else %}[Round {{ ns.round }}]\n问：{{ asked }}\n答：{% endif %}"
    "{% else %}{{ m['content'] + '\n' }}{% set ns.round = ns.round + 1 %}"
    "{% endif %}{% endfor %}"
)


def with_special_pieces(model: bytes) -> bytes:
    """Return the sentencepiece model of the first releases with the pieces that their code added when it ran.

    A serialised protocol buffer grows by appending to it: repeated fields go on, single ones take the last value.
    """
    pieces = [(piece, _CONTROL) for piece in _SPECIAL]
    pieces += [(piece, _USER_DEFINED) for piece in ("<|tab|>", *(f"<|blank_{n}|>" for n in range(2, _LONGEST + 1)))]
    pieces += [(f"<0x{byte:02X}>", _BYTE) for byte in range(256)]
    byte_fallback = b"\x12\x03\x98\x02\x01"  # trainer_spec (field 2) with its field 35 set
    return model + b"".join(_piece(text, kind) for text, kind in pieces) + byte_fallback


def _piece(text: str, kind: int) -> bytes:
    """Return a ``SentencePiece`` message as field 1 of the model: text (1), score 0.0 (2), type (3)."""
    raw = text.encode("utf-8")
    message = b"\x0a" + bytes([len(raw)]) + raw + b"\x15\x00\x00\x00\x00" + b"\x18" + bytes([kind])
    return b"\x0a" + bytes([len(message)]) + message


class ChatGLMTokenizer(PreTrainedTokenizer):  # type: ignore[misc]
    """Text to ids and back as ChatGLM-6B was trained; the first ``num_image_tokens`` ids are images, of no use here."""

    vocab_files_names: ClassVar[dict[str, str]] = {"vocab_file": _MODEL}
    model_input_names: ClassVar[list[str]] = ["input_ids", "attention_mask"]
    padding_side = "left"

    def __init__(
        self,
        vocab_file: str,
        do_lower_case: bool = False,
        remove_space: bool = False,
        bos_token: str = "<sop>",
        eos_token: str = "<eop>",
        end_token: str = "</s>",
        mask_token: str = "[MASK]",
        gmask_token: str = "[gMASK]",
        pad_token: str = "<pad>",
        unk_token: str = "<unk>",
        num_image_tokens: int = 20000,
        **kwargs: Any,
    ) -> None:
        # transformers would make special tokens of these two, which text could then spell out.
        named = kwargs.pop("model_specific_special_tokens", None) or {}
        end_token, gmask_token = named.get("end_token", end_token), named.get("gmask_token", gmask_token)
        self.vocab_file = str(vocab_file)
        self.do_lower_case, self.remove_space = do_lower_case, remove_space
        self.end_token, self.gmask_token = str(end_token), str(gmask_token)
        self.num_image_tokens = num_image_tokens
        self.sp_model = _load(Path(vocab_file))
        kwargs.setdefault("chat_template", _TEMPLATE)
        kwargs["padding_side"] = kwargs.get("padding_side") or "left"
        # Releases before 11 April 2023 name </s>, with which no model was trained to end.
        eos_token = "<eop>" if str(eos_token) == self.end_token else eos_token
        super().__init__(
            do_lower_case=do_lower_case,
            remove_space=remove_space,
            bos_token=bos_token,
            eos_token=eos_token,
            mask_token=mask_token,
            pad_token=pad_token,
            unk_token=unk_token,
            num_image_tokens=num_image_tokens,
            **kwargs,
        )
        self.init_kwargs |= {"end_token": self.end_token, "gmask_token": self.gmask_token}

    @property
    def vocab_size(self) -> int:
        """How many ids there are, images counted."""
        return self.num_image_tokens + int(self.sp_model.get_piece_size())

    @property
    def gmask_token_id(self) -> int:
        """The id of [gMASK]."""
        return self._convert_token_to_id(self.gmask_token)

    @property
    def end_token_id(self) -> int:
        """The id of </s>, which ends nothing."""
        return self._convert_token_to_id(self.end_token)

    def get_vocab(self) -> dict[str, int]:
        """Return the ids of all pieces."""
        pieces = {self._convert_id_to_token(number): number for number in range(self.vocab_size)}
        return {**pieces, **self.added_tokens_encoder}

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        if self.remove_space:
            text = " ".join(text.strip().split())
        if self.do_lower_case:
            text = text.lower()
        text = text.replace("\n", "<n>").replace("\t", "<|tab|>")
        text = _BLANKS.sub(lambda run: f"<|blank_{len(run[0])}|>", text)
        return list(self.sp_model.encode(text, out_type=str))

    def _convert_token_to_id(self, token: str) -> int:
        if token.startswith("<image_") and token[7:-1].isdigit():
            return int(token[7:-1])
        return self.num_image_tokens + int(self.sp_model.piece_to_id(token))

    def _convert_id_to_token(self, index: int) -> str:
        number = index - self.num_image_tokens
        if number < 0:
            return f"<image_{index}>"
        return str(self.sp_model.id_to_piece(number)) if number < self.sp_model.get_piece_size() else self.unk_token

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """Return the text of pieces."""
        return self._text([self._convert_token_to_id(token) for token in tokens])

    def _decode(self, token_ids: Any, skip_special_tokens: bool = False, **kwargs: Any) -> str:
        ids = [token_ids] if isinstance(token_ids, int) else list(token_ids)
        left_out = set(self.all_special_ids) if skip_special_tokens else {self.pad_token_id}
        return self._text([number for number in ids if number not in left_out])

    def _text(self, ids: Sequence[int]) -> str:
        """Return the text of ids; images and the unused ids at the end of the vocabulary have none."""
        numbers = [number - self.num_image_tokens for number in ids]
        known = [number for number in numbers if 0 <= number < self.sp_model.get_piece_size()]
        return _BACK.sub(_blank, self.sp_model.decode(known))

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Return a context with [gMASK] <sop>, and where there is a second text, this as its answer with <eop>."""
        ids = [*token_ids_0, self.gmask_token_id, self.bos_token_id]
        return ids if token_ids_1 is None else [*ids, *token_ids_1, self.eos_token_id]

    def get_special_tokens_mask(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None, already_has_special_tokens: bool = False
    ) -> list[int]:
        """Return 1 for each token that ``build_inputs_with_special_tokens`` adds."""
        if already_has_special_tokens:
            special = {*self.all_special_ids, self.gmask_token_id}
            return [int(number in special) for number in token_ids_0]
        mask = [*[0] * len(token_ids_0), 1, 1]
        return mask if token_ids_1 is None else [*mask, *[0] * len(token_ids_1), 1]

    def create_token_type_ids_from_sequences(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Return zeros: the model has no token types."""
        return [0] * len(self.build_inputs_with_special_tokens(token_ids_0, token_ids_1))

    def apply_chat_template(self, conversation: Any, *args: Any, tokenize: bool = True, **kwargs: Any) -> Any:
        """Return a conversation laid out in rounds; in its ids [gMASK] <sop> stand before the last answer.

        A conversation that ends in an answer ends in <eop>. Special tokens that people spell out are text.
        """
        if not tokenize:
            return super().apply_chat_template(conversation, *args, tokenize=False, **kwargs)
        options = {
            key: kwargs.pop(key) for key in ("padding", "truncation", "max_length", "return_tensors") if key in kwargs
        }
        options |= kwargs.pop("tokenizer_kwargs", None) or {}
        return_dict = kwargs.pop("return_dict", True)
        batched = bool(conversation) and not isinstance(conversation[0], Mapping)
        chats = [list(chat) for chat in (conversation if batched else [conversation])]
        answers = [chat.pop()["content"] for chat in chats if chat and chat[-1]["role"] == "assistant"]
        if answers and len(answers) != len(chats):
            raise ValueError("some of the conversations end in an answer, others do not")
        texts = super().apply_chat_template(chats, *args, tokenize=False, **kwargs)
        pairs = (texts, answers or None) if batched else (texts[0], answers[0] if answers else None)
        made = self(*pairs, split_special_tokens=True, **options)
        return made if return_dict else made["input_ids"]

    def polish_reply(self, text: str) -> str:
        """Return a reply as the released ``chat`` shows it: with full-width marks beside Chinese characters."""
        text = text.strip().replace("[[训练时间]]", "2023年")
        for narrow, wide in _WIDE.items():
            text = re.sub(rf"(?<={_CJK}){re.escape(narrow)}|{re.escape(narrow)}(?={_CJK})", wide, text)
        return text

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Copy the sentencepiece model into a folder and return its path."""
        target = Path(save_directory) / (f"{filename_prefix}-{_MODEL}" if filename_prefix else _MODEL)
        if Path(self.vocab_file).resolve() != target.resolve():
            shutil.copyfile(self.vocab_file, target)
        return (str(target),)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "sp_model": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.sp_model = _load(Path(self.vocab_file))


def _load(file: Path) -> SentencePieceProcessor:
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_file=str(file))
    if processor.piece_to_id("<sop>") == processor.unk_id():
        processor = SentencePieceProcessor(model_proto=with_special_pieces(file.read_bytes()))
    return processor


def _blank(found: re.Match[str]) -> str:
    if found[0] == "<n>":
        return "\n"
    return " " * int(found[1]) if found[1] else "\t"


AutoTokenizer.register(ChatGLMConfig, tokenizer_class=ChatGLMTokenizer, exist_ok=True)
