"""The run 00_sweep, read back by TensorBoard's own reader."""

from __future__ import annotations

import io

from PIL import Image
from sweep_maker import make_sweep
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kd_lightning.report.pages.sweep_summary import leaderboard_markdown, write_sweep_summary
from kd_lightning.report.study.collect import collect


def test_tensorboard_reads_heatmaps_and_leaderboard(sweep_dir):
    path = write_sweep_summary(sweep_dir)
    assert path.parent == sweep_dir / "00_sweep"
    events = EventAccumulator(str(path.parent)).Reload()
    assert events.Tags()["images"] == [
        "0_sweep/heatmap_best_val_acc",
        "0_sweep/heatmap_test_acc",
        "0_sweep/heatmap_test_agreement",
    ]
    image = events.Images("0_sweep/heatmap_test_acc")[0]
    assert image.step == 36
    assert Image.open(io.BytesIO(image.encoded_image_string)).size == (image.width, image.height)
    text = events.Tensors("0_sweep/leaderboard")[0].tensor_proto.string_val[0].decode()
    assert "**T=8 kd=0.9** (chosen)" in text


def test_the_summary_sorts_before_the_runs(sweep_dir):
    write_sweep_summary(sweep_dir)
    assert min(path.name for path in sweep_dir.iterdir() if path.is_dir()) == "00_sweep"


def test_writing_again_replaces_what_was_there_and_the_summary_is_no_run(sweep_dir):
    first = write_sweep_summary(sweep_dir)
    second = write_sweep_summary(sweep_dir)
    assert [path.name for path in second.parent.iterdir()] == [second.name]
    assert first.name < second.name
    assert len(collect(sweep_dir)[0].runs) == 39


def test_the_leaderboard_is_sorted_by_validation(sweep_dir):
    (study,) = collect(sweep_dir)
    lines = [line for line in leaderboard_markdown(study).splitlines() if line.startswith("| ")]
    figures = [float(line.split("|")[3].split("±")[0]) for line in lines[3:]]
    assert figures == sorted(figures, reverse=True)


def test_several_data_sets_have_tags_of_their_own(tmp_path):
    make_sweep(tmp_path / "s" / "a", seeds=1)
    make_sweep(tmp_path / "s" / "b", seeds=1, metric="rmse", mode="min", task="regression", data="tabular")
    path = write_sweep_summary(tmp_path / "s")
    tags = EventAccumulator(str(path.parent)).Reload().Tags()["images"]
    assert {"0_sweep/heatmap_test_acc/digits", "0_sweep/heatmap_test_rmse/tabular"} <= set(tags)
