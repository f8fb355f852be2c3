"""Verdicts of conclusions, and analyses that are written and read again.

Mirrors scalejax/report/analysis.py.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalejax.files import read_json, write_json
from scalejax.fitting.charts.chart import Band, Chart, Line, Points
from scalejax.report.analysis import Analysis, Conclusion, read_analysis, write_analysis
from scalejax.report.write import write_report
from tests.report.studies import results_table, write_study

CHART = Chart(
    name="loss-by-rate",
    title="Loss against learning rate",
    caption="Mean of three seeds.",
    x_label="learning rate",
    y_label="loss",
    log_x=True,
    marks=[
        Points(label="runs", colour="#123456", x=np.array([1.0, 2.0]), y=np.array([3.0, 2.5])),
        Line(label="law", colour="#123456", x=np.array([1.0, 2.0]), y=np.array([3.1, 2.4])),
        Band(
            label="law",
            colour="#123456",
            x=np.array([1.0, 2.0]),
            low=np.array([3.0, 2.3]),
            high=np.array([3.2, 2.5]),
        ),
    ],
)


@pytest.mark.parametrize(
    ("low", "high", "above", "below", "verdict"),
    [
        (0.1, 0.3, 0.0, None, "holds"),
        (-0.3, -0.1, 0.0, None, "does not hold"),
        (-0.1, 0.3, 0.0, None, "not resolved at this scale"),
        (-0.1, 0.1, -0.2, 0.2, "holds"),
        (0.3, 0.4, -0.2, 0.2, "does not hold"),
        (None, 0.1, 0.0, None, "not resolved at this scale"),
        (None, -0.1, 0.0, None, "does not hold"),
        (None, None, None, 0.0, "not resolved at this scale"),
        (0.1, 0.3, None, None, "measured"),
    ],
)
def test_the_verdict_follows_from_the_interval(low, high, above, below, verdict):
    middle = 0.5 * ((low or 0.0) + (high or 0.0))
    conclusion = Conclusion(
        claim="It is so", estimate=middle, low=low, high=high, above=above, below=below
    )
    assert conclusion.verdict == verdict


@given(
    ends=st.tuples(st.floats(-9, 9), st.floats(-9, 9)).map(sorted),
    limit=st.floats(-9, 9),
)
def test_a_claim_and_its_opposite_do_not_both_hold(ends, limit):
    low, high = ends
    above, below = (
        Conclusion(claim="It is so", estimate=low, low=low, high=high, **{side: limit}).verdict
        for side in ("above", "below")
    )
    assert not above == below == "holds" or low == high == limit
    unresolved = "not resolved at this scale"
    if low < limit < high:
        assert above == below == unresolved


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"estimate": float("nan")}, "give a number"),
        ({"low": 2.0, "high": 1.0}, "give the lower end first"),
        ({"above": 2.0, "below": 1.0}, "range of its claim"),
    ],
)
def test_a_conclusion_of_nonsense_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Conclusion(**{"claim": "It is so", "estimate": 1.0, **wrong})


def test_an_analysis_is_read_as_it_was_written_and_shown_in_the_report(tmp_path):
    folder = write_study(tmp_path / "made@1", results_table())
    conclusion = Conclusion(
        claim="Rates of <small> models are higher", estimate=1.5, low=1.25, high=2.0, above=1.0
    )
    write_analysis(folder, Analysis(conclusions=[conclusion], charts=[CHART]))
    read = read_analysis(folder)
    assert read is not None and list(read.conclusions) == [conclusion]
    (chart,) = read.charts
    points = chart.marks[0]
    assert [type(mark) for mark in chart.marks] == [Points, Line, Band]
    assert isinstance(points, Points)
    np.testing.assert_array_equal(points.y, [3.0, 2.5])
    page = write_report(folder).read_text(encoding="utf-8")
    assert "Rates of &lt;small&gt; models are higher (above 1)" in page
    assert "1.5 [1.25, 2]" in page and "Mean of three seeds." in page
    assert (folder / "figures" / "loss-by-rate.png").stat().st_size > 1_000


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: record["charts"][0].update(name="../outside"),
        lambda record: record["charts"][0]["marks"][0].update(kind="Script"),
        lambda record: record["conclusions"][0].update(low="many"),
        lambda record: record.pop("charts"),
    ],
)
def test_a_damaged_analysis_is_named(tmp_path, damage):
    conclusion = Conclusion(claim="It is so", estimate=1.0)
    write_analysis(tmp_path, Analysis(conclusions=[conclusion], charts=[CHART]))
    record = read_json(tmp_path / "analysis.json")
    damage(record)
    write_json(tmp_path / "analysis.json", record)
    with pytest.raises(ValueError, match=r"analysis.json is damaged"):
        read_analysis(tmp_path)
