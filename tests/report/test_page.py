"""The report in a browser: drawn, reachable by keyboard, legible, without a network.

Mirrors scalejax/report/page.py and scalejax/fitting/charts/figure.py.
"""

import json
import re
import shutil
import subprocess
from html import escape
from pathlib import Path

import numpy as np
import pytest

from scalejax.fitting.charts.chart import Chart, Points
from scalejax.fitting.charts.style import DARK, LIGHT
from scalejax.report.analysis import Analysis, Conclusion, write_analysis
from scalejax.report.write import write_report
from tests.report.studies import FORECAST_RUN, register_forecast, results_table, write_study

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")

# Uses the page like a reader, and writes what it sees into the page.
PROBE = """<pre id="probe"></pre><script>
const seen = {};
const shown = () => [...document.querySelectorAll('.view:not([hidden]) .plot > svg')];
seen.drawings = shown().map(svg => {
  const {width, height} = svg.getBoundingClientRect();
  return {width, height, shapes: svg.querySelectorAll('path, use').length};
});
const figure = document.getElementById('figure-loss_curves');
const plot = figure.querySelector('.plot'), tip = figure.querySelector('.tip');
const press = key => plot.dispatchEvent(new KeyboardEvent('keydown', {key}));
plot.focus();
seen.focused = document.activeElement === plot;
seen.before = tip.hidden;
press('ArrowRight');
seen.first = tip.textContent;
press('ArrowRight');
seen.second = tip.textContent;
press('ArrowDown');
seen.down = tip.textContent;
press('Escape');
seen.after = tip.hidden;
const lines = () => [...plot.querySelectorAll('[data-series="0"]')];
figure.querySelector('.legend button').click();
seen.hidden = lines().map(line => getComputedStyle(line).display);
figure.querySelector('.switch input[value="1"]').click();
seen.views = [...figure.querySelectorAll('.view')].map(view => view.hidden);
const table = [['a_b', 'loss'], ['50% | x', '1.5 ± 0.1']];
seen.latex = FORMS.latex(table, [false, true]);
seen.markdown = FORMS.markdown(table, [false, true]);
seen.links = [...document.querySelectorAll('nav a')].map(
  a => document.querySelector(a.getAttribute('href'))?.querySelector('h2').textContent);
seen.overflow = document.documentElement.scrollWidth - innerWidth;
seen.resources = performance.getEntriesByType('resource').map(entry => entry.name);
document.getElementById('probe').textContent = JSON.stringify(seen);
</script>"""


# A telephone's window. Chromium's own windows are at least 500 pixels wide.
NARROW = """<iframe style="width: 390px; height: 844px; border: 0" srcdoc="{page}"></iframe>
<pre id="probe"></pre><script>
const frame = document.querySelector('iframe');
frame.onload = () => {
  const page = frame.contentDocument, seen = {};
  seen.width = frame.contentWindow.innerWidth;
  seen.overflow = page.documentElement.scrollWidth - seen.width;
  const box = text => text.getBoundingClientRect();
  seen.gaps = [...page.querySelectorAll('.view:not([hidden]) .plot:not(.named) > svg')].map(svg => {
    const name = box(svg.querySelector('text[transform^="rotate(-90"]'));
    const numbers = [...svg.querySelectorAll('text')].filter(text =>
      getComputedStyle(text).textAnchor === 'end').map(box);
    return {
      numbers: numbers.length,
      name: name.left,
      gap: Math.min(...numbers.map(it => it.left)) - name.right,
    };
  });
  document.getElementById('probe').textContent = JSON.stringify(seen);
};
</script>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a study without laws, with its report."""
    folder = write_study(tmp_path_factory.mktemp("out") / "made@1", results_table())
    register_forecast(folder, value=2.4, low=2.35, high=2.45, measured=2.5)
    conclusion = Conclusion(claim="Size pays", estimate=0.5, low=0.4, high=0.6, above=0.0)
    # Numbers of five characters along the vertical axis.
    losses = Points(label="runs", colour="#1f5fa8", x=np.arange(4.0), y=np.linspace(3.55, 3.72, 4))
    chart = Chart(
        name="losses",
        title="Losses",
        caption="Measured.",
        x_label="seed",
        y_label="loss, nats per token",
        marks=[losses],
    )
    write_analysis(folder, Analysis(conclusions=[conclusion], charts=[chart]))
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def browser(folder):
    """What the probe saw in a window of 1280 pixels, and what the browser logged."""
    page = (folder / "report.html").read_text(encoding="utf-8")
    return look(folder / "probed.html", page.replace("</body>", PROBE + "</body>"))


@pytest.fixture(scope="module")
def narrow(folder):
    """What is seen in a window of 390 pixels."""
    page = (folder / "report.html").read_text(encoding="utf-8")
    return look(folder / "narrow.html", NARROW.replace("{page}", escape(page)))


def look(path: Path, html: str) -> tuple[dict, str]:
    """What the probe in a page saw, and what the browser logged."""
    if BROWSER is None:
        pytest.skip("neither chromium nor google-chrome is installed, so no page is opened")
    path.write_text(html, encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    # No name resolves, so that a request to anywhere would fail and be logged.
    flags += ["--host-resolver-rules=MAP * ~NOTFOUND", "--window-size=1280,900", "--dump-dom"]
    done = subprocess.run(
        [BROWSER, *flags, path.as_uri()], capture_output=True, text=True, timeout=300
    )
    found = re.search(r'<pre id="probe">(\{.*?\})</pre>', done.stdout, flags=re.DOTALL)
    assert found, f"the probe did not run: {done.stderr[-2000:]}"
    text = found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return json.loads(text), done.stderr


def test_all_figures_are_drawn_in_the_width_of_the_window(browser):
    seen, _ = browser
    assert len(seen["drawings"]) == 4
    assert all(it["width"] > 700 and it["height"] > 100 for it in seen["drawings"])
    assert all(it["shapes"] > 20 for it in seen["drawings"])
    assert seen["overflow"] <= 0


def test_a_page_on_a_telephone_does_not_scroll_sideways(narrow):
    seen, _ = narrow
    assert seen["width"] == 390
    assert seen["overflow"] <= 0


def test_on_a_telephone_the_name_of_an_axis_is_beside_its_numbers(narrow):
    seen, _ = narrow
    assert len(seen["gaps"]) == 3
    for it in seen["gaps"]:
        assert it["numbers"] > 3 and it["gap"] >= 0 and it["name"] >= 0


def test_the_page_asks_nothing_of_a_network_and_logs_no_error(browser):
    seen, log = browser
    assert seen["resources"] == []
    assert "CONSOLE" not in log


def test_the_keyboard_reaches_every_point(browser):
    seen, _ = browser
    runs = set(results_table()["run"])
    assert seen["focused"] and seen["before"] and seen["after"]
    first, second, down = (seen[name].splitlines() for name in ("first", "second", "down"))
    assert first[0] == second[0] and first[0] in runs
    assert first[-1] != second[-1], "right moves along the curve"
    assert down[-1] != second[-1], "down moves to the next curve"


def test_the_legend_hides_a_series_and_the_switch_shows_another_view(browser):
    seen, _ = browser
    assert len(seen["hidden"]) > 1 and set(seen["hidden"]) == {"none"}
    assert seen["views"] == [True, False]


def test_tables_are_copied_as_latex_and_as_markdown(browser):
    seen, _ = browser
    assert seen["latex"].splitlines() == [
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"a\_b & loss \\",
        r"\midrule",
        r"50\% | x & 1.5 $\pm$ 0.1 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    head, rule, row = seen["markdown"].splitlines()
    assert (head, rule) == ("| a_b | loss |", "| --- | ---: |")
    assert row == r"| 50% \| x | 1.5 ± 0.1 |"


def test_the_table_of_contents_leads_to_every_section(browser, folder):
    seen, _ = browser
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert seen["links"] == re.findall(r"<h2>(.*?)</h2>", page)
    assert len(seen["links"]) >= 6


def test_every_figure_has_files_and_links_to_them(folder):
    page = (folder / "report.html").read_text(encoding="utf-8")
    files = re.findall(r'href="(figures/[^"]+)"', page)
    assert len(files) == 10
    for name in files:
        start = b"\x89PNG" if name.endswith("png") else b"<?xml"
        assert (folder / name).read_bytes().startswith(start)


def test_a_point_says_how_its_run_differs_from_others(folder):
    page = (folder / "report.html").read_text(encoding="utf-8")
    scripts = re.findall(r'<script type="application/json">(.*?)</script>', page)
    texts = [text for script in scripts for text in json.loads(script)["texts"]]
    facts, *_ = (it for it in texts if it.startswith(f"{FORECAST_RUN}\n250k"))
    assert re.search(r"\n0+14 with 120k params: loss \+0\.\d{4}", facts)


def luminance(colour: str) -> float:
    """Relative luminance of a hexadecimal colour as WCAG 2 defines it."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("background", ["paper", "notes"])
@pytest.mark.parametrize("text", ["ink", "quiet", "alarm", "link"])
def test_texts_have_the_contrast_that_wcag_asks_for(palette, background, text):
    colours = dict(re.findall(r"--(\w+): (#\w{6});", palette))
    levels = sorted(luminance(colours[name]) + 0.05 for name in (text, background))
    assert levels[1] / levels[0] >= 4.5
