from xml.etree import ElementTree

import pytest

from camelbell_core.report import charts


@pytest.mark.parametrize(
    "chart",
    [
        charts.bars({"孩子 <b>": 3, "fan & co": 0.25, "x" * 100: 0}),
        charts.columns([(0, 3), (5, 0), (10, 12)], 5, "字 & characters"),
        charts.line([(0, 2.5), (1, 1.5), (2, -0.5)], "步", "loss <"),
        charts.line([(5, 0), (5, 0)], "x", "y"),
        charts.heat_map({"事实 <": {"zh": 3, "en": 0}, "fact & more": {"zh": 1000}}),
    ],
)
def test_a_chart_is_whole_whatever_its_names_and_numbers(chart):
    text = "".join(ElementTree.fromstring(chart).itertext())
    assert text and "nan" not in chart.lower()


@pytest.mark.parametrize(
    "chart", [charts.bars({}), charts.columns([], 1, "x"), charts.line([(1, 2)], "x", "y"), charts.heat_map({})]
)
def test_without_data_there_is_no_chart(chart):
    assert chart == ""


def test_bars_are_as_long_as_their_numbers():
    root = ElementTree.fromstring(charts.bars({"一": 100, "two": 25}))
    long, short = (float(rect.get("width")) for rect in root.iter("rect"))
    assert short == pytest.approx(long / 4)


def test_cells_without_any_stand_out():
    chart = charts.heat_map({"fact": {"zh": 5}, "trap": {"en": 1}})
    assert chart.count('class="none">0<') == 2
