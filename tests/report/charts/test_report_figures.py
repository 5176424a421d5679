"""Charts as Plotly figures: plotly itself validates each, and their numbers are those of the runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sweep_maker import TEACHER, make_sweep

from kd_lightning.report.charts import figures
from kd_lightning.report.charts.parallel import parallel_spec
from kd_lightning.report.charts.scatter import price_spec
from kd_lightning.report.charts.theme import DARK, INK
from kd_lightning.report.pages.picture import heatmap_png
from kd_lightning.report.study.grid import MAX_PANELS, axes, plan
from kd_lightning.report.study.learning import MAX_POINTS, mean_curve
from kd_lightning.report.study.reading import Run


@pytest.fixture
def study(sweep_dir):
    return figures.load(sweep_dir)


def test_heatmap_shows_each_cells_mean_and_its_gain_as_colour(study):
    cells, words = figures.heatmap(study, "test/acc").data
    for cell in study.cells:
        column, row = (study.factors[i].values.index(value) for i, value in enumerate(cell.params))
        gain = study.gain(cell, "test/acc").mean
        assert cells.z[row][column] == pytest.approx(gain)
        text = words.text[row * 4 + column]
        assert f"<b>{100 * cell.spread('test/acc').mean:.1f}</b>" in text
        assert ("●" in text) == study.gain(cell, "test/acc").sure
    assert cells.zmin == -cells.zmax


def test_heatmap_colours_a_loss_the_other_way_round(study):
    cells, _ = figures.heatmap(study, "test/loss_task").data
    cell = study.chosen
    column, row = (study.factors[i].values.index(value) for i, value in enumerate(cell.params))
    assert study.gain(cell, "test/loss_task").mean == cells.z[row][column] > 0


def test_heatmap_frames_the_chosen_configuration(study):
    (frame,) = figures.heatmap(study).layout.shapes
    assert (frame.x0 + 0.5, frame.y0 + 0.5) == (study.factors[0].values.index(8), study.factors[1].values.index(0.9))


def test_heatmap_takes_any_two_swept_keys(study):
    figure = figures.heatmap(study, x="method.weights.kd", y="method.temperature")
    assert list(figure.layout.xaxis.ticktext) == ["0.1", "0.5", "0.9"]
    assert list(figure.layout.yaxis.ticktext) == ["1", "2", "4", "8"]
    with pytest.raises(ValueError, match=r"'optimizer.lr' isn't swept"):
        figures.heatmap(study, x="optimizer.lr")


def test_a_third_key_makes_panels_and_no_cell_averages_over_it(tmp_path):
    grid = {"method": ["kd", "dkd"], "method.temperature": [1, 4], "optimizer.lr": [0.01, 0.05, 0.1]}
    study = figures.load(make_sweep(tmp_path / "s", grid, seeds=2))
    assert len(axes(study)) == 3
    layout = plan(study)
    assert [panel.title for panel in layout.panels] == ["method = dkd", "method = kd"]
    assert all(len(cell.runs) == 2 for panel in layout.panels for row in panel.cells for cell in row)
    assert len(figures.heatmap(study).data) == 4


def test_panels_beyond_the_limit_are_counted(tmp_path):
    grid = {"method.temperature": [1, 2], "optimizer.lr": [0.01, 0.1], "student.width": list(range(1, 16))}
    study = figures.load(make_sweep(tmp_path / "s", grid, seeds=1, alone=False, every=100))
    layout = plan(study, x="method.temperature", y="optimizer.lr")
    assert (len(layout.panels), layout.left_out) == (MAX_PANELS, 15 - MAX_PANELS)


def test_the_metric_against_temperature_has_a_line_for_each_weight_on_a_log_axis(study):
    figure = figures.against(study, "test/acc")
    assert [trace.name for trace in figure.data] == ["kd = 0.1", "kd = 0.5", "kd = 0.9"]
    assert figure.layout.xaxis.type == "log"
    expected = [100 * cell.spread("test/acc").mean for cell in study.cells if cell.params[1] == 0.5]
    assert list(figure.data[1].y) == pytest.approx(expected)
    assert {shape.type for shape in figure.layout.shapes} == {"rect", "line"}  # the student alone: band and mean


def test_methods_are_ranked_by_value_and_named_beside_their_marks(tmp_path):
    study = figures.load(make_sweep(tmp_path / "s", {"method": ["kd", "dkd", "hint"]}))
    figure = figures.against(study)
    assert figure.data[0].mode == "markers"
    means = {cell.params[0]: 100 * cell.spread("test/acc").mean for cell in study.cells}
    names = [text.replace("<b>", "").replace("</b>", "") for text in figure.layout.yaxis.ticktext]
    assert names == sorted(means, key=means.get)  # from below: the best stands on top
    assert list(figure.data[0].x) == sorted(means.values())
    assert figure.layout.yaxis.ticktext[names.index(study.chosen.params[0])].startswith("<b>")


def test_where_lower_is_better_the_lowest_stands_on_top(tmp_path):
    study = figures.load(make_sweep(tmp_path / "s", {"method": ["kd", "dkd", "hint"]}, metric="rmse", mode="min"))
    assert list(figures.against(study).data[0].x) == sorted(figures.against(study).data[0].x, reverse=True)


def test_names_on_the_axis_come_in_the_order_of_their_best_figure(tmp_path):
    grid = {"method": ["hint", "dkd", "kd"], "student.width": ["a", "b"]}
    figure = figures.against(figures.load(make_sweep(tmp_path / "s", grid)), x="method", y="student.width")
    best = [max(trace.y[place] for trace in figure.data) for place in range(3)]
    assert best == sorted(best, reverse=True)


def test_of_many_methods_names_stand_beside_the_marks_instead_of_colours(tmp_path):
    study = figures.load(make_sweep(tmp_path / "s", {"method": [f"m{i:02d}" for i in range(20)]}, every=90))
    marks = figures.fidelity(study).data
    assert len({trace.marker.color for trace in marks if trace.mode == "markers" and trace.name.startswith("m")}) == 1
    names = next(trace for trace in marks if trace.mode == "text")
    assert 1 <= len(names.text) <= 20


@pytest.mark.parametrize("alone", [True, False])
def test_a_study_of_zeros_alone_has_heatmaps_and_pictures(tmp_path, monkeypatch, alone):
    import sweep_maker

    monkeypatch.setattr(sweep_maker, "figures", lambda *_: {"test/acc": 0.0, "best/val_acc": 0.0})
    study = figures.load(
        make_sweep(tmp_path / "s", {"method.temperature": [1, 2], "method.weights.kd": [0.1, 0.9]}, alone=alone)
    )
    assert figures.heatmap(study).data[0].zmax > figures.heatmap(study).data[0].zmin
    assert heatmap_png(study)


def test_parallel_coordinates_have_an_axis_for_each_key_and_the_metric(tmp_path):
    grid = {"method.temperature": [1, 2, 4, 8], "optimizer.lr": [0.01, 0.1], "method": ["kd", "dkd"]}
    study = figures.load(make_sweep(tmp_path / "s", grid, seeds=1, every=90))
    (trace,) = parallel_spec(study, "test/acc")["data"]
    assert [d["label"] for d in trace["dimensions"]] == ["T", "lr", "method", "test accuracy"]
    assert all(len(d["values"]) == len(study.cells) for d in trace["dimensions"])
    assert parallel_spec(figures.load(make_sweep(tmp_path / "two", every=90)), "test/acc") is None


def test_where_only_seeds_vary_each_pair_is_a_line(tmp_path):
    study = figures.load(make_sweep(tmp_path / "s", {"method.temperature": [4]}, seeds=5))
    figure = figures.against(study)
    assert len(figure.data) == 5
    assert all(len(trace.x) == 2 for trace in figure.data)
    with pytest.raises(ValueError, match="nothing but seeds"):
        figures.heatmap(study)


def test_learning_curves_show_the_chosen_and_the_student_alone_with_bands(study):
    figure = figures.learning_curves(study, "val/acc")
    assert [trace.name for trace in figure.data if trace.showlegend is None] == ["T=8 kd=0.9", "student alone"]
    assert sum(trace.fill == "tonexty" for trace in figure.data) == 2


def test_a_mean_curve_ends_with_its_shortest_run():
    long = Run(None, "a", "finished", curves={"val/acc": ([10, 20, 30], [0.1, 0.2, 0.3])})
    short = Run(None, "b", "finished", curves={"val/acc": ([10, 20], [0.3, 0.4])})
    assert mean_curve([long, short], "val/acc")[:2] == ([10, 20], pytest.approx([0.2, 0.3]))


def test_runs_logged_at_different_steps_are_joined_between_their_points():
    coarse = Run(None, "a", "finished", curves={"x": ([0, 10, 20], [0.0, 1.0, 2.0])})
    fine = Run(None, "b", "finished", curves={"x": (list(range(0, 21, 4)), [v / 10 for v in range(0, 21, 4)])})
    steps, means, stds = mean_curve([coarse, fine], "x")
    assert steps == [0, 10, 20]
    assert means == pytest.approx([0, 1, 2])
    assert max(stds) < 1e-12


def test_a_long_curve_is_thinned_to_what_a_screen_shows():
    run = Run(None, "a", "finished", curves={"x": (list(range(5000)), [0.5] * 5000)})
    steps, _, _ = mean_curve([run], "x")
    assert len(steps) == MAX_POINTS
    assert (steps[0], steps[-1]) == (0, 4999)


def test_fidelity_has_one_mark_per_run(study):
    figure = figures.fidelity(study)
    assert sum(len(trace.x) for trace in figure.data) == 36
    assert figure.data[-1].name == "student alone"


def test_price_names_teacher_student_and_student_alone(study):
    spec = price_spec(study, "test/acc", "parameters")
    assert [trace["name"] for trace in spec["data"]] == ["teacher", "distilled (T=8 kd=0.9)", "student alone"]
    assert [trace["x"][0] for trace in spec["data"]] == [TEACHER["parameters"], 1930, 1930]
    figures.price(study, of="latency_ms")


def test_dark_figures_take_the_dark_colours(study):
    assert figures.heatmap(study, theme="dark").layout.font.color == DARK[INK]
    with pytest.raises(ValueError, match="light or dark"):
        figures.heatmap(study, theme="sepia")


def test_every_light_colour_has_one_dark_counterpart_and_none_is_reused():
    assert not set(DARK) & set(DARK.values())


def test_price_shows_exported_files_by_size_and_latency(tmp_path):
    sweep_dir = make_sweep(tmp_path / "s")
    run = figures.load(sweep_dir).chosen.runs
    run = next(iter(run.values()))
    folder = Path(run.path) / "export"
    folder.mkdir()
    (folder / "student.int8.onnx").write_bytes(b"x")
    file = {"bytes": 700, "latency_ms": {"1": 0.02, "32": 0.1}, "metrics": {"acc": 0.81}}
    files = {"student.int8.onnx": file, "gone.onnx": file}
    (folder / "export.json").write_text(json.dumps({"fingerprint": run.fingerprint, "files": files}))
    study = figures.load(sweep_dir)
    for price, amount in (("bytes", 700), ("latency_ms", 0.02)):
        spec = price_spec(study, "test/acc", price)
        (point,) = [trace for trace in spec["data"] if trace["name"] == "student.int8.onnx"]
        assert (point["x"], point["y"]) == ([amount], [pytest.approx(81)])
    assert not [t for t in price_spec(study, "test/acc", "parameters")["data"] if "onnx" in t["name"]]
    (folder / "export.json").write_text(json.dumps({"fingerprint": "another", "files": files}))
    assert not [t for t in price_spec(study, "test/acc", "bytes")["data"] if "onnx" in t["name"]]
