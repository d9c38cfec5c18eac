"""New bundles: a small commented one, or a copy of another."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from camelbell_core.character import check_name, find_character
from camelbell_core.errors import CamelBellError
from camelbell_core.journal import write_text

_CHARACTER = """\
# {name}.     camelbell check {name}     camelbell run {name} --preset quick
name: {{zh: 小灯, en: Lumen}}        # shown to people, by language
description: A lighthouse keeper on a small island
languages: [zh, en]               # the main one first
entity: lumen                     # who the character is in canon/

persona:                          # stands at the head of every prompt
  zh: 我是小灯，守着一座小岛上的灯塔。我只说我知道的事，不知道的就说不知道。
  en: I am Lumen, keeper of the lighthouse on a small island. I say only what I know, and admit what I don't.

greeting:
  zh: 你好，我是小灯。
  en: Hello, I'm Lumen.

voice:                            # what the character says when it does not know
  zh:
    unknown: ["这个我不知道。", "我一直守着灯塔，这事没听说过。"]
    unknown_name: ["{{name}}？我没听说过。"]
  en:
    unknown: ["I don't know that.", "I only keep the light; I never heard about that."]
    unknown_name: ["{{name}}? I never heard that name."]

questions: [canon, slots]         # who makes questions
answers: canon                    # who answers: canon (offline), openai (a service), local (the base model)
filters: [length, language, persona_break, duplicates, unknown_names, contradiction]
guard: [length, language, persona_break, unknown_names]
memory: canon
facts: 3                          # how many facts a prompt holds
trainer: lora
base: embedded
frontend: repl

presets:
  quick:
    questions: 200
    trainer: {{epochs: 2, learning_rate: 1.0e-3}}
"""

_CANON = """\
# Who and what there is, and what is true. Every fact may be asked for and told in every language.
entities:
  lumen:
    type: person
    names: {zh: 小灯, en: Lumen}
  gull:
    type: creature
    names: {zh: 阿白, en: Pebble}
    aliases: [海鸥阿白, Pebble the gull]

facts:
  - id: pet
    about: [lumen, gull]
    relation: pet
    answer: [gull]
    text: {zh: 小灯养着一只叫阿白的海鸥。, en: Lumen keeps a gull called Pebble.}
    voice: {zh: 陪着我的是海鸥阿白。, en: "Pebble, my gull, keeps me company."}
    ask:
      zh: [你的宠物叫什么名字？, 谁在灯塔里陪着你？]
      en: [What is your pet called?, Who keeps you company in the lighthouse?]
  - id: steps
    about: [lumen]
    relation: steps
    answer: ["九十九|99|ninety-nine"]
    text: {zh: 小灯的灯塔有九十九级台阶。, en: The lighthouse has ninety-nine steps.}
    voice: {zh: 九十九级，我每天数一遍。, en: Ninety-nine. I count them every day.}
    ask:
      zh: [灯塔有多少级台阶？, 爬上灯塔要走几级楼梯？]
      en: [How many steps has the lighthouse?, How many stairs do you climb to the light?]
"""

_SEEDS = """\
# Question templates; a word in [brackets] is filled from the value list of that name below.
seeds:
  - name: like_thing
    kind: opinion
    ask:
      zh: ["你喜欢[thing]吗？"]
      en: ["Do you like [thing]?"]
  - name: stranger
    kind: trap                    # has no answer: the character admits that it does not know
    ask:
      zh: ["[stranger]是谁？", "你认识[stranger]吗？"]
      en: ["Who is [stranger]?", "Do you know [stranger]?"]

slots:
  thing:
    - {zh: 阿白, en: Pebble, entity: gull}
    - {zh: 暴风雨, en: storms}
    - {zh: 热茶, en: hot tea}
  stranger:
    - {zh: 莫格里斯, en: Mogris, source: invented}
    - {zh: 塔维娜, en: Tavina, source: invented}
"""

_README = """\
# {name}

A CamelBell character. `camelbell check {name}` reads it and shows every mistake; `camelbell run {name}` trains it;
`camelbell chat {name}` talks.
"""


def new_bundle(name: str, source: str, folder: Path, characters: Sequence[Path] = ()) -> Path:
    """Make the bundle ``name`` in a folder and return its path; nothing there is overwritten.

    A copy leaves out adapters: they were trained for the other character.
    """
    target = folder / check_name(name)
    if target.exists():
        raise CamelBellError(f"{str(target)!r} is already there", "choose another name, or edit that folder")
    if source:
        skip = shutil.ignore_patterns("adapters", "__pycache__")
        root = find_character(source, characters).root
        try:
            shutil.copytree(root, target, ignore=skip)
        except OSError as error:
            raise CamelBellError(f"cannot make {str(target)!r}: {error.strerror or error}") from error
        return target
    files = {
        "character.yaml": _CHARACTER.format(name=name),
        "canon/canon.yaml": _CANON,
        "seeds/seeds.yaml": _SEEDS,
        "README.md": _README.format(name=name),
    }
    for file, text in files.items():
        write_text(target / file, text)
    return target
