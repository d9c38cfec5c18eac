import pytest

from camelbell_core.first_person import in_first_person
from camelbell_core.names import NameIndex
from camelbell_core.records import Entity

ME = Entity("ada", "person", {"zh": "艾达·灯", "en": "Ada Lamp"}, ("艾达", "Ada"))
BEA = Entity("bea", "person", {"zh": "贝娅", "en": "Bea"}, ())
NAMES = NameIndex([ME, BEA])


@pytest.mark.parametrize(
    ("language", "text", "said"),
    [
        ("zh", "艾达点亮了灯塔。", "我点亮了灯塔。"),
        ("zh", "贝娅给艾达·灯写信。", "贝娅给我写信。"),
        ("zh", "艾达的猫叫雾。", "我的猫叫雾。"),
        ("zh", "艾达说她累了。", ""),
        ("zh", "贝娅会游泳。", "贝娅会游泳。"),
        ("en", "Ada lit the lamp, and Bea saw it.", ""),
        ("en", "Ada Lamp climbed the tower.", "I climbed the tower."),
        ("en", "In May Ada is ten.", "In May I am ten."),
        ("en", "Ada carries a lamp.", ""),
        ("en", "Ada keeps a cat.", "I keep a cat."),
        ("en", "Ada watches the sea.", "I watch the sea."),
        ("en", "Ada hasn't seen it.", "I haven't seen it."),
        ("en", "Ada's cat is called Fog.", "My cat is called Fog."),
        ("en", "Bea gave Ada only four shells.", "Bea gave me only four shells."),
        ("en", "Bea keeps Ada's letters from before Ada left.", "Bea keeps my letters from before I left."),
        ("en", "Ada and Bea went home.", ""),
        ("en", "Bea carried the sleeping Ada home.", ""),
        ("en", "Ada's full name is Ada Lamp.", ""),
        ("en", "Ada lost her lamp.", ""),
        ("en", "Bea swims.", "Bea swims."),
    ],
)
def test_a_statement_is_said_as_the_character_would(language: str, text: str, said: str) -> None:
    assert in_first_person(text, language, NAMES, "ada") == said


def test_other_languages_keep_only_what_does_not_name_the_character() -> None:
    assert in_first_person("Ada klettert.", "de", NAMES, "ada") == ""
    assert in_first_person("Bea klettert.", "de", NAMES, "ada") == "Bea klettert."
