"""Stop texts: what is shown ends before the first of them, however the stream is cut into pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camelbell_plugins.frontend_serve.stops import StopCutter


def shown(stops, pieces):
    cutter = StopCutter(stops)
    text = "".join(cutter.feed(piece) for piece in pieces)
    return text + cutter.rest(), cutter.found


@pytest.mark.parametrize(
    ("stops", "pieces", "text", "found"),
    [
        ((), ["你好", "世界"], "你好世界", False),
        (("。",), ["你好。", "再见。"], "你好", True),
        (("\nUser:",), ["Hi", "\nUs", "er", ": x"], "Hi", True),
        (("\nUser:",), ["Hi", "\nUs", "eful"], "Hi\nUseful", False),
        (("\nUser:",), ["Hi\nUser"], "Hi\nUser", False),
        (("世界", "好世"), ["你好", "世", "界"], "你", True),
        (("aab",), ["aaa", "ab", "c"], "aa", True),
        (("",), ["x"], "x", False),
    ],
)
def test_the_text_ends_before_the_first_stop(stops, pieces, text, found):
    assert shown(stops, pieces) == (text, found)


def test_what_might_become_a_stop_is_held_back_and_no_more():
    cutter = StopCutter(["再见了"])
    assert [cutter.feed(piece) for piece in ("你好", "再", "见", "哈利", "再见", "了", "后来")] == [
        "你好",
        "",
        "",
        "再见哈利",
        "",
        "",
        "",
    ]
    assert (cutter.found, cutter.rest()) == (True, "")


@given(st.lists(st.text("ab哈", max_size=4), max_size=8), st.lists(st.text("ab哈", min_size=1, max_size=3), max_size=3))
def test_the_pieces_do_not_matter(pieces, stops):
    whole = "".join(pieces)
    places = [whole.find(stop) for stop in stops if stop in whole]
    text, found = shown(stops, pieces)
    assert found == bool(places)
    # The stop that ends first is seen first; one that began before it may end later.
    ends = [whole.find(stop) + len(stop) for stop in stops if stop in whole]
    assert text == whole[: len(text)]
    assert (len(text) <= min(ends)) if places else text == whole
    assert not any(stop in text for stop in stops)
