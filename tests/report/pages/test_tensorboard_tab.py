"""TensorBoard's Distillation tab without a browser: light to import, unable to stop TensorBoard, quick to answer."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from sweep_maker import make_sweep
from tensorboard.plugins import base_plugin
from werkzeug.test import Client

from kd_lightning.report.pages.live import LiveReports
from kd_lightning.report.pages.tensorboard_tab import DistillationTab


def tab_of(logdir, **flags):
    return DistillationTab(base_plugin.TBContext(logdir=str(logdir), flags=SimpleNamespace(**flags)))


def ask(tab, route, **query):
    answer = Client(tab.get_plugin_apps()[route]).get("/", query_string=query)
    return answer.status_code, answer


def test_importing_it_is_light():
    code = (
        "import sys, tensorboard.plugins.base_plugin; before = set(sys.modules)\n"
        "import kd_lightning.report.pages.tensorboard_tab\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "assert new <= {'kd_lightning', 'logging'} | set(sys.stdlib_module_names), new"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_it_is_the_installed_entry_point():
    from importlib.metadata import entry_points

    (entry,) = [e for e in entry_points(group="tensorboard_plugins") if e.name == "kd_lightning"]
    assert entry.load() is DistillationTab


@pytest.mark.parametrize(
    "context", [None, object(), base_plugin.TBContext(), base_plugin.TBContext(logdir="gs://bucket/x")]
)
def test_no_context_can_make_it_raise(context):
    tab = DistillationTab(context)
    assert tab.is_active() is False
    code, answer = ask(tab, "/content")
    assert code == 404
    assert "no sweep and no run" in answer.get_json()["error"]


def test_a_fault_inside_becomes_an_answer(sweep_dir, monkeypatch):
    tab = tab_of(sweep_dir)
    monkeypatch.setattr(LiveReports, "places", lambda self: 1 / 0)
    assert tab.is_active() is False
    code, answer = ask(tab, "/sweeps")
    assert code == 500
    assert answer.get_json()["error"].startswith("ZeroDivisionError")


def test_it_shows_the_sweep_that_tensorboard_serves(sweep_dir):
    tab = tab_of(sweep_dir)
    assert tab.is_active()
    assert tab.frontend_metadata().es_module_path in tab.get_plugin_apps()
    code, answer = ask(tab, "/content")
    content = json.loads(answer.data)
    assert (code, content["sweep"]) == (200, ".")
    assert content["studies"][0]["headline"].startswith("36/39 runs finished")


def test_several_sweeps_are_listed_the_latest_first(tmp_path):
    make_sweep(tmp_path / "digits" / "old", {"method.temperature": [1, 4]}, seeds=1)
    time.sleep(0.02)
    make_sweep(tmp_path / "digits" / "new", {"method.temperature": [2, 8]}, seeds=1)
    tab = tab_of(tmp_path)
    assert ask(tab, "/sweeps")[1].get_json()["sweeps"] == ["digits/new", "digits/old"]
    content = json.loads(ask(tab, "/content", sweep="digits/old")[1].data)
    assert content["studies"][0]["title"] == "old"


def test_directories_of_logdir_spec_and_directories_to_come_are_watched(tmp_path):
    later = tmp_path / "later"
    tab = tab_of("", logdir_spec=f"a:{later},b:{tmp_path / 'other'}")
    assert not tab.is_active()
    make_sweep(later, {"method.temperature": [1]}, seeds=1)
    tab._live._searched = float("-inf")
    assert tab.is_active()


@pytest.mark.parametrize("name", ["../secret", "/etc", "unknown"])
def test_only_directories_that_were_found_are_served(tmp_path, name):
    make_sweep(tmp_path / "logs" / "sweep", {"method.temperature": [1]}, seeds=1)
    shutil.copytree(tmp_path / "logs" / "sweep", tmp_path / "secret")
    code, answer = ask(tab_of(tmp_path / "logs"), "/content", sweep=name)
    assert code == 404
    assert "no sweep" in answer.get_json()["error"]


def test_the_signature_changes_when_a_run_ends_and_only_then(sweep_dir):
    live = LiveReports([sweep_dir])
    before = live.signature(None)
    content = live.content(None)
    assert live.signature(None) == before
    assert live.content(None) is content
    shutil.copy(sweep_dir / "T01.0_kd0.10_s2" / "result.json", sweep_dir / "T01.0_kd0.90_s2" / "result.json")
    assert live.signature(None) != before
    assert json.loads(live.content(None))["signature"] == live.signature(None)


def test_144_runs_are_answered_within_two_seconds(large_sweep):
    live = LiveReports([large_sweep.parent])
    start = time.process_time()  # of this process alone: other tests may run beside it
    live.places()
    live.content(None)
    first = time.process_time() - start
    (large_sweep / "T16.0_kd0.90_s0" / "result.json").touch()
    start = time.process_time()
    live.signature(None)
    polled = time.process_time() - start
    assert first < 2
    assert polled < 0.25


def test_every_file_that_the_tab_asks_for_is_served(sweep_dir):
    tab = tab_of(sweep_dir)
    for route in ("/tab.js", "/charts.js", "/table.js", "/report.js", "/report.css", "/body.html", "/plotly.js"):
        code, answer = ask(tab, route)
        assert code == 200
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert len(answer.data) > 500
