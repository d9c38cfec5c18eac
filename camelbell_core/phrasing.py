"""Ways to put one and the same question, that fit any character."""

from __future__ import annotations

from random import Random

# {q}: the question; {who}: the character's name. Each leaves the question itself whole.
_FRAMES = {
    "zh": (
        "{q}",
        "{who}，{q}",
        "请问，{q}",
        "我想问一下，{q}",
        "跟我说说，{q}",
        "我一直想知道：{q}",
        "哎，{q}",
        "你还记得吗，{q}",
        "有人问我，{q}你怎么说？",
    ),
    "en": (
        "{q}",
        "{who}, {q}",
        "Tell me, {q}",
        "I've always wondered: {q}",
        "Quick question: {q}",
        "Hey {who}, {q}",
        "My friend asked me this: {q}",
        "Do you remember? {q}",
        "Sorry to bother you, but {q}",
    ),
}
_OPENERS = frozenset(
    """
    who what when where why how which whose whom is are was were do did does have has had can could would will
    """.split()
)


def phrase(question: str, language: str, who: str, rng: Random) -> str:
    """Return the question in one of several frames, now and then as people type: without marks or capitals."""
    frame = rng.choice(_FRAMES.get(language, ("{q}",)))
    text = frame.replace("{who}", who)
    embedded = question[:1].lower() + question[1:] if _may_lower(question, text) else question
    text = text.replace("{q}", embedded)
    if rng.random() < 0.15:
        text = text.rstrip("？?。. ")
        if language == "en" and rng.random() < 0.5:
            text = text.lower()
    return text


def _may_lower(question: str, frame: str) -> bool:
    """Tell whether a question's first word loses its capital inside the frame: question words do, names do not."""
    first = question.split(" ", 1)[0].lower().split("'")[0]
    return frame.rstrip().endswith((", {q}", "but {q}")) and first in _OPENERS
