"""The page and the tab opened in a real Chromium: nothing wrong in the console, figures as in result.json, pictures."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sweep_maker import make_sweep

from kd_lightning.report.pages.page import write_report

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ROWS = 'document.querySelectorAll("#kd-board tbody tr").length'
DRAWN = 'document.querySelectorAll("#kd .js-plotly-plot .main-svg").length > 4 &&' + ROWS
FRAME = 'document.querySelector("iframe").contentDocument'


@pytest.fixture
def opened(browser, sweep_dir):
    """Opens the report of the small sweep, waits until it is drawn."""

    def open_page(**settings):
        page = browser.page(write_report(sweep_dir).as_uri(), **settings)
        page.wait_for(DRAWN)
        return page

    return open_page


def means(folder: Path, metric: str = "test/acc") -> dict[tuple[str, str], float]:
    """(temperature, weight) -> mean over the finished seeds, straight from the result.json files."""
    values: dict[tuple[str, str], list[float]] = {}
    for path in folder.glob("*/result.json"):
        result = json.loads(path.read_text())
        if result["status"] == "finished" and result["role"] == "distilled":
            pairs = dict(override.split("=") for override in result["overrides"])
            key = (pairs["method.temperature"], pairs["method.weights.kd"])
            values.setdefault(key, []).append(result["metrics"][metric])
    return {key: sum(found) / len(found) for key, found in values.items()}


def choose(page, select: str, value: str) -> None:
    element = f'document.getElementById("{select}")'
    page.evaluate(f'{element}.value = "{value}"; {element}.dispatchEvent(new Event("change"))')


def board(page) -> dict[tuple[str, str], str]:
    """(temperature, weight) -> the mean as the leaderboard shows it; names are "T=8 kd=0.9"."""
    rows = page.evaluate(
        '[...document.querySelectorAll("#kd-board tbody tr")].filter((row) => row.dataset.id.startsWith("c"))'
        ".map((row) => [...row.cells].map((cell) => cell.textContent))"
    )
    names = [re.match(r"T=(\S+) kd=([0-9.]+)", cells[1]).groups() for cells in rows]
    return {name: cells[2].split(" ")[0] for name, cells in zip(names, rows, strict=True)}


def test_the_page_shows_the_figures_of_the_results_without_a_console_error(opened, sweep_dir):
    page = opened()
    assert board(page) == {key: f"{100 * mean:.2f}" for key, mean in means(sweep_dir).items()}
    drawn = page.evaluate(
        'document.querySelector("#kd-heatmaps > div").data[1].text.map((t) => t.match(/<b>(.*?)</)[1])'
    )
    expected = means(sweep_dir)
    order = [(f"{t}", f"{w}") for w in (0.1, 0.5, 0.9) for t in (1, 2, 4, 8)]
    assert drawn == [f"{100 * expected[key]:.1f}" for key in order]
    assert page.problems == []


def test_the_page_asks_the_network_for_nothing(opened, sweep_dir):
    page = opened()
    addresses = [address for address in page.requests if not address.startswith(("data:", "blob:"))]
    assert addresses == [(sweep_dir / "report.html").as_uri()]


def test_another_metric_changes_every_figure(opened, sweep_dir):
    page = opened()
    choose(page, "kd-metric", "test/kl_teacher")
    shown = {key: float(text) for key, text in board(page).items()}
    assert shown == pytest.approx(means(sweep_dir, "test/kl_teacher"), abs=1e-4)
    first = page.evaluate('document.querySelector("#kd-board tbody tr").cells[1].textContent')
    assert first.startswith("T=8 ")  # a divergence is sorted upwards: the smallest stands on top
    assert page.problems == []


def test_columns_sort_and_rows_join_the_learning_curves(opened):
    page = opened()
    header = '[...document.querySelectorAll("#kd-board th")].find((th) => th.textContent.startsWith("valid"))'
    page.evaluate(f"{header}.click()")
    cells = '[...document.querySelectorAll("#kd-board tbody tr[data-id^=c]")]'
    column = f"{cells}.map((row) => Number(row.cells[5].textContent))"
    values = page.evaluate(column)
    assert values == sorted(values, reverse=True)
    page.evaluate(f"{header}.click()")
    values = page.evaluate(column)
    assert values == sorted(values)
    lines = 'document.getElementById("kd-learning").data.filter((t) => t.showlegend !== false).map((t) => t.name)'
    assert page.evaluate(lines) == ["T=8 kd=0.9", "student alone"]
    page.evaluate('document.querySelector("#kd-board tbody tr[data-id=c0]").click()')
    assert page.evaluate(lines) == ["T=1 kd=0.1", "T=8 kd=0.9", "student alone"]
    assert page.problems == []


NAMES = '[...document.querySelectorAll("#kd-board tbody tr[data-id^=c] td.name")].map((cell) => cell.textContent)'


def test_the_leaderboard_is_filtered_and_grouped_by_any_key(opened):
    page = opened()

    def filtered(text: str) -> list[str]:
        box = 'document.getElementById("kd-filter")'
        page.evaluate(f'{box}.value = "{text}"; {box}.dispatchEvent(new Event("input"))')
        return page.evaluate(NAMES)

    assert len(filtered("")) == 12
    assert {name.split(" ")[0] for name in filtered("T=2")} == {"T=2"}
    assert len(filtered("method.weights.kd=0.9")) == 4
    assert len(filtered("T=2 kd=0.9")) == 1
    filtered("")
    choose(page, "kd-group", "method.temperature")
    heads = page.evaluate('[...document.querySelectorAll("#kd-board tr.group")].map((row) => row.textContent)')
    assert sorted(heads) == ["T = 1", "T = 2", "T = 4", "T = 8", "references"]
    assert page.problems == []


def test_further_columns_are_shown_on_demand(opened):
    page = opened()
    heads = '[...document.querySelectorAll("#kd-board th")].map((th) => th.textContent)'
    before = page.evaluate(heads)
    page.evaluate('document.getElementById("kd-wide").click()')
    more = [head for head in page.evaluate(heads) if head not in before]
    assert more == ["test ece [%]", "test kl teacher", "test loss task"]
    assert page.problems == []


def test_rows_that_are_compared_are_laid_side_by_side_where_they_differ(opened):
    page = opened()
    page.evaluate('document.querySelector("#kd-board tbody tr[data-id=c0]").click()')
    rows = page.evaluate(
        '[...document.querySelectorAll("#kd-differences tr")].map((r) => [...r.cells].map((c) => c.textContent))'
    )
    assert rows[0][:2] == ["key", "T=8 kd=0.9"]
    values = {row[0]: dict(zip(rows[0][1:], row[1:], strict=True)) for row in rows[1:]}
    assert (values["method.temperature"]["T=8 kd=0.9"], values["method.temperature"]["T=1 kd=0.1"]) == ("8", "1")


def test_on_a_phone_the_leaderboard_fits_and_says_where_more_is(opened):
    page = opened(width=390, height=844, phone=True)
    box = 'document.getElementById("kd-board").parentElement'
    assert page.evaluate(f"{box}.scrollWidth <= {box}.clientWidth + 1")
    assert not page.evaluate('document.getElementById("kd-wide").hidden')
    page.evaluate('document.getElementById("kd-wide").click()')
    assert page.evaluate(f"{box}.scrollWidth > {box}.clientWidth")
    assert page.evaluate('document.getElementById("kd-swipe").offsetHeight') > 0


def test_a_click_on_a_cell_of_the_heatmap_compares_it(opened):
    page = opened()
    area = 'document.querySelector("#kd-heatmaps .nsewdrag").getBoundingClientRect()'
    box = page.evaluate(f"(({{ x, y, width, height }}) => [x, y, width, height])({area})")
    x, y = box[0] + box[2] / 8, box[1] + box[3] * 5 / 6  # lower left: T = 1, kd = 0.1
    for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
        page.send(
            "Input.dispatchMouseEvent",
            type=kind,
            x=x,
            y=y,
            button="none" if kind == "mouseMoved" else "left",
            clickCount=1,
        )
        page.browser.pump(0.2)
    assert page.evaluate("KD.state.compared.includes('c0')")


def test_pictures_in_light_dark_and_on_a_phone(opened, screenshots):
    colours = {}
    for name, settings in {
        "light": {},
        "dark": {"dark": True},
        "phone": {"width": 390, "height": 844, "phone": True},
    }.items():
        page = opened(**settings)
        page.browser.pump(0.5)
        assert page.screenshot(screenshots / f"report-{name}.png").stat().st_size > 50_000
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name}: wider than its window"
        clipped = page.evaluate(
            '[...document.querySelectorAll("#kd .main-svg")].some((s) => s.getBoundingClientRect().right > innerWidth)'
        )
        assert not clipped
        assert page.problems == []
        colours[name] = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colours["light"] == colours["phone"] != colours["dark"]


def test_the_toggle_turns_charts_dark_too(opened):
    page = opened()
    ink = 'document.getElementById("kd-against").layout.font.color'
    before = page.evaluate(ink)
    page.evaluate('document.getElementById("kd-theme").click()')
    assert page.evaluate(ink) != before
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


@pytest.mark.parametrize("kind", ["methods", "three_keys", "seeds", "unfinished", "two_data_sets"])
def test_other_kinds_of_sweeps_are_drawn_without_an_error(browser, tmp_path, screenshots, kind):
    if kind == "methods":
        folders = [make_sweep(tmp_path / "s", {"method": ["kd", "dkd", "hint"]})]
    elif kind == "three_keys":
        folders = [
            make_sweep(
                tmp_path / "s", {"method": ["kd", "dkd"], "method.temperature": [1, 4], "optimizer.lr": [0.01, 0.05]}
            )
        ]
    elif kind == "seeds":
        folders = [make_sweep(tmp_path / "s", {"method.temperature": [4]}, seeds=5)]
    elif kind == "unfinished":
        folders = [
            make_sweep(
                tmp_path / "s",
                {"method.temperature": [1, 4]},
                seeds=1,
                alone=False,
                running=("T01.0_s0",),
                missing=("T04.0_s0",),
            )
        ]
    else:
        other = make_sweep(tmp_path / "t", seeds=1, metric="rmse", mode="min", task="regression", data="tabular")
        folders = [make_sweep(tmp_path / "s", seeds=2), other]
    page = browser.page(write_report(folders, tmp_path / "report.html").as_uri())
    page.wait_for("document.getElementById('kd-title').textContent && document.querySelector('#kd-learning .main-svg')")
    page.browser.pump(0.3)
    page.screenshot(screenshots / f"report-{kind}.png")
    if kind == "two_data_sets":
        choose(page, "kd-study", "1")
        assert page.evaluate('document.getElementById("kd-metric").value') == "test/rmse"
        best = page.evaluate('document.querySelector("#kd-board tbody tr[data-id^=c] b").textContent')
        assert best == f"{min(means(folders[1], 'test/rmse').values()):.3f}"
    assert page.problems == []


@pytest.fixture
def tensorboard(tmp_path):
    """Starts a real TensorBoard on a free port of the loopback address; returns its address."""
    started = []

    def start(logdir: Path) -> str:
        log = tmp_path / "tensorboard.log"
        program = shutil.which("tensorboard", path=Path(sys.executable).parent)
        command = [program, "--logdir", str(logdir), "--host", "127.0.0.1", "--port", "0"]
        with open(log, "w") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, "OMP_NUM_THREADS": "1"})
        started.append(process)
        until = time.monotonic() + 60
        while time.monotonic() < until and process.poll() is None:
            found = re.search(r"http://127\.0\.0\.1:\d+/", log.read_text())
            if found:
                return found.group()
            time.sleep(0.1)
        raise TimeoutError(f"TensorBoard didn't start: {log.read_text()}")

    yield start
    for process in started:
        process.terminate()
        process.wait(timeout=20)


def own_problems(page) -> list[str]:
    """Problems except a warning of TensorBoard's own about the libraries it bundles."""
    return [problem for problem in page.problems if "Three.js" not in problem]


def test_the_tab_in_a_real_tensorboard_is_live(browser, tensorboard, sweep_dir, screenshots):
    logs = sweep_dir.parent
    make_sweep(logs / "another", {"method.temperature": [1, 4]}, seeds=1)
    os.utime(sweep_dir / "sweep.json", (time.time() + 5, time.time() + 5))  # listed first: it changed last
    page = browser.page(tensorboard(logs) + "#kd_lightning", width=1600, height=1100)
    page.wait_for(f'{FRAME}.querySelectorAll("#kd-board tbody tr").length')
    page.wait_for(f'{FRAME}.querySelectorAll(".main-svg").length > 4')
    assert page.evaluate(f'{FRAME}.getElementById("kd-title").textContent') == sweep_dir.name
    assert page.evaluate(f'[...{FRAME}.getElementById("kd-sweep").options].map((o) => o.value)') == [
        sweep_dir.name,
        "another",
    ]
    page.browser.pump(0.5)
    page.screenshot(screenshots / "tab.png", whole=False)

    page.evaluate(f"{FRAME}.scrollingElement.scrollTop = 500")
    source = json.loads((sweep_dir / "T01.0_kd0.90_s1" / "result.json").read_text())
    run = sweep_dir / "T01.0_kd0.90_s2"
    planned = next(r for r in json.loads((sweep_dir / "sweep.json").read_text())["runs"] if r["name"] == run.name)
    ended = {
        **source,
        "name": run.name,
        "seed": 2,
        "overrides": planned["overrides"],
        "fingerprint": planned["fingerprint"],
    }
    (run / "result.json").write_text(json.dumps(ended))
    page.wait_for(f'{FRAME}.getElementById("kd-headline").textContent.startsWith("37/39")')
    assert page.evaluate(f"{FRAME}.scrollingElement.scrollTop") == 500

    page.evaluate(f'(() => {{ const s = {FRAME}.getElementById("kd-sweep"); s.value = "another"; s.onchange(); }})()')
    page.wait_for(f'{FRAME}.getElementById("kd-title").textContent === "another"')
    assert own_problems(page) == []


def test_the_tab_answers_within_two_seconds_for_144_runs(browser, tensorboard, large_sweep, screenshots):
    page = browser.page(tensorboard(large_sweep) + "#kd_lightning", width=1600, height=1100)
    page.wait_for(f'{FRAME}.querySelectorAll("#kd-board tbody tr").length')
    (large_sweep / "T16.0_kd0.90_s0" / "result.json").touch()  # the content is made anew
    ask = f'{FRAME}.defaultView.fetch("./content?sweep=.").then((answer) => answer.json())'
    took = page.evaluate(
        f"(async () => {{ const t = performance.now(); await {ask}; return performance.now() - t; }})()"
    )
    assert took < 2000
    page.browser.pump(0.5)
    page.screenshot(screenshots / "tab-144.png", whole=False)
    assert own_problems(page) == []


def test_the_tab_of_a_thousand_configurations_is_seen_whole_and_answers_a_click(
    browser, tensorboard, tmp_path, screenshots
):
    grid = {
        "method.temperature": [0.5 * (i + 1) for i in range(10)],
        "method.weights.kd": [(i + 1) / 10 for i in range(10)],
        "optimizer.lr": [(i + 1) / 100 for i in range(10)],
    }
    folder = make_sweep(tmp_path / "thousand", grid, seeds=1, steps=800, every=20)
    start = time.monotonic()
    page = browser.page(tensorboard(folder) + "#kd_lightning", width=1600, height=1100)
    page.wait_for(f'{FRAME}.querySelectorAll("#kd-board tbody tr").length')
    print(f"shown {time.monotonic() - start:.1f} s after TensorBoard was started")
    assert page.evaluate(f'{FRAME}.getElementById("kd-heatmap-card").offsetHeight') < 2200  # ten panels of ten rows
    for what, change in {
        "a word in the filter": 'd.getElementById("kd-filter").oninput({target: {value: "T=2 "}})',
        "a row to compare": 'd.querySelector("#kd-board tbody tr.clickable").click()',
        "another metric": 'd.getElementById("kd-metric").onchange({target: {value: "test/agreement"}})',
        "all rows": 'd.getElementById("kd-filter").oninput({target: {value: ""}}); d.getElementById("kd-more").click()',
    }.items():
        took = page.evaluate(
            f"(() => {{ const d = {FRAME}, t = performance.now(); {change}; d.body.offsetHeight; return performance.now() - t; }})()"
        )
        print(f"{what}: {took:.0f} ms")
        assert took < 5000
    assert page.evaluate(f'{FRAME}.querySelectorAll("#kd-board tbody tr").length') > 1000
    page.screenshot(screenshots / "tab-1000.png", whole=False)
    assert own_problems(page) == []


def test_the_tab_says_so_where_there_is_nothing_to_show(browser, tensorboard, tmp_path):
    (tmp_path / "empty").mkdir()
    page = browser.page(tensorboard(tmp_path / "empty") + "data/plugin_entry.html?name=kd_lightning")
    said = page.wait_for('document.getElementById("kd-message")?.textContent')
    assert "no sweep and no run" in said
