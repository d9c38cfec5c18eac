"""A learned retriever: static embeddings of words, summed, for questions and facts (a bi-encoder without layers).

The embeddings are trained on a bundle's own wordings by ``camelbell index`` (learn.py) and kept in one safetensors
file; reading a question takes numpy and a fraction of a millisecond.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camelbell_core.errors import CamelBellError

FILE = "retriever.safetensors"
Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Retriever:
    """Vectors of the words (int8 with a scale for each row), their weights in questions and in facts.

    ``weights`` mix what speaks for a fact (``Evidence``) into a score; ``slope`` and ``offset`` make that score a
    probability.
    """

    vocabulary: dict[str, int]
    vectors: NDArray[np.int8]
    scales: Vectors
    in_question: Vectors
    in_fact: Vectors
    weights: tuple[float, ...]
    slope: float
    offset: float

    def of_question(self, features: Sequence[str]) -> Vectors:
        """Return the unit vector of a question."""
        return self._sum(features, self.in_question)

    def of_facts(self, facts: Iterable[Sequence[str]]) -> Vectors:
        """Return the unit vectors of facts, one a row."""
        rows = [self._sum(features, self.in_fact) for features in facts]
        return np.stack(rows) if rows else np.zeros((0, self.vectors.shape[1]), np.float32)

    def _sum(self, features: Sequence[str], weights: Vectors) -> Vectors:
        known = [number for feature in features if (number := self.vocabulary.get(feature)) is not None]
        total = (weights[known] * self.scales[known]) @ self.vectors[known].astype(np.float32)
        length = float(np.linalg.norm(total))
        return np.asarray(total / length if length else total, np.float32)

    def save(self, file: Path) -> None:
        """Write the one file, at once."""
        import os

        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        tensors: dict[str, NDArray[Any]] = {
            "vectors": self.vectors,
            "scales": self.scales,
            "in_question": self.in_question,
            "in_fact": self.in_fact,
        }
        words = json.dumps(list(self.vocabulary), ensure_ascii=False)
        numbers = {"weights": self.weights, "slope": self.slope, "offset": self.offset}
        draft = file.with_name(f"{file.name}.new")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, draft, {"vocabulary": words, "numbers": json.dumps(numbers)})
            os.replace(draft, file)
        except (SafetensorError, OSError) as error:
            raise CamelBellError(
                f"cannot write the retriever {str(file)!r}: {error}", "name another file with --out"
            ) from error


def read_retriever(file: Path) -> Retriever:
    """Return the retriever of a file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np") as opened:
            metadata = opened.metadata()
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        words = {word: number for number, word in enumerate(json.loads(metadata["vocabulary"]))}
        numbers = json.loads(metadata["numbers"])
        return Retriever(words, **tensors, **{**numbers, "weights": tuple(numbers["weights"])})
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CamelBellError(
            f"cannot read the retriever {str(file)!r}: {error}", "make it anew: camelbell index NAME"
        ) from error
