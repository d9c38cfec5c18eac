import pytest

from camelbell_core.diversity import measure, told
from camelbell_core.records import Question


@pytest.fixture
def character(open_lumen):
    return open_lumen().character


def questions(*texts, **more):
    return [Question(text, "zh" if text[-1] == "？" else "en", **more) for text in texts]


@pytest.mark.parametrize(
    ("texts", "one", "two", "nearest"),
    [
        ((), 0, 0, 0),
        (("你好吗？",), 1, 1, 0),
        (("你好吗？", "你好吗？"), 1 / 2, 1 / 2, 1),
        (("你好吗？", "他走了？"), 1, 1, 0),
        (("Are you cold?", "Are you old?"), 4 / 6, 3 / 4, 2 / 3),
    ],
)
def test_measures_are_those_of_their_definitions(character, texts, one, two, nearest):
    found = measure(questions(*texts), character)
    assert (found.questions, found.distinct_1, found.distinct_2) == (len(texts), one, two)
    assert found.nearest == pytest.approx(nearest)


@pytest.mark.parametrize("text", ["阿白饿了吗？", "Is Pebble hungry?"])
def test_entities_kinds_askers_and_slots_are_counted(character, text):
    asked = [
        *questions(text, "今天冷吗？", kind="talk", slots={"asker": "child"}),
        *questions(text, kind="fact", slots={"thing": "tea"}),
    ]
    found = measure(asked, character)
    assert (found.entities, found.known_entities) == (1, len(character.canon.entities))
    assert (found.kinds, found.askers, found.slots) == ({"talk": 2, "fact": 1}, {"child": 2}, {"thing": 1})


def test_before_and_after_are_told_in_one_line(character):
    before, after = measure(questions("你好吗？"), character), measure(questions("你好吗？", "阿白呢？"), character)
    assert told(before, after).startswith("diversity: 1 -> 2 questions, distinct-1 1.000 -> 1.000, ")
    assert told(before, after).endswith(f"entities 0 -> 1 of {after.known_entities}, kinds 1 -> 1")
