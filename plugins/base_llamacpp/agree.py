"""Does an engine say what transformers says? First tokens after prompts of a bundle, compared id by id."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from camelbell_core.model import TorchModel
    from camelbell_core.pipeline import Run
    from camelbell_core.prompts import Prompt
    from camelbell_plugins.base_llamacpp.model import LlamaModel


@dataclass(slots=True)
class Agreement:
    """How many of ``n`` prompts have the same ids, and after how many the likeliest first token is the same.

    ``close`` counts disagreements in which the reference gives both tokens nearly the same probability.
    """

    n: int = 0
    ids: int = 0
    first: int = 0
    close: int = 0

    @property
    def share(self) -> float:
        """The share of prompts with the same first token."""
        return self.first / self.n if self.n else 0.0


_CLOSE = 0.1  # the difference of two logarithms of probabilities that counts as nearly none


def prompts_of(run: Run, count: int) -> list[Prompt]:
    """Return the prompts that a chat would build for questions of the quiz, else of canon and dialogues."""
    from camelbell_core import evaluation, pipeline
    from camelbell_core.prompts import build_prompt
    from camelbell_core.session import personas

    items = evaluation.sample(pipeline.find_quiz(run.character), count, f"agree:{run.character.name}")
    asked = [(item.question, item.language) for item in items]
    if len(asked) < count:
        more = [(question.text, question.language) for question in run.character.dialogues if not question.history]
        for fact in run.character.canon.facts.values():
            more += [(text, language) for language, texts in fact.ask.items() for text in texts]
        run.rng("agree").shuffle(more)
        asked += more[: count - len(asked)]
    persona = personas(run.character, run.registry)
    most = run.character.config.facts
    prompts = []
    for question, language in asked[:count]:
        known = language if language in persona else run.character.languages[0]
        facts = [recall.fact for recall in run.memory.recall(question, most)] if most else []
        prompts.append(build_prompt(persona[known], known, question, facts))
    return prompts


def reference(model: TorchModel, prompts: Sequence[Prompt]) -> Iterator[tuple[list[int], Any]]:
    """Yield the ids of each prompt, and the logarithms of the probabilities of the first token by transformers."""
    import torch

    for prompt in prompts:
        ids = model.layout.fit(prompt, model.window - 1)
        with torch.inference_mode():
            hidden = model.model(input_ids=torch.tensor([ids], device=model.model.device), logits_to_keep=1)
        yield ids, hidden.logits[0, -1].float().log_softmax(-1).cpu()


def compare(
    model: LlamaModel, prompts: Sequence[Prompt], expected: Sequence[tuple[list[int], Any]], tick: Callable[..., None]
) -> Agreement:
    """Return how far an engine's model agrees with the reference."""
    found = Agreement()
    for prompt, (ids, likely) in zip(prompts, expected, strict=True):
        found.n += 1
        found.ids += model.layout.fit(prompt, model.window - 1) == ids
        (token, _), right = model.first_tokens(prompt, 1)[0], int(likely.argmax())
        found.first += token == right
        found.close += token != right and float(likely[right] - likely[token]) < _CLOSE
        tick(found.n, len(prompts), f"{found.share:.3f}")
    return found
