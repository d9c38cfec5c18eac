"""Pairs of a canon: each told from both sides and in the first person, asked rightly and wrongly, never untruly."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import pytest

from camelbell_core.canon import Canon, read_canon
from camelbell_core.names import NameIndex
from camelbell_core.records import Entity, Point, Question
from camelbell_core.relations import Relation, Speller

ENTITIES = """\
timeline: {chapters: [3, 3]}
entities:
  lumen: {type: person, names: {zh: 小灯, en: Lumen}}
  ada: {type: person, names: {zh: 艾达·海, en: Ada Hale}, aliases: [艾达, Ada]}
  bea: {type: person, names: {zh: 贝娅·海, en: Bea Hale}, aliases: [贝娅, Bea]}
  cara: {type: person, names: {zh: 卡拉·海, en: Cara Hale}}
  tom_fox: {type: person, names: {zh: 汤姆·福, en: Tom Fox}, aliases: [汤姆, Tom]}
  tom_wick: {type: person, names: {zh: 汤姆·维, en: Tom Wick}, aliases: [汤姆, Tom]}
  otto: {type: person, names: {zh: 奥托·一, en: Otto I}, aliases: [奥托]}
"""
ROLES = """\
roles:
  mother: {zh: [妈妈, 母亲], en: [mother, mum]}
  daughter: {zh: [女儿], en: [daughter]}
  sister: {zh: [姐妹], en: [sister]}
  friend: {zh: [朋友], en: [friend, mate]}
  keeper: {zh: [主人], en: [keeper]}
  pet: {zh: [宠物], en: [pet]}
relations:
"""


def read(tmp_path: Path, pairs: str, languages: str = "zh en", roles: str = ROLES) -> tuple[Canon, list[str]]:
    folder = tmp_path / "canon"
    folder.mkdir(exist_ok=True)
    (folder / "a.yaml").write_text(ENTITIES, encoding="utf-8")
    lines = "".join(f"  - {{{line.strip()}}}\n" for line in pairs.splitlines())
    (folder / "ties.yaml").write_text(roles + lines, encoding="utf-8")
    canon, problems = read_canon(folder, languages.split(), entity="lumen")
    return canon, [str(problem).removeprefix(f"{folder}/") for problem in problems]


def good(tmp_path: Path, pairs: str) -> Canon:
    canon, problems = read(tmp_path, pairs)
    assert problems == []
    return canon


# --- what a pair tells -----------------------------------------------------------------------------


def test_a_pair_is_one_fact_told_from_both_sides(tmp_path: Path) -> None:
    canon = good(tmp_path, "mother: ada, daughter: bea, source: 1-2")
    assert list(canon.facts) == ["r-ada-mother-bea"]
    fact = canon.facts["r-ada-mother-bea"]
    assert fact.text == {
        "zh": "艾达·海是贝娅·海的妈妈，贝娅·海是艾达·海的女儿。",
        "en": "Ada Hale is Bea Hale's mother; Bea Hale is Ada Hale's daughter.",
    }
    assert fact.voice == {
        "zh": "艾达是贝娅的妈妈，贝娅是艾达的女儿。",
        "en": "Ada is Bea's mother; Bea is Ada's daughter.",
    }
    assert (fact.about, fact.relation, fact.source) == (("ada", "bea"), "mother", Point(1, 2))
    assert fact.answer == ("ada", "bea", "妈妈|母亲|女儿|mother|mum|daughter")
    assert set(fact.ask["en"]) == {
        "Who is Bea's mother?",
        "Who is Bea's mum?",
        "What is the name of Bea's mother?",
        "What is the name of Bea's mum?",
        "Who is Ada to Bea?",
        "What is Ada to Bea?",
        "How is Ada related to Bea?",
        "How are Bea and Ada connected?",
        "Who is Ada's daughter?",
        "What is the name of Ada's daughter?",
        "Who is Bea to Ada?",
        "What is Bea to Ada?",
        "How is Bea related to Ada?",
        "How are Ada and Bea connected?",
    }
    assert {"贝娅的妈妈是谁？", "谁是贝娅的母亲？", "艾达跟贝娅是什么关系？"} <= set(fact.ask["zh"])
    assert {"艾达的女儿叫什么名字？", "谁是艾达的女儿？", "贝娅是艾达的什么人？"} <= set(fact.ask["zh"])
    assert all(len(set(asks)) == len(asks) for asks in fact.ask.values())


def test_the_order_of_a_pair_tells_which_side_comes_first(tmp_path: Path) -> None:
    canon = good(tmp_path, "daughter: bea, mother: ada")
    ((ident, fact),) = canon.facts.items()
    assert (ident, fact.relation, fact.about) == ("r-bea-daughter-ada", "daughter", ("bea", "ada"))
    assert fact.text["en"] == "Bea Hale is Ada Hale's daughter; Ada Hale is Bea Hale's mother."


def test_a_symmetric_pair_is_told_from_one_side(tmp_path: Path) -> None:
    canon = good(tmp_path, "friend: [ada, cara]")
    assert list(canon.facts) == ["r-ada-friend-cara"]
    fact = canon.facts["r-ada-friend-cara"]
    assert fact.text == {"zh": "艾达·海是卡拉·海的朋友。", "en": "Ada Hale is Cara Hale's friend."}
    assert fact.voice["zh"] in ("艾达是卡拉·海的朋友。", "卡拉·海的朋友就是艾达。")
    assert fact.voice["en"] in ("Ada is Cara Hale's friend.", "Cara Hale's friend is Ada.")
    assert (fact.about, fact.answer) == (("ada", "cara"), ("ada", "cara", "朋友|friend|mate"))
    assert {"Who is Cara Hale's friend?", "Who is Cara Hale's mate?", "Who is Ada to Cara Hale?"} <= set(fact.ask["en"])


def test_a_symmetric_pair_is_asked_for_from_both_sides(tmp_path: Path) -> None:
    fact = good(tmp_path, "friend: [ada, cara]").facts["r-ada-friend-cara"]
    assert {"Who is Ada's friend?", "Who is Ada's mate?", "Who is Cara Hale to Ada?"} <= set(fact.ask["en"])
    assert {"艾达的朋友是谁？", "卡拉·海是艾达的什么人？"} <= set(fact.ask["zh"])


def test_a_pair_that_is_listed_again_is_not_asked_again(tmp_path: Path) -> None:
    for pair, turned in (
        ("friend: [ada, cara]", "friend: [cara, ada]"),
        ("keeper: ada, pet: bea", "pet: bea, keeper: ada"),
    ):
        once = good(tmp_path, pair)
        twice = good(tmp_path, f"{pair}\n{pair}")
        assert (twice.facts, twice.questions) == (once.facts, once.questions)
        assert good(tmp_path, f"{pair}\n{turned}").questions == once.questions


def test_the_character_speaks_of_itself_and_is_spoken_to(tmp_path: Path) -> None:
    canon = good(tmp_path, "keeper: lumen, pet: ada\npet: lumen, keeper: bea")
    assert list(canon.facts) == ["r-lumen-keeper-ada", "r-lumen-pet-bea"]
    fact = canon.facts["r-lumen-keeper-ada"]
    assert fact.voice == {"zh": "我是艾达的主人，艾达是我的宠物。", "en": "I'm Ada's keeper; Ada is my pet."}
    assert fact.text == {  # the canon states it, whoever speaks
        "zh": "小灯是艾达·海的主人，艾达·海是小灯的宠物。",
        "en": "Lumen is Ada Hale's keeper; Ada Hale is Lumen's pet.",
    }
    assert (fact.about, fact.answer) == (("ada", "lumen"), ("ada", "主人|宠物|keeper|pet"))  # who says "I" names nobody
    assert set(fact.ask["en"]) == {
        "Who is Ada's keeper?",
        "What is the name of Ada's keeper?",
        "Who are you to Ada?",
        "What are you to Ada?",
        "How are you related to Ada?",
        "How are Ada and you connected?",
        "Who is your pet?",
        "What is the name of your pet?",
        "Who is Ada to you?",
        "What is Ada to you?",
        "How is Ada related to you?",
        "How are you and Ada connected?",
    }
    assert {"谁是艾达的主人？", "你是艾达的什么人？", "艾达和你之间是什么关系？"} <= set(fact.ask["zh"])
    assert {"你的宠物是谁？", "艾达是你的什么人？", "你和艾达之间是什么关系？"} <= set(fact.ask["zh"])


def test_the_character_may_come_second(tmp_path: Path) -> None:
    fact = good(tmp_path, "pet: ada, keeper: lumen").facts["r-ada-pet-lumen"]
    assert fact.voice == {"zh": "艾达是我的宠物，我是艾达的主人。", "en": "Ada is my pet; I'm Ada's keeper."}
    assert fact.text["en"] == "Ada Hale is Lumen's pet; Lumen is Ada Hale's keeper."
    assert (fact.about, fact.answer) == (("ada", "lumen"), ("ada", "宠物|主人|pet|keeper"))


SIX = ("ada", "bea", "cara", "tom_fox", "tom_wick", "otto")
SIX_NAMES = {
    "zh": "艾达 贝娅 卡拉·海 汤姆·福 汤姆·维 奥托".split(),
    "en": "Ada|Bea|Cara Hale|Tom Fox|Tom Wick|Otto I".split("|"),
}
# The forms of the keeper's side, and in the same order those of the pet's.
OWN = {
    "zh": "你是{}的主人吗？|你是不是{}的主人？|{}的主人是你，对吧？|{}是你的宠物吗？|{}是不是你的宠物？|你的宠物是{}，对吧？",
    "en": "Are you {}'s keeper?|You are {}'s keeper, right?|Aren't you {}'s keeper?"
    "|Is {} your pet?|{} is your pet, right?|Isn't {} your pet?",
}


def own_forms(questions: list[Question], language: str) -> dict[str, list[int]]:
    """Return, by the fact that is named, the numbers of the forms in which it is rightly asked for."""
    forms = OWN[language].split("|")
    allowed = {form.format(name): number for number, form in enumerate(forms) for name in SIX_NAMES[language]}
    found: dict[str, list[int]] = {}
    for q in questions:
        if (q.language, q.kind) == (language, "relation"):
            found.setdefault(",".join(q.facts), []).append(allowed[q.text])
    return found


def test_questions_and_answers_keep_the_first_person(tmp_path: Path) -> None:
    canon = good(tmp_path, "\n".join(f"keeper: lumen, pet: {name}" for name in SIX))
    told = {"zh": "我是{0}的主人，{0}是我的宠物。", "en": "I'm {0}'s keeper; {0} is my pet."}
    for language in OWN:
        forms = own_forms(canon.questions, language)
        assert list(forms) == [f"r-lumen-keeper-{name}".replace("_", "-") for name in SIX]
        assert all((keeper < 3, pet < 3) == (True, False) for keeper, pet in forms.values())  # one for each side
        answers = dict(zip(forms, map(told[language].format, SIX_NAMES[language]), strict=True))
        for question in canon.questions:
            assert question.language != language or question.answer.endswith(answers[question.facts[0]])
        wrong = [q.text for q in canon.questions if q.language == language and q.kind == "false_premise"]
        assert wrong and all(re.search("你" if language == "zh" else r"(?i)\byour?\b", text) for text in wrong)
        assert not [text for text in wrong if re.search(r"(?i)\byou is\b|^Is(n't)? you\b|小灯|Lumen", text)]


@pytest.mark.parametrize("language", OWN)
def test_the_two_sides_of_a_pair_are_asked_each_in_its_own_way(tmp_path: Path, language: str) -> None:
    canon = good(tmp_path, "\n".join(f"keeper: lumen, pet: {name}" for name in SIX))
    forms = own_forms(canon.questions, language)
    assert any(keeper != pet - 3 for keeper, pet in forms.values())
    assert len({form for both in forms.values() for form in both}) >= 4  # most of the forms that there are


@pytest.mark.parametrize("name", ["the Fog", "old Fog", "fog"])
def test_a_name_with_a_small_first_letter_keeps_it_inside_a_sentence(tmp_path: Path, name: str) -> None:
    fog = f"entities:\n  fog: {{type: person, names: {{zh: 雾, en: {name}}}}}\n"
    canon, problems = read(tmp_path, "keeper: ada, pet: fog\npet: fog, keeper: bea", roles=fog + ROLES)
    capital = name[0].upper() + name[1:]
    assert problems == []
    assert [(fact.text["en"], fact.voice["en"]) for fact in canon.facts.values()] == [
        (f"Ada Hale is {name}'s keeper; {name} is Ada Hale's pet.", f"Ada is {name}'s keeper; {name} is Ada's pet."),
        (
            f"{capital} is Bea Hale's pet; Bea Hale is {name}'s keeper.",
            f"{capital} is Bea's pet; Bea is {name}'s keeper.",
        ),
    ]


def test_a_pair_may_have_words_of_its_own(tmp_path: Path) -> None:
    canon = good(
        tmp_path, "mother: ada, daughter: bea, zh: [后妈, 继女]\nkeeper: ada, pet: lumen, en: [master, servant]"
    )
    mother, keeper = (canon.facts[f"r-ada-{name}"] for name in ("mother-bea", "keeper-lumen"))
    assert mother.text == {
        "zh": "艾达·海是贝娅·海的后妈，贝娅·海是艾达·海的继女。",
        "en": "Ada Hale is Bea Hale's mother; Bea Hale is Ada Hale's daughter.",
    }
    assert mother.answer == ("ada", "bea", "后妈|继女|mother|mum|daughter")
    assert keeper.voice == {"zh": "艾达是我的主人，我是艾达的宠物。", "en": "Ada is my master; I'm Ada's servant."}
    assert {"谁是贝娅的后妈？", "谁是艾达的继女？"} <= set(mother.ask["zh"])
    assert {"Who is your master?", "Who is Ada's servant?"} <= set(keeper.ask["en"])
    for fact, language, usual in ((mother, "zh", "妈妈|母亲|女儿"), (keeper, "en", "keeper|pet")):
        said = [fact.text[language], fact.voice[language], *fact.ask[language]]
        right = [q for q in canon.questions if (q.facts, q.language, q.kind) == ((fact.id,), language, "relation")]
        said += [text for question in right for text in (question.text, question.answer)]
        assert len(right) == 2 and not [text for text in said if re.search(usual, text)]


def test_a_symmetric_pair_may_have_words_of_its_own(tmp_path: Path) -> None:
    canon = good(tmp_path, "sister: [ada, bea], zh: [姐姐, 妹妹]\nsister: [ada, lumen], zh: [大姐, 小弟]")
    texts = {fact.id: (fact.text["zh"], fact.text["en"]) for fact in canon.facts.values()}
    assert texts == {
        "r-ada-sister-bea": ("艾达·海是贝娅·海的姐姐，贝娅·海是艾达·海的妹妹。", "Ada Hale is Bea Hale's sister."),
        "r-ada-sister-lumen": ("艾达·海是小灯的大姐，小灯是艾达·海的小弟。", "Ada Hale is Lumen's sister."),
    }
    assert canon.facts["r-ada-sister-lumen"].voice == {
        "zh": "艾达是我的大姐，我是艾达的小弟。",
        "en": "Ada is my sister.",
    }
    asked = [text for fact in canon.facts.values() for text in (*fact.ask["zh"], *fact.text.values())]
    asked += [question.answer for question in canon.questions if question.kind == "relation"]
    assert not any("姐妹" in text for text in asked)
    right = claims(canon.questions, "zh", "relation")
    assert [[word in text for word in ("姐姐", "妹妹", "大姐", "小弟")].count(True) for text in right] == [1] * 4
    assert all(any(word in text for text in right) for word in ("姐姐", "妹妹", "大姐", "小弟"))


def test_the_second_word_of_a_symmetric_pair_is_known_too(tmp_path: Path) -> None:
    canon = good(tmp_path, "sister: [ada, bea], zh: [姐姐, 妹妹]\nsister: [ada, lumen], zh: [大姐, 小弟]")
    bea, lumen = (canon.facts[f"r-ada-sister-{name}"] for name in ("bea", "lumen"))
    assert (bea.answer, lumen.answer) == (("ada", "bea", "姐姐|妹妹|sister"), ("ada", "大姐|小弟|sister"))
    assert "谁是艾达的妹妹？" in bea.ask["zh"] and "你是艾达的什么人？" in lumen.ask["zh"]


def test_a_first_name_stands_for_whom_alone_it_names(tmp_path: Path) -> None:
    canon = good(tmp_path, "keeper: ada, pet: tom_fox\nkeeper: cara, pet: tom_wick\nkeeper: bea, pet: otto")
    asked = {
        who: canon.facts[f"r-{who}"].ask for who in ("ada-keeper-tom-fox", "cara-keeper-tom-wick", "bea-keeper-otto")
    }
    assert "Who is Tom Fox to Ada?" in asked["ada-keeper-tom-fox"]["en"]  # there are two Toms
    assert "汤姆·福是艾达的什么人？" in asked["ada-keeper-tom-fox"]["zh"]
    assert "Who is Tom Wick to Cara Hale?" in asked["cara-keeper-tom-wick"]["en"]  # nobody is called just Cara
    assert "汤姆·维是卡拉·海的什么人？" in asked["cara-keeper-tom-wick"]["zh"]
    assert "Who is Otto I to Bea?" in asked["bea-keeper-otto"]["en"]
    assert "奥托是贝娅的什么人？" in asked["bea-keeper-otto"]["zh"]
    voices = {fact.id: fact.voice for fact in canon.facts.values()}
    assert voices["r-ada-keeper-tom-fox"]["en"] == "Ada is Tom Fox's keeper; Tom Fox is Ada's pet."
    assert voices["r-cara-keeper-tom-wick"]["zh"] == "卡拉·海是汤姆·维的主人，汤姆·维是卡拉·海的宠物。"


def test_a_name_that_ends_like_a_pronoun_stays_a_name(tmp_path: Path) -> None:
    canon = good(
        tmp_path, "friend: [otto, lumen]\nsister: [lumen, otto]\nkeeper: otto, pet: lumen\npet: bea, keeper: otto"
    )
    assert [fact.voice["en"] for fact in canon.facts.values()] == [
        "Otto I is my friend.",
        "I'm Otto I's sister.",
        "Otto I is my keeper; I'm Otto I's pet.",
        "Bea is Otto I's pet; Otto I is Bea's keeper.",
    ]


def test_every_telling_holds_what_a_right_answer_needs(tmp_path: Path) -> None:
    pairs = "mother: ada, daughter: lumen\nsister: [bea, cara], zh: [姐姐, 妹妹]\nfriend: [tom_fox, tom_wick]"
    canon = good(tmp_path, pairs)
    assert len(canon.facts) == 3
    for fact in canon.facts.values():
        for text in (*fact.text.values(), *fact.voice.values()):
            assert canon.missing(fact, text) == []
    for question in canon.questions:
        assert canon.missing(canon.facts[question.facts[0]], question.answer) == []


def test_a_hand_written_fact_is_not_overwritten(tmp_path: Path) -> None:
    own = "facts:\n  - {id: r-ada-friend-bea, about: [ada], text: {zh: 手写的。, en: By hand.}}\n"
    canon, problems = read(tmp_path, "friend: [ada, bea]", roles=own + ROLES)
    assert problems == []
    assert canon.facts["r-ada-friend-bea"].text["en"] == "By hand."


# --- story times -----------------------------------------------------------------------------------


def test_the_fact_of_a_pair_has_its_story_times(tmp_path: Path) -> None:
    for pair in ("friend: [ada, lumen]", "mother: ada, daughter: lumen"):
        canon = good(tmp_path, f'{pair}, source: "1", known_from: 1-1, true_from: 1-2, true_until: book 2')
        (fact,) = canon.facts.values()
        points = (fact.source, fact.known_from, fact.true_from, fact.true_until)
        assert points == (Point(1, 3), Point(1, 1), Point(1, 2), Point(2, 3))


@pytest.mark.parametrize(
    ("times", "at"),
    [
        ("known_from: 1-2", ""),
        ("true_until: 2-2", "1-1"),
        ("source: 1-3, true_until: 2-2", "1-3"),
        ("source: 2-1, known_from: 1-2, true_until: 2-2", "1-2"),
        ("true_from: 1-2, true_until: 2-2", "1-2"),
        ("known_from: 1-2, true_from: 1-3, true_until: 2-2", "1-3"),
        ("known_from: 2-1, true_from: 1-3, true_until: 2-2", "2-1"),
    ],
)
def test_what_is_over_is_asked_for_while_it_held(tmp_path: Path, times: str, at: str) -> None:
    canon = good(tmp_path, f"mother: ada, daughter: lumen, {times}")
    assert {question.at for question in canon.questions} == {at}
    right = [question.text for question in canon.questions if question.kind == "relation"]
    sides = ("mother|mum", "daughter", "妈妈|母亲", "女儿")
    assert [len([text for text in right if re.search(side, text)]) for side in sides] == [1, 1, 1, 1]
    assert all(canon.facts[q.facts[0]].holds_at(canon.point(at) if at else None) for q in canon.questions)


def test_nobody_is_asked_for_what_was_over_before_it_was_known(tmp_path: Path) -> None:
    canon = good(tmp_path, "mother: ada, daughter: lumen, known_from: 2-2, true_until: 2-2")
    assert (list(canon.facts), canon.questions) == (["r-ada-mother-lumen"], [])


# --- right and mistaken questions ------------------------------------------------------------------


@pytest.mark.parametrize("pair", ["mother: ada, daughter: bea", "friend: [ada, bea]"])
def test_both_sides_are_asked_rightly_and_wrongly_and_name_the_one_fact(tmp_path: Path, pair: str) -> None:
    canon = good(tmp_path, f"{pair}\nmother: cara, daughter: otto")
    (fact, _) = canon.facts.values()
    own = [question for question in canon.questions if question.facts == (fact.id,)]
    assert len(own) == len(canon.questions) // 2
    for language in ("zh", "en"):
        for kind in ("relation", "false_premise"):
            asked = [q for q in own if (q.language, q.kind) == (language, kind)]
            assert len({q.text for q in asked}) == len(asked) == 2
            assert all(q.answer.endswith(fact.voice[language]) and q.answer != fact.voice[language] for q in asked)


def claims(questions: list[Question], language: str, kind: str) -> set[str]:
    return {q.text for q in questions if (q.language, q.kind) == (language, kind)}


def test_who_bears_a_tie_under_another_role_is_not_denied(tmp_path: Path) -> None:
    roles = ROLES.replace("relations:", "  birth_mother: {zh: [生母], en: [birth mother]}\nrelations:")
    pairs = "mother: ada, daughter: lumen\nbirth_mother: bea, daughter: lumen\nmother: bea, daughter: cara"
    canon, problems = read(tmp_path, pairs, roles=roles)
    assert problems == []
    wrong = claims(canon.questions, "en", "false_premise") | claims(canon.questions, "zh", "false_premise")
    assert wrong and not [text for text in wrong if re.search("Bea.*your mother|贝娅.*你的妈妈|你的妈妈.*贝娅", text)]


def test_who_is_called_by_a_word_of_kin_is_not_denied_it(tmp_path: Path) -> None:
    canon = good(tmp_path, "friend: [ada, bea], zh: [姐妹, 姐妹], en: [sister, sister]\nkeeper: ada, pet: bea")
    wrong = claims(canon.questions, "en", "false_premise") | claims(canon.questions, "zh", "false_premise")
    assert wrong and not [text for text in wrong if "sister" in text or "姐妹" in text]


@pytest.mark.parametrize("role", ["parent", "twin", "distant_relative", "godparents", "sibling"])
def test_a_tie_that_leaves_open_which_kin_it_is_rules_none_out(tmp_path: Path, role: str) -> None:
    roles = ROLES.replace("relations:", f"  {role}: {{zh: [亲人], en: [kin]}}\nrelations:")
    canon, problems = read(tmp_path, f"{role}: [ada, bea]\nfriend: [ada, bea]", roles=roles)
    assert (problems, {q.kind for q in canon.questions}) == ([], {"relation"})


def test_a_friend_is_taken_for_kin_and_no_third_one_denied(tmp_path: Path) -> None:
    canon = good(tmp_path, "friend: [ada, lumen]\nfriend: [tom_fox, tom_wick]\nmother: ada, daughter: bea")
    wrong = claims(canon.questions, "en", "false_premise") | claims(canon.questions, "zh", "false_premise")
    assert len(wrong) == 12
    assert not [text for text in wrong if "friend" in text or "朋友" in text]


def test_another_mother_of_the_family_is_taken_for_ones_own(tmp_path: Path) -> None:
    children = {"ada": ("bea", "cara", "otto"), "bea": ("lumen", "tom_fox", "tom_wick")}
    canon = good(
        tmp_path, "\n".join(f"mother: {who}, daughter: {child}" for who in children for child in children[who])
    )
    wrong = claims(canon.questions, "en", "false_premise") | claims(canon.questions, "zh", "false_premise")
    assert [
        text for text in wrong if re.search("Ada.*(Tom|your).*mother|艾达.*(汤姆|你).*妈妈|(汤姆|你).*妈妈.*艾达", text)
    ]
    assert not [text for text in wrong if re.search("Bea.*Bea|贝娅.*贝娅", text)]


KIN = """
    father mother 爸爸 妈妈|son daughter 儿子 女儿|husband wife 丈夫 妻子|grandfather grandmother 祖父 祖母
    grandson granddaughter 孙子 孙女|uncle aunt 叔叔 姑妈|nephew niece 侄子 侄女|cousin cousin 表亲 表亲
    brother sister 兄弟 姐妹|elder_brother elder_sister 哥哥 姐姐|younger_brother younger_sister 弟弟 妹妹
    brother_in_law sister_in_law 姻兄弟 姑嫂|friend enemy 朋友 敌人|teacher pupil 老师 学生
"""
WORDS = {
    role: {"zh": [word], "en": [role.replace("_", "-" if role.endswith("law") else " ")]}
    for row in KIN.replace("\n", "|").split("|")
    if row.strip()
    for role, word in zip(row.split()[:2], row.split()[2:], strict=True)
}
for _role, _words in WORDS.items():
    if _role.startswith(("elder", "younger")):
        _words["en"].append(_role.split("_")[1])
        _words["zh"].append({"brother": "兄弟", "sister": "姐妹"}[_role.split("_")[1]])


class Village:
    """Four families that marry one another, and what each is to each, whether a list of pairs tells it or not."""

    def __init__(self, rng: Random) -> None:
        self.parents: list[tuple[int, ...]] = []
        self.male: list[bool] = []
        self.spouse: dict[int, int] = {}
        single = [child for _ in range(4) for child in self._couple(rng, self._person(True), self._person(False))]
        for man in [child for child in single if self.male[child]]:
            women = [w for w in single if not self.male[w] and w not in self.spouse and not self.siblings(w) & {man}]
            if women and rng.random() < 0.9:
                self._couple(rng, man, rng.choice(women))

    def _person(self, male: bool, *parents: int) -> int:
        self.parents.append(parents)
        self.male.append(male)
        return len(self.male) - 1

    def _couple(self, rng: Random, man: int, woman: int) -> list[int]:
        self.spouse |= {man: woman, woman: man}
        return [self._person(rng.random() < 0.5, man, woman) for _ in range(rng.randint(1, 4))]

    def siblings(self, one: int) -> set[int]:
        return {
            o for o in range(len(self.male)) if o != one and self.parents[one] and self.parents[o] == self.parents[one]
        }

    def married(self, some: set[int]) -> set[int]:
        return some | {self.spouse[one] for one in some if one in self.spouse}

    def role(self, a: int, b: int) -> str:
        """Return what a is to b, nothing if they are no kin."""
        up, down = set(self.parents[b]), set(self.parents[a])
        age = "elder" if a < b else "younger"
        own = {self.spouse[b]} if b in self.spouse else set()
        in_law = self.married(set().union(*(self.siblings(one) for one in own))) | self.married(self.siblings(b))
        ties = [
            (up, "father mother"),
            ({c for c in (a,) if b in down}, "son daughter"),
            (own, "husband wife"),
            (self.siblings(b), f"{age}_brother {age}_sister"),
            ({g for p in up for g in self.parents[p]}, "grandfather grandmother"),
            ({a for p in down if b in self.parents[p]}, "grandson granddaughter"),
            (self.married({u for p in up for u in self.siblings(p)}), "uncle aunt"),
            ({a for p in down if b in self.married(self.siblings(p))}, "nephew niece"),
            ({a for p in up for q in down if p in self.siblings(q)}, "cousin cousin"),
            (in_law - {b}, "brother_in_law sister_in_law"),
        ]
        return next((names.split()[not self.male[a]] for some, names in ties if a in some), "")

    def told(self, rng: Random) -> Iterator[Relation]:
        """Yield the pairs of a list as a person would write it: parents and couples, some other kin, and friends."""
        people = range(len(self.male))
        close = {"father", "mother", "son", "daughter", "husband", "wife"}
        for a in people:
            for b in people[:a]:
                role = self.role(a, b)
                if role in close or (role and rng.random() < 0.5):
                    words = {"zh": ("老表", "表弟")} if role == "cousin" and rng.random() < 0.5 else {}
                    yield Relation(role, f"p{a}", self.role(b, a), f"p{b}", words)
        for _ in range(40):
            a, b = rng.sample(people, 2)
            yield Relation(
                *rng.choice(
                    [("friend", f"p{a}", "friend"), ("enemy", f"p{a}", "enemy"), ("teacher", f"p{a}", "pupil")]
                ),
                f"p{b}",
            )


def claim(question: Question, names: dict[str, str]) -> tuple[str, str, str]:
    """Return who a question takes for what of whom."""
    some = "|".join(names)
    forms = {
        "en": (
            rf"(?:Is|Isn't|Are|Aren't) (?P<a>you|{some}) (?P<b>your|(?:{some})'s) (?P<role>[a-z -]+)\?",
            rf"(?P<a>You|{some}) (?:is|are) (?P<b>your|(?:{some})'s) (?P<role>[a-z -]+), right\?",
        ),
        "zh": (
            rf"(?P<a>你|{some})是(?:不是)?(?P<b>你|{some})的(?P<role>\w+?)吗?？",
            rf"(?P<b>你|{some})的(?P<role>\w+?)是(?P<a>你|{some})，对吧？",
        ),
    }
    match = next(m for form in forms[question.language] if (m := re.fullmatch(form, question.text)))
    a, b = (match[part].removesuffix("'s") for part in "ab")
    return names.get(a, "p9"), match["role"], names.get(b, "p9")  # p9 is spoken to


def told_ties(text: str, language: str, names: dict[str, str]) -> list[tuple[str, str, str]]:
    """Return who is what of whom in the telling of a fact; p9 speaks."""
    some = "|".join(names)
    forms = {
        "en": (
            rf"(?:I'm|(?P<a>{some}) is) (?P<b>my|(?:{some})'s) (?P<role>[a-z -]+)",
            rf"(?P<b>(?:{some})'s) (?P<role>[a-z -]+) is (?P<a>{some})",
        ),
        "zh": (
            rf"(?P<a>我|{some})是(?P<b>我|{some})的(?P<role>\w+)",
            rf"(?P<b>{some})的(?P<role>\w+?)就是(?P<a>{some})",
        ),
    }
    end, link = {"en": (".", "; "), "zh": ("。", "，")}[language]
    assert text.endswith(end)
    ties = []
    for part in text.removesuffix(end).split(link):
        match = next(m for form in forms[language] if (m := re.fullmatch(form, part)))
        a, b = ((match[who] or "").removesuffix("'s") for who in "ab")
        ties.append((names.get(a, "p9"), match["role"], names.get(b, "p9")))
    return ties


def asked_ties(
    texts: Sequence[str], language: str, names: dict[str, str]
) -> tuple[set[tuple[str, str]], list[set[str]]]:
    """Return who is asked for, as role and of whom, and whom each other question names; p9 is spoken to."""
    some = "|".join(names)
    forms = {
        "en": rf"(?:Who is|What is the name of) (?P<b>your|(?:{some})'s) (?P<role>[a-z -]+)\?",
        "zh": rf"(?:谁是)?(?P<b>你|{some})的(?P<role>\w+?)(?:是谁|叫什么名字)?？",
    }
    matches = {text: re.fullmatch(forms[language], text) for text in texts}
    wanted = {(m["role"], names.get(m["b"].removesuffix("'s"), "p9")) for m in matches.values() if m}
    rest = [re.findall(rf"你|\byou\b|{some}", text) for text, m in matches.items() if not m]
    return wanted, [{names.get(name, "p9") for name in found} for found in rest]


def test_no_true_tie_is_denied_and_no_false_one_affirmed() -> None:
    asked = {"other person": 0, "other tie": 0, "you": 0}
    roles: set[str] = set()
    for seed in range(12):
        rng = Random(seed)
        village = Village(rng)
        people = {
            f"p{i}": {"zh": f"小{chr(0x5000 + i)}", "en": f"Bo{chr(97 + i // 26)}{chr(97 + i % 26)}"}
            for i in range(len(village.male))
        }
        names = {name: who for who, both in people.items() for name in both.values()}
        entities = {who: Entity(who, "person", both) for who, both in people.items()}
        relations = list(village.told(rng))
        speller = Speller(WORDS, entities, ["zh", "en"], "p9", NameIndex(entities.values()))
        facts, questions = speller.spell(relations)
        views = [one for pair in relations for one in (pair, pair.turned())]
        listed = {(one.first, one.second) for one in views}
        true = {
            (f"p{a}", word, f"p{b}")
            for a in range(len(village.male))
            for b in range(len(village.male))
            if a != b and (role := village.role(a, b))
            for word in (*WORDS[role]["zh"], *WORDS[role]["en"])
        }
        words = {
            (one.role, one.first, one.second): {
                "zh": list(one.words["zh"][:1] if one.words else WORDS[one.role]["zh"]),
                "en": WORDS[one.role]["en"],
            }
            for one in views
        }
        true |= {(a, word, b) for (_, a, b), own in words.items() for word in (*own["zh"], *own["en"])}
        by_id = {fact.id: fact for fact in facts}
        assert len(by_id) == len(facts)
        assert by_id.keys() == {f"r-{pair.first}-{pair.role}-{pair.second}".replace("_", "-") for pair in relations}
        for pair in relations:
            fact = by_id[f"r-{pair.first}-{pair.role}-{pair.second}".replace("_", "-")]
            sides = [(one.role, one.first, one.second) for one in (pair, pair.turned())]
            # A tie that both call by one word is told once.
            told = {
                language: sides[: 1 if words[sides[0]][language][0] == words[sides[1]][language][0] else 2]
                for language in ("zh", "en")
            }
            roles |= {role for role, _, _ in sides}
            assert set(fact.about) == {pair.first, pair.second} and fact.relation == pair.role
            assert fact.answer[:-1] == tuple(who for who in (pair.first, pair.second) if who != "p9")
            assert set(fact.answer[-1].split("|")) == {w for s in sides for o in words[s].values() for w in o}
            for language in ("zh", "en"):
                ties = [(a, words[role, a, b][language][0], b) for role, a, b in told[language]]
                assert told_ties(fact.text[language], language, names) == ties
                assert told_ties(fact.voice[language], language, names) == ties
                assert not re.search(r"我|\bI\b|\bmy\b", fact.text[language])
                assert people["p9"][language] not in fact.voice[language] + "".join(fact.ask[language])
                wanted, named = asked_ties(fact.ask[language], language, names)
                right = [{(word, b) for word in words[role, a, b][language]} for role, a, b in sides]
                assert set().union(*right[: len(told)]) <= wanted <= set().union(*right), fact
                assert named and all(both == {pair.first, pair.second} for both in named)
        assert len([q for q in questions if q.kind == "relation"]) == 2 * len(words)  # each side, in both languages
        for question in questions:
            a, word, b = claim(question, names)
            right = question.kind == "relation"
            (fact,) = (by_id[ident] for ident in question.facts)
            assert b in fact.about and (a in fact.about or not right)
            assert not right or word in {
                w for (_, x, y), own in words.items() if (x, y) == (a, b) for w in own[question.language]
            }
            assert a != b and ((a, word, b) in true) == right, question
            assert question.answer.startswith(
                ("Yes", "That's", "对", "是的", "没错") if right else ("No", "不", "没有")
            )
            assert question.answer.endswith(by_id[question.facts[0]].voice[question.language])
            asked["other tie" if (a, b) in listed else "other person"] += not right
            asked["you"] += "p9" in (a, b)
    assert min(asked.values()) > 100, asked
    assert roles == WORDS.keys() - {"brother", "sister"}


# --- mistakes --------------------------------------------------------------------------------------

FORM = "a relation is two roles with an entity each, or one role with a list of two"
TWO_WORDS = "the words of a pair are two, one for each role"
TIMES = "(allowed: 1-1 to 2-3, as part-chapter, or a part)"


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        ("mother: ada, dauhgter: bea", ["""unknown role 'dauhgter'; did you mean "daughter"?"""]),
        ("frend: [ada, bea]", ["""unknown role 'frend'; did you mean "friend"?"""]),
        ("mother: ada, daughter: beaa", ["""unknown entity 'beaa'; did you mean "bea"?"""]),
        ("friend: [ada, 小灯]", ["unknown entity '小灯'"]),
        ("mother: ada", [FORM]),
        ("mother: ada, daughter: bea, friend: cara", [FORM]),
        ("friend: [ada]", [FORM]),
        ("friend: [ada, bea, cara]", [FORM]),
        ("friend: [ada, bea], mother: cara", [FORM]),
        ("source: 1-1", [FORM]),
        ("friend: [ada, bea], known_from: 1-4", [f"known_from: there is no story time '1-4' {TIMES}"]),
        ("friend: [ada, bea], true_until: 第三部", [f"true_until: there is no story time '第三部' {TIMES}"]),
        ("friend: [ada, bea], zh: [姐姐]", [TWO_WORDS]),
        ("friend: [ada, bea], zh: [大姐, 二姐, 三姐]", [TWO_WORDS]),
        ("friend: [ada, bea], en: [chum, '']", [TWO_WORDS]),
        ("friend: [ada, bea], zh: 闺蜜", [TWO_WORDS]),
        ("freind: ada, daughter: x, source: 0-1", [
            """unknown role 'freind'; did you mean "friend"?""",
            "unknown entity 'x'",
            f"source: there is no story time '0-1' {TIMES}",
        ]),
    ],
)  # fmt: skip
def test_a_wrong_pair_is_told_with_file_and_line_and_left_out(tmp_path: Path, pair: str, expected: list[str]) -> None:
    canon, problems = read(tmp_path, f"keeper: lumen, pet: ada\n{pair}\npet: bea, keeper: cara")
    assert list(dict.fromkeys(problems)) == [f"ties.yaml:10: relations.1: {what}" for what in expected]
    assert list(canon.facts) == ["r-lumen-keeper-ada", "r-bea-pet-cara"]


def test_a_role_needs_a_word_in_every_language(tmp_path: Path) -> None:
    for old, new, line, lacking in (
        ("zh: [女儿], en: [daughter]", "zh: [女儿]", 3, "daughter: has no word in en"),
        ("zh: [朋友]", "zh: []", 5, "friend: has no word in zh"),
        ("zh: [妈妈, 母亲], en: [mother, mum]", "zh: [妈妈, ' '], fr: [x]", 2, "mother: has no word in zh, en"),
    ):
        roles = ROLES.replace(old, new)
        canon, problems = read(tmp_path, "mother: ada, daughter: bea\nfriend: [cara, lumen]", roles=roles)
        assert problems == [f"ties.yaml:{line}: roles.{lacking}"]
        assert list(canon.facts) == [
            "r-ada-mother-bea",
            "r-cara-friend-lumen",
        ]  # so that what names them is not told too


def test_an_entity_without_a_name_is_told_once(tmp_path: Path) -> None:
    nameless = "entities:\n  x: {type: person, names: {zh: 某}}\n"
    canon, problems = read(tmp_path, "friend: [ada, x]\nkeeper: x, pet: ada", roles=nameless + ROLES)
    assert problems == ["ties.yaml:2: entities.x: has no name in en"]
    assert list(canon.facts) == ["r-ada-friend-x", "r-x-keeper-ada"]
    assert canon.facts["r-x-keeper-ada"].text["zh"] == "某是艾达·海的主人，艾达·海是某的宠物。"


def test_a_canon_may_hold_words_of_more_languages_than_the_character_speaks(tmp_path: Path) -> None:
    pair = "sister: [ada, bea], zh: [姐姐, 妹妹], en: [big sister, little sister]"
    for languages, spoken in (("en", {"en"}), ("zh", {"zh"}), ("", set())):
        canon, problems = read(tmp_path, pair, languages)
        assert problems == []
        assert {language for fact in canon.facts.values() for language in fact.ask} == spoken


def test_a_language_that_pairs_are_not_spelt_in_has_no_facts_of_them(tmp_path: Path) -> None:
    canon, _ = read(tmp_path, "friend: [ada, bea]", "fr", ROLES.replace("en: ", "fr: "))
    assert (canon.facts, canon.questions) == ({}, [])


def test_a_role_has_ways_of_its_own_to_be_asked_for(tmp_path: Path) -> None:
    own = "asks:\n  mother: {zh: ['谁生了{b}？'], en: ['Who gave birth to {b}?', 'Whose child is {b}?']}\n"
    canon, problems = read(tmp_path, "mother: ada, daughter: lumen\nfriend: [ada, bea]", roles=own + ROLES)
    assert problems == []
    asked = canon.facts["r-ada-mother-lumen"].ask
    assert "谁生了你？" in asked["zh"]
    assert {"Who gave birth to you?", "Whose child are you?"} < set(asked["en"])
    assert not any("birth" in ask for ask in canon.facts["r-ada-friend-bea"].ask["en"])


def test_ways_to_ask_for_an_unknown_role_or_for_nobody_are_mistakes(tmp_path: Path) -> None:
    own = "asks:\n  mothr: {en: ['Who bore {b}?']}\n  friend: {en: ['Who is a friend?']}\n"
    _, problems = read(tmp_path, "friend: [ada, bea]", roles=own + ROLES)
    assert problems == [
        "ties.yaml:2: asks.mothr: unknown role 'mothr'; did you mean \"mother\"?",
        "ties.yaml:3: asks.friend: each way to ask names {b}, whose friend it is",
    ]


def test_a_tie_without_a_time_is_known_once_both_are(tmp_path: Path) -> None:
    told = (
        "timeline: {chapters: [3, 3]}\nfacts:\n"
        "  - {id: one, about: [ada], text: {zh: 艾, en: A}, source: 1-1}\n"
        "  - {id: two, about: [bea], text: {zh: 贝, en: B}, source: 1-1, known_from: 2-2}\n"
        "  - {id: three, about: [bea, ada], text: {zh: 贝, en: B}, source: 2-3}\n"
    )
    canon, problems = read(
        tmp_path, "mother: ada, daughter: bea\nfriend: [ada, bea], known_from: 1-3", roles=told + ROLES
    )
    assert problems == []
    assert canon.facts["r-ada-mother-bea"].known_from == Point(2, 2)
    assert canon.facts["r-ada-friend-bea"].known_from == Point(1, 3)
