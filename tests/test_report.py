"""The report page, in a real headless Chromium where there is one."""

import json
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from camelbell_core.journal import write_json, write_rows
from camelbell_core.pipeline import filter_pairs, make_answers, make_questions
from camelbell_core.records import Pair, to_row
from camelbell_core.report import write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ODD = Pair("<script>alert(1)</script>你好？", "作为一个AI，我不怕冷，也不怕黑，你呢？</script><b>", "zh")


def no_model():
    pytest.fail("no model is needed here")


@pytest.fixture
def ran(open_lumen, chat_service):
    """A run with all that a page shows."""
    run = open_lumen(answers={"openai": {"base_url": chat_service.url, "price_in": 10, "price_out": 10}})
    make_questions(run, 30)
    make_answers(run, no_model)
    with run.workspace.pairs.open("a", encoding="utf-8") as out:
        out.write(json.dumps(to_row(ODD), ensure_ascii=False) + "\n")
    filter_pairs(run)
    write_rows(run.workspace.adapter("toy") / "loss.jsonl", ({"step": n, "loss": 3 / (n + 1)} for n in range(1000)))
    scores = [{"kind": "fact", "lang": "zh", "truthful": 0.8125, "n": 16, "low": 0.55, "high": 0.93}]
    write_json(run.workspace.reports / "eval-after.json", {"scores": scores, "coverage": 1})
    return run


class Page(HTMLParser):
    def __init__(self, file):
        super().__init__()
        self.ids, self.outside, self.texts, self.scripts = [], [], [], 0
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids += filter(None, [given.get("id")])
        self.outside += [value for name in ("src", "href") if (value := given.get(name))]
        self.scripts += tag == "script"

    def handle_data(self, data):
        self.texts.append(data)


def test_the_page_holds_everything_and_needs_no_network(ran):
    page = Page(write_report(ran))
    assert {"coverage", "diversity", "lengths", "filters", "throughput", "samples"} <= set(page.ids)
    assert page.outside == [] and page.scripts == 2  # the data and the search: no question became a script
    text = "\n".join(page.texts)
    for shown in ("Lumen / 小灯", "0.812", "eval-after", "Training loss: toy", "says '作为一个AI'"):
        assert shown in text


def test_a_run_that_has_hardly_begun_has_a_page_too(open_lumen, tmp_path):
    run = open_lumen()
    assert Page(write_report(run, tmp_path / "empty.html")).ids
    make_questions(run, 3)
    page = Page(write_report(run, tmp_path / "begun.html"))
    assert "coverage" in page.ids and "throughput" not in page.ids


def test_of_a_large_run_a_sample_is_shown(ran, monkeypatch):
    monkeypatch.setattr("camelbell_core.report._SAMPLES", 10)
    text = write_report(ran).read_text(encoding="utf-8")
    data = json.loads(text.split('type="application/json">')[1].split("</script>")[0])
    assert len(data) == 10 and "total = 31;" in text


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
@pytest.mark.parametrize(
    ("words", "found"),
    [("", "31 found"), ("阿白", None), ("PEBBLE", None), ("alert(1)", "1 found"), ("一个也没有", "0 found")],
)
def test_the_samples_can_be_searched_in_a_browser(ran, tmp_path, words, found):
    file = write_report(ran)
    # The browser is told what to type by a script at the page's end; what it then shows is printed.
    typing = f"<script>words.value = {json.dumps(words)}; words.dispatchEvent(new Event('input'));</script></body>"
    typed = tmp_path / "typed.html"
    typed.write_text(file.read_text(encoding="utf-8").replace("</body>", typing), encoding="utf-8")
    done = subprocess.run(
        [
            BROWSER,
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
            f"--user-data-dir={tmp_path / 'profile'}",
            *("--virtual-time-budget=5000", "--dump-dom", typed.as_uri()),
        ],
        capture_output=True,
        timeout=120,
        check=True,
    )
    dom = done.stdout.decode("utf-8")
    status = dom.split('role="status">')[1].split("<")[0]
    shown = dom.split('<div id="rows">')[1].split("</section>")[0]
    if found is None:
        assert int(status.split()[0]) == shown.count('class="pair') > 0
        assert shown.lower().count(words.lower()) >= int(status.split()[0])
    else:
        assert status.startswith(found)
    assert "<svg" in dom and "NaN" not in dom
