"""opening.py: a session opened by a command line's choices."""

import pytest

from camelbell_core.conversations import Conversation
from camelbell_core.opening import Opener
from camelbell_core.records import Point
from camelbell_core.roles import ChatFrontend
from camelbell_core.session import Settings


@pytest.fixture
def opener(open_lumen, scripted):
    """Make an opener of the scaffold's character; its models note what base they were asked for."""

    def make(**choices):
        run = open_lumen()

        def open_model(run, base):
            model = scripted(["一。"])
            model.name = f"{run.character.name} on {base or 'its own'}"
            return model

        return Opener(
            open_run={"lumen": run}.__getitem__, open_model=open_model, characters=list, bases=list,
            settings=Settings(at=Point(1, 1), max_tokens=7), **choices,
        )  # fmt: skip

    return make


@pytest.mark.parametrize(("base", "name"), [("", "lumen on its own"), ("smollm2", "lumen on smollm2")])
def test_a_session_has_what_was_chosen(opener, base, name):
    session = opener().open("lumen", base)
    assert (session.model.name, session.settings) == (name, Settings(at=Point(1, 1), max_tokens=7))
    assert session.memory and session.guard and isinstance(session.log, Conversation)
    bare = opener(memory=False, guard=False, log=False).open("lumen", base)
    assert (bare.memory, bare.guard, bare.log) == (None, [], None)


def test_each_session_is_a_conversation_of_its_own(opener):
    opened = opener()
    first, second = opened.open("lumen"), opened.open("lumen")
    assert first.log.file != second.log.file


def test_a_frontend_is_told_how_to_open_others(opener):
    class Silent(ChatFrontend):
        name = "silent"

        def run(self, session):
            pass

    one, other = Silent(), Silent()
    one.use(made := opener())
    assert (one.opener, other.opener) == (made, None)
