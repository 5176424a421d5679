"""The page as a file: self-contained, small, safe, quick; with its CSV and PNG."""

from __future__ import annotations

import csv
import io
import json
import re
import time

import pytest
from PIL import Image
from sweep_maker import make_sweep, write_run

from kd_lightning.report.pages.page import write_report
from kd_lightning.report.pages.payload import payload, to_json
from kd_lightning.report.pages.picture import THUMBNAIL, heatmap_png
from kd_lightning.report.study import remarks, summary
from kd_lightning.report.study.collect import collect


def content_of(page) -> dict:
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="kd-data">(.*?)</script>', text, re.S).group(1))


def test_the_page_is_one_file_under_two_and_a_half_megabytes_that_loads_nothing(sweep_dir):
    page = write_report(sweep_dir)
    assert page == sweep_dir / "report.html"
    assert page.stat().st_size < 2_500_000
    own = re.sub(r"<script>.*?</script>", "", page.read_text(encoding="utf-8"), flags=re.S)  # plotly names addresses
    assert not re.findall(r"""(?:src|href)=["']?(?!data:)[^"'\s>]+""", own)


def test_figures_on_the_page_are_those_of_the_results(sweep_dir):
    (study,) = content_of(write_report(sweep_dir))["studies"]
    rows = [row for row in study["rows"] if row["kind"] == "cell"]
    assert len(rows) == 12
    for row in rows:
        temperature, weight = row["values"]
        runs = [sweep_dir / f"T{temperature:04.1f}_kd{weight:.2f}_s{seed}" / "result.json" for seed in range(3)]
        results = [json.loads(run.read_text()) for run in runs if run.exists()]
        values = [result["metrics"]["test/acc"] for result in results if result["status"] == "finished"]
        assert row["stats"]["test/acc"]["mean"] == pytest.approx(sum(values) / len(values))
        assert row["stats"]["test/acc"]["n"] == len(values)


def test_failed_running_and_missing_runs_are_listed_with_what_is_known(sweep_dir):
    (study,) = content_of(write_report(sweep_dir))["studies"]
    assert [(p["name"], p["status"]) for p in study["problems"]] == [
        ("T08.0_kd0.10_s1", "failed"),
        ("T01.0_kd0.90_s2", "running"),
        ("T02.0_kd0.50_s2", "missing"),
    ]
    assert "the loss became nan" in study["problems"][0]["detail"]
    assert f"sweep_dir={sweep_dir}" in study["rerun"]


def test_the_command_of_the_best_names_its_overrides_and_seeds(sweep_dir):
    (study,) = collect(sweep_dir)
    assert remarks.best_command(study) == "kd-train -m method.temperature=8 method.weights.kd=0.9 seed=0,1,2"


def test_cards_say_how_sure_they_are(sweep_dir):
    (study,) = collect(sweep_dir)
    chosen, gain, gap, compression = summary.cards(study, "test/acc")
    assert chosen["note"] == "T=8 kd=0.9, 3 seeds"
    assert re.fullmatch(r"better by \d\.\d points", gain["value"])
    assert "95 % CI [" in gain["note"]
    assert "paired by seed" in gain["note"]
    assert gap["note"].startswith("alone ")
    assert compression["value"] == "78\u00d7"


def test_notes_say_what_the_marks_mean_and_how_wide_intervals_are(sweep_dir):
    (study,) = collect(sweep_dir)
    said = " ".join(remarks.notes(study))
    assert "at 5 % among all 12 configurations (Holm's correction)" in said
    assert "not corrected" in said
    assert "4.3 standard errors" in said
    assert "grey band" not in said
    assert "n = 3 seeds is small" in said
    assert "3 configurations have fewer than 3 seeds" in said


def test_one_seed_gets_no_interval_and_the_page_says_so(tmp_path):
    (study,) = collect(make_sweep(tmp_path / "s", seeds=1))
    cards = summary.cards(study, "test/acc")
    assert "±" not in cards[0]["value"]
    assert cards[1]["note"] == "no interval: one seed"
    assert any(warning.startswith("One seed each") for warning in remarks.warnings(study))


def test_a_student_alone_at_another_setting_is_called_so(tmp_path):
    (study,) = collect(make_sweep(tmp_path / "s", {"method.temperature": [1, 4], "optimizer.lr": [0.01, 0.1]}))
    assert any("student alone was trained at lr = 0.05 only" in note for note in remarks.notes(study))


def test_a_sweep_of_which_nothing_has_finished_has_a_page(tmp_path):
    names = [f"T{t:04.1f}_s0" for t in (1, 4)]
    path = make_sweep(
        tmp_path / "s", {"method.temperature": [1, 4]}, seeds=1, alone=False, running=names[:1], missing=names[1:]
    )
    (study,) = content_of(write_report(path))["studies"]
    assert study["headline"].startswith("0/2 runs finished")
    assert study["shown"] == [study["learning"]["val/acc"]["curves"][0]["id"]]
    assert not (path / "heatmap.png").exists()


def test_names_can_not_break_out_of_the_page(tmp_path):
    evil = "</script><img src=x onerror=alert(1)>"
    path = make_sweep(tmp_path / "s", {"method": ["kd", evil.replace("/", "\u2215")]}, seeds=1)
    run = next(path.glob("kd_s0"))
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps({**result, "name": evil, "status": "failed", "error": evil}))
    text = write_report(path).read_text(encoding="utf-8")
    assert "<img" not in text
    assert evil in json.dumps(content_of(path / "report.html"), ensure_ascii=False)


def test_figures_that_are_not_finite_do_not_break_the_json(sweep_dir):
    assert to_json({"a": float("nan"), "b": [float("inf"), 1.0]}) == '{"a":null,"b":[null,1.0]}'


def test_the_leaderboard_csv_has_full_precision_and_the_chosen_marked(sweep_dir):
    write_report(sweep_dir)
    rows = list(csv.DictReader(io.StringIO((sweep_dir / "leaderboard.csv").read_text())))
    assert [row["kind"] for row in rows[:2]] == ["teacher", "alone"]
    assert len(rows) == 14
    (chosen,) = [row for row in rows if row["chosen"]]
    (study,) = collect(sweep_dir)
    assert float(chosen["test/acc mean"]) == study.chosen.spread("test/acc").mean
    assert float(chosen["95 % low"]) == study.gain(study.chosen, "test/acc").low
    assert (chosen["method.temperature"], chosen["method.weights.kd"]) == ("8", "0.9")


def test_the_heatmap_is_also_a_picture(sweep_dir):
    write_report(sweep_dir)
    picture = Image.open(sweep_dir / "heatmap.png")
    assert picture.width > 1000
    assert len(picture.convert("RGB").getcolors(1 << 20)) > 50
    (study,) = collect(sweep_dir)
    assert Image.open(io.BytesIO(heatmap_png(study, "test/loss_task", size=THUMBNAIL))).width < 400


def test_several_sweeps_go_into_one_page(tmp_path):
    first = make_sweep(tmp_path / "one", seeds=1)
    second = make_sweep(tmp_path / "two", seeds=1, metric="rmse", mode="min", task="regression", data="tabular")
    page = write_report([first, second], tmp_path / "both.html")
    assert [study["metric"] for study in content_of(page)["studies"]] == ["test/acc", "test/rmse"]
    assert (tmp_path / "both-leaderboard.csv").exists()
    assert not (first / "report.html").exists()


def test_a_young_report_is_left_alone_when_asked(sweep_dir):
    page = write_report(sweep_dir)
    before = page.stat().st_mtime_ns
    write_report(sweep_dir, min_interval=60)
    assert page.stat().st_mtime_ns == before
    write_report(sweep_dir)
    assert page.stat().st_mtime_ns > before


def test_no_half_written_file_is_left_behind(sweep_dir):
    write_report(sweep_dir)
    assert [path.name for path in sweep_dir.glob(".*")] == []


def test_144_runs_are_reported_within_five_seconds_and_three_megabytes(large_sweep):
    start = time.process_time()  # of this process alone: other tests may run beside it
    page = write_report(large_sweep)
    assert time.process_time() - start < 5
    assert page.stat().st_size < 3_000_000


def test_further_pairs_of_keys_stay_within_the_budget(tmp_path):
    grid = {
        "method.temperature": [1, 2, 4, 8],
        "method.weights.kd": [0.1, 0.5, 0.9],
        "optimizer.lr": [0.01, 0.02, 0.05],
    }
    grid["student.width"] = [8, 16]
    path = make_sweep(tmp_path / "s", grid, seeds=1, every=90)
    content = payload(collect(path))
    assert len(to_json(content)) < 1_200_000
    (study,) = content["studies"]
    assert len(study["pairs"]) == 6
    assert all(study["views"][metric["id"]] for metric in study["metrics"])


def test_a_late_run_joins_its_configuration(tmp_path):
    path = make_sweep(tmp_path / "s", {"method.temperature": [1, 4]}, seeds=2)
    overrides = ["method.temperature=4", "seed=2"]
    chosen = {"method.temperature": 4}
    write_run(
        path / "T04.0_s2",
        chosen,
        2,
        "distilled",
        overrides,
        "finished",
        None,
        None,
        90,
        30,
        "acc",
        "max",
        "classification",
        "digits",
    )
    (study,) = collect(path)
    assert [len(cell.runs) for cell in study.cells] == [2, 3]


def with_teacher(**figures):
    from sweep_maker import TEACHER

    return {**TEACHER, **figures}


def warned(path) -> str:
    (study,) = collect(path)
    return " ".join(remarks.warnings(study))


def test_the_page_warns_of_a_teacher_as_the_terminal_does(tmp_path):
    said = warned(make_sweep(tmp_path / "a", teacher=with_teacher(**{"val/acc": 0.5})))
    assert "The teacher mlp-1200x2 is beaten by the student alone in validation (accuracy 50.0 % against" in said
    said = warned(make_sweep(tmp_path / "b", teacher=with_teacher(useless="no better than chance (accuracy 0.100): …")))
    assert "The teacher mlp-1200x2 is no better than chance" in said
    assert "beaten by" not in said
    assert "teacher" not in warned(make_sweep(tmp_path / "c"))


def test_the_page_says_when_the_sum_of_the_weights_varies(tmp_path):
    assert "The sum of the loss weights varies from 0.2 to 1 " in warned(make_sweep(tmp_path / "a"))
    assert "sum of the loss weights" not in warned(make_sweep(tmp_path / "b", {"method.temperature": [1, 4]}))


def test_a_chosen_configuration_that_loses_is_warned_of_and_called_worse(tmp_path):
    path = make_sweep(tmp_path / "s", {"method.temperature": [4]})
    for file in path.glob("student_alone*/result.json"):
        result = json.loads(file.read_text())
        result["metrics"]["test/acc"] += 0.2
        file.write_text(json.dumps(result))
    assert "The chosen configuration is worse by" in warned(path)
    (study,) = collect(path)
    card = summary.cards(study, "test/acc")[1]
    assert card["value"].startswith("worse by ")
    assert card["tone"] == "bad"


@pytest.mark.parametrize("words", ["--config-dir mine", "--config-dir=mine", "-cd mine"])
def test_the_command_of_the_best_keeps_the_users_config_folder(tmp_path, words):
    path = make_sweep(tmp_path / "s")
    plan = json.loads((path / "sweep.json").read_text())
    (path / "sweep.json").write_text(json.dumps({**plan, "command": plan["command"].replace("-m", f"{words} -m", 1)}))
    (study,) = collect(path)
    assert remarks.best_command(study).startswith(f"kd-train {words} -m method.temperature=8 ")


def test_a_single_runs_command_names_the_config_folder_that_hydra_noted(tmp_path):
    path = make_sweep(tmp_path / "s", {"method.temperature": [4]}, seeds=1, alone=False)
    (path / "sweep.json").unlink()
    hydra = (
        "hydra:\n  runtime:\n    config_sources:\n    - path: hydra.conf\n      schema: pkg\n      provider: hydra\n"
    )
    hydra += "    - path: /home/me/mine\n      schema: file\n      provider: command-line\n"
    (path / "T04.0_s0" / ".hydra" / "hydra.yaml").write_text(hydra)
    (study,) = collect(path)
    assert remarks.best_command(study) == "kd-train --config-dir /home/me/mine method.temperature=4 seed=0"


def test_notes_and_tags_of_runs_and_sweep_are_on_the_page(tmp_path):
    path = make_sweep(tmp_path / "s", {"method.temperature": [1, 4]}, seeds=1)
    (path / "T04.0_s0" / "notes.txt").write_text("looks odd\n#check #seed0")
    (path / "notes.txt").write_text("before the new split")
    (study,) = content_of(write_report(path))["studies"]
    assert study["remark"] == "before the new split"
    noted = {row["label"]: (row["notes"], row["tags"]) for row in study["rows"] if row["kind"] == "cell"}
    assert noted == {"T=4": ("looks odd #check #seed0", ["#check", "#seed0"]), "T=1": ("", [])}


def test_configurations_differ_in_what_their_configs_say_but_seeds_and_places(tmp_path):
    path = make_sweep(tmp_path / "s", {"method.temperature": [1, 4]}, seeds=2)
    (study,) = content_of(write_report(path))["studies"]
    keys = {key for values in study["differences"].values() for key in values}
    assert keys == {"method.name", "method.temperature", "method.terms.kd.temperature", "method.weights.task"}
    assert {values["method.temperature"] for values in study["differences"].values()} == {"1", "4"}


def test_what_matters_is_the_share_of_variance_that_a_key_explains(tmp_path):
    (study,) = content_of(write_report(make_sweep(tmp_path / "s")))["studies"]
    shares = {entry["label"]: entry["share"] for entry in study["importance"]["test/acc"]}
    assert shares["temperature T"] > 0.8 > 0.2 > shares["weight of kd"] >= 0
    assert next(iter(shares)) == "temperature T"


def test_the_command_of_the_best_keeps_a_grid_which_may_set_more_than_it_sweeps(tmp_path):
    path = make_sweep(tmp_path / "s", extra=("sweep=temperature_balance",))
    (study,) = collect(path)
    wanted = "kd-train -m sweep=temperature_balance method.temperature=8 method.weights.kd=0.9 seed=0,1,2"
    assert remarks.best_command(study) == wanted
    for run in path.glob("T*"):
        (run / ".hydra" / "hydra.yaml").write_text("  runtime:\n    choices:\n      hydra/sweeper: optuna\n")
    (study,) = collect(path)
    assert "sweep=" not in remarks.best_command(study)
