"""Names in running text: those that the canon knows, and those that look like names and are not known."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from camelbell_core.records import Entity
from camelbell_core.text import CJK

_MASK = "\0"  # stands for the characters of names that are known
_GLUE = "·・•‧ \u3000"  # stands between the parts of a name, or does not
_WITHOUT_GLUE = dict.fromkeys(map(ord, _GLUE))
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
# Characters that Chinese uses to spell foreign names; those in _SPELLING_STRICT seldom stand in other words.
_SPELLING_STRICT = (
    "埃邦鲍彼宾博查戴丹德蒂丁顿恩尔费芬弗盖戈葛豪赫亨杰卡凯坎柯科肯奎莱兰劳勒雷莉琳卢鲁罗洛玛麦曼蒙姆穆纳娜奈妮努诺帕潘佩彭珀普奇乔切琼萨塞桑莎"
    "舍史舒斯丝索塔泰汤唐特廷图托瓦威维韦温沃伍希锡夏谢辛雅伊泽扎詹珍兹佐巴拜贝比伯布茨迪杜多凡格哈霍基吉加拉里利伦马梅米密莫默尼欧皮瑞西亚尤"
)
_SPELLING = set(
    _SPELLING_STRICT
    + "阿艾爱奥班保本波达道登都尔法菲福富甘高古海汉胡华贾金康考克库朗林留路门明摩南内珠热日茹赛沙山坦文扬叶英约朱安白莎费"
)
# Characters that spell names beside a middle dot only: elsewhere they are everyday words.
_SPELLING_DOTTED = "".join(sorted(_SPELLING)) + (
    "娃夫察恰娅夸瓜惠采圭怀齐丽措肖果阔乌武祖楚苏丘派代宰蔡柴迈赖陶藻曹绍焦毛瑙万赞灿昂庞冈旺方章仓张昌尚杭芒滕根曾岑森琴申嫩延昆平津欣宁京敦贡冯尊聪孙洪农"
    "翁蓬东孔丰宗松容雄隆龙黛蕾芙茜黎薇嘉什崔汀思莲露修理邓卫礼厄佛珊秋寇乐瑟堤歌伏妲李休纽斐翰逊司勃简力蓉佳绥娣姬柔茉契朵施萝荣札撒迦弥菱吕钱范缪蓓碧洁梵滨澳姿宛婉若"
)
_EVERYDAY = re.compile("知道|明白|明天|高兴|参加|加入|特别|希望|奇怪|古怪|这里|那里|哪里|里面|比如|比较|可爱")
_CJK_RUN = re.compile(r"[\u4e00-\u9fff]+")
_DOTTED = re.compile(r"[\u4e00-\u9fff]{1,8}(?:[·・•‧][\u4e00-\u9fff]{1,8})+")
_NAME_TAIL = re.compile(rf"[{_SPELLING_DOTTED}]+\Z")
_NAME_HEAD = re.compile(rf"[{_SPELLING_DOTTED}](?:(?!都|爱|什么|夫人|夫妇)[{_SPELLING_DOTTED}])*")
# A part that is translated, not spelt ("天行者"), ends where a word of grammar begins.
_NAME_SENSE = re.compile("[^是的在和有吗呢吧了这那谁什么哪怎为被把给跟与也都很就说到去来过会能叫做住到你我他她它]+")
_TITLED = re.compile(r"([\u4e00-\u9fff]{2,5}?)(?:教授|先生|女士|夫人|小姐|校长|部长|爵士)")
_CAPITAL = re.compile(r"(?<![A-Za-zÀ-ɏ])(?:[A-Z]['’])?(?:[A-ZÀ-Þ][a-zß-ÿ]+)+(?:['’-][A-Za-zÀ-ɏ]+)*")
_LATIN_WORD = re.compile(r"[0-9A-Za-zÀ-ɏ]+(?:['’][0-9A-Za-zÀ-ɏ]+)*")
_NOT_NAMES = frozenset(
    """
    a an the and or but so if when while then well yes no not i i'm i've i'd i'll you he she it we they my
    your his her its our their this that these those there here who what where why how which once now never
    nobody no-one some someone everyone everything nothing something maybe perhaps sorry please thanks thank
    hello hi hey oh ah honestly actually still even just only also after before because since until unless
    although though in on at to from of for with without by as is was are were be been do did does done has
    have had can could will would shall should may might must let's don't didn't can't won't isn't wasn't
    that's it's he's she's there's what's who's i monday tuesday wednesday thursday friday saturday sunday
    mondays tuesdays wednesdays thursdays fridays saturdays sundays
    january february march april june july august september october november december christmas easter
    halloween english british england britain london scotland scottish irish ireland wales france french
    german germany america american europe european china chinese latin god mr mrs miss ms sir madam professor
    mum dad uncle aunt aunty first second third next last every all both most many much more one two three
    four five six seven eight nine ten good great right sure tell ask whose whom am any other another such
    describe explain give name introduce imagine remember know say show compare between about during against
    under over than like whatever whenever wherever
    """.split()
)


@dataclass(frozen=True, slots=True)
class Mention:
    """An entity named at ``text[start:end]``."""

    entity: str
    start: int
    end: int


class NameIndex:
    """Finds the names of entities in a text, the longest first, whole words in Latin script."""

    def __init__(self, entities: Iterable[Entity]) -> None:
        self._latin: dict[tuple[str, ...], list[str]] = {}
        self._cjk: dict[str, list[str]] = {}
        for entity in entities:
            for name in entity.all_names():
                self._add(name, entity.id)
        self._word_counts: dict[str, set[int]] = {}  # of the Latin names that begin with a word
        for words in self._latin:
            if words:
                self._word_counts.setdefault(words[0], set()).add(len(words))
        self._lengths: dict[str, set[int]] = {}  # of the Chinese names that begin with a character
        for name in self._cjk:
            self._lengths.setdefault(name[0], set()).add(len(name))

    def _add(self, name: str, entity: str) -> None:
        owners = (
            self._cjk.setdefault(_fold(name), [])
            if CJK.search(name)
            else self._latin.setdefault(tuple(_words(name)), [])
        )
        if entity not in owners:
            owners.append(entity)

    def owners(self, name: str) -> list[str]:
        """Return the ids of the entities that bear exactly this name."""
        return self._cjk.get(_fold(name), []) if CJK.search(name) else self._latin.get(tuple(_words(name)), [])

    def find(self, text: str) -> list[Mention]:
        """Return the mentions in order; of overlapping ones the longest, of equals all owners."""
        found = self._find_cjk(text) + self._find_latin(text)
        found.sort(key=lambda m: (m.start - m.end, m.start))
        taken = [False] * (len(text) + 1)
        kept: list[Mention] = []
        spans: set[tuple[int, int]] = set()
        for mention in found:
            span = (mention.start, mention.end)
            if span in spans:
                kept.append(mention)
            elif not any(taken[mention.start : mention.end]):
                taken[mention.start : mention.end] = [True] * (mention.end - mention.start)
                spans.add(span)
                kept.append(mention)
        return sorted(kept, key=lambda m: m.start)

    def ids(self, text: str) -> list[str]:
        """Return the ids of the entities that a text names, in order, without repeats."""
        return list(dict.fromkeys(mention.entity for mention in self.find(text)))

    def _find_cjk(self, text: str) -> list[Mention]:
        if not CJK.search(text):
            return []
        folded, places = _fold_places(text)
        found: list[Mention] = []
        for start, first in enumerate(folded):
            for length in self._lengths.get(first, ()):
                owners = self._cjk.get(folded[start : start + length])
                if owners and start + length <= len(folded):
                    end = places[start + length - 1] + 1
                    found.extend(Mention(owner, places[start], end) for owner in owners)
        return found

    def _find_latin(self, text: str) -> list[Mention]:
        words = [(w.start(), w.end(), _word(w.group())) for w in _WORD.finditer(text) if not CJK.search(w.group())]
        # A Latin word glued to Chinese ("哈利Harry") is cut out of its run.
        words += [
            (m.start(), m.end(), _word(m.group()))
            for w in _WORD.finditer(text)
            if CJK.search(w.group())
            for m in re.compile(r"[A-Za-z0-9'’]+").finditer(text, w.start(), w.end())
        ]
        words.sort()
        found: list[Mention] = []
        folded = tuple(word for _, _, word in words)
        for i, first in enumerate(folded):
            for length in self._word_counts.get(first, ()):
                owners = self._latin.get(folded[i : i + length])
                if owners and i + length <= len(folded):
                    found.extend(Mention(o, words[i][0], words[i + length - 1][1]) for o in owners)
        return found


def unknown_names(text: str, index: NameIndex, vocabulary: str) -> list[str]:
    """Return the words of a text that look like names and stand neither in the index nor in the vocabulary.

    ``vocabulary`` is all text that counts as known, folded by ``fold_vocabulary``. Chinese has no capitals:
    there a name is a dotted name, a run of three or more characters that spell foreign names, or such a
    run before a title. English names are capitalised words that are not everyday ones; one that begins a
    sentence counts only if another such word follows.
    """
    masked = list(text)
    for mention in index.find(text):
        for i in range(mention.start, mention.end):
            masked[i] = _MASK
    rest = "".join(masked)
    candidates = [*_chinese_candidates(rest), *_english_candidates(rest)]
    return [name for name in dict.fromkeys(candidates) if not stands_in(name, vocabulary)]


def fold_vocabulary(texts: Iterable[str]) -> str:
    """Return texts as the vocabulary that ``unknown_names`` looks into: Chinese without blanks, then Latin words."""
    known = list(texts)
    words = dict.fromkeys(_joined_words(text) for text in known)
    return "\n".join([*(_fold(text) for text in known if CJK.search(text)), *words])


def stands_in(name: str, vocabulary: str) -> bool:
    """Tell whether a vocabulary knows a name; one in Latin letters as the beginning of its words only."""
    return (_fold(name) if CJK.search(name) else _joined_words(name)) in vocabulary


def _joined_words(text: str) -> str:
    """Return the Latin words of a text, a blank before each."""
    folded = unicodedata.normalize("NFKC", text)
    return "".join(f" {_word(word)}" for word in _LATIN_WORD.findall(folded))


def _chinese_candidates(text: str) -> Iterable[str]:
    rest = list(_EVERYDAY.sub(lambda m: "\n" * len(m[0]), text))
    for start, end in _dotted_names("".join(rest)):
        yield text[start:end]
        rest[start:end] = "\n" * (end - start)
    for run in _CJK_RUN.findall("".join(rest)):
        spelled = list(_spelled_runs(run))
        yield from spelled
        for match in _TITLED.finditer(run):
            tail = match.group(1)[-3:]
            name = tail if all(c in _SPELLING for c in tail) else tail[-2:]
            if all(c in _SPELLING for c in name) and not any(name in longer for longer in spelled):
                yield name


def _dotted_names(text: str) -> Iterable[tuple[int, int]]:
    """Yield start and end of each dotted name: its first and last part reach as far as characters spell names."""
    for match in _DOTTED.finditer(text):
        first, *parts = (part.span() for part in _CJK_RUN.finditer(text, *match.span()))
        begin = _part_begin(text, *first)
        for start, end in parts:
            stop = _part_end(text, start, end)
            if stop < end or end == match.end():
                yield begin, stop
                begin = max(stop, _part_begin(text, start, end))


def _part_begin(text: str, start: int, end: int) -> int:
    spelled = _NAME_TAIL.search(text, start, end)
    return spelled.start() if spelled else end - 1


def _part_end(text: str, start: int, end: int) -> int:
    spelled = _NAME_HEAD.match(text, start, end) or _NAME_SENSE.match(text, start, end)
    return spelled.end() if spelled else start + 1


def _spelled_runs(run: str) -> Iterable[str]:
    start = 0
    for i in range(len(run) + 1):
        if i < len(run) and run[i] in _SPELLING:
            continue
        name = run[start:i]
        if len(name) >= 3 and sum(c in _SPELLING_STRICT for c in name) >= len(name) - 1:
            yield name
        start = i + 1


def _english_candidates(text: str) -> Iterable[str]:
    for match in _CAPITAL.finditer(text):
        word = match.group()
        if word.casefold().removesuffix("'s").removesuffix("’s") in _NOT_NAMES:
            continue
        before = text[: match.start()].rstrip(" \"'“‘(")
        starts_sentence = not before or before[-1] in ".!?:;\n-–—*…"
        follows_capital = _CAPITAL.match(text[match.end() :].lstrip(" ")) is not None
        if not starts_sentence or (follows_capital and _MASK not in text[match.end() : match.end() + 2]):
            yield re.sub(r"['’]s$", "", word)


def _word(word: str) -> str:
    word = unicodedata.normalize("NFKC", word).casefold().replace("’", "'")
    return word.removesuffix("'s")


def _words(name: str) -> list[str]:
    return [_word(word.group()) for word in _WORD.finditer(name)]


def _fold_places(text: str) -> tuple[str, list[int]]:
    """Return the text as names are compared, and for each character left its place in the text."""
    folded = text.casefold()
    if len(folded) != len(text) or not unicodedata.is_normalized("NFKC", text):
        parts = [(c, i) for i, char in enumerate(text) for c in unicodedata.normalize("NFKC", char).casefold()]
        folded, where = "".join(c for c, _ in parts), [i for _, i in parts]
    else:
        where = list(range(len(text)))
    places = [i for c, i in zip(folded, where, strict=True) if c not in _GLUE]
    return folded.translate(_WITHOUT_GLUE), places


def _fold(text: str) -> str:
    return _fold_places(text)[0]
