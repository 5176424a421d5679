from __future__ import annotations

import io
import shlex

import pytest
from rich.console import Console

from kd_lightning.metrics.show import NONE
from kd_lightning.terminal.table import (
    result_markdown,
    result_table,
    size,
    sweep_table,
)


def result(name="T04.0_kd0.90_s0", acc=0.854, status="finished", role="distilled", **changes):
    base = {
        "status": status,
        "name": name,
        "role": role,
        "overrides": ["method.temperature=4", "seed=0"],
        "monitor": {"metric": "acc", "mode": "max"},
        "metrics": {"best/val_acc": acc - 0.01, "test/acc": acc, "test/agreement": 0.9} if status == "finished" else {},
        "teacher": {"test/acc": 0.929, "parameters": 151306, "bytes": 605224, "latency_ms": 0.21},
        "baseline": {"test/acc": 0.792, "test/agreement": 0.81},
        "student": {"parameters": 1930, "bytes": 7720, "latency_ms": 0.043},
        "error": None if status == "finished" else "not finite since step 40: kd",
    }
    return {**base, **changes}


def run_of(temperature, seed, acc=0.854, **changes):
    """The result of one run of a sweep over temperature and seed."""
    config = {"seed": seed, "method": {"temperature": temperature}}
    own = {"config": config, "seed": seed, "setting_name": f"T{temperature:04.1f}"}
    return result(f"T{temperature:04.1f}_s{seed}", acc, **own, **changes)


def printed(renderable, **options) -> str:
    out = io.StringIO()
    Console(file=out, **options).print(renderable)
    return out.getvalue()


def test_the_table_has_teacher_student_alone_and_distilled_student():
    table = result_table(result())
    assert [row[0] for row in table.rows] == ["teacher", "student alone", "distilled student"]
    assert table.rows[0] == ["teacher", "92.9 %", NONE, "151,306", "605.2 kB", "0.21 ms"]
    assert table.rows[1] == ["student alone", "79.2 %", "81.0 %", "1,930", "7.7 kB", "0.04 ms"]
    assert table.rows[2] == ["distilled student", "85.4 %", "90.0 %", "1,930", "7.7 kB", "0.04 ms"]
    assert table.notes == ["distilled against alone: better by 6.2 points (one seed), 45 % of the teacher's lead"]


def test_what_a_run_does_not_know_is_left_out():
    assert [row[0] for row in result_table(result(baseline=None)).rows] == ["teacher", "distilled student"]
    assert [row[0] for row in result_table(result(role="alone", teacher=None)).rows] == ["student alone"]
    failed = result_table(result(status="failed", student=None, teacher=None, baseline=None))
    assert failed.rows == [["distilled student", NONE, NONE, NONE, NONE]]


def test_a_metric_that_is_better_when_smaller_is_shown_as_it_is():
    regression = result(
        monitor={"metric": "rmse", "mode": "min"},
        metrics={"test/rmse": 2.5, "test/agreement": 0.5},
        teacher={"test/rmse": 2.0},
        baseline={"test/rmse": 3.0},
    )
    table = result_table(regression)
    assert table.header[1] == "rmse"
    assert [row[1] for row in table.rows] == ["2.00", "3.00", "2.50"]
    assert table.notes == ["distilled against alone: better by 0.50 (one seed), 50 % of the teacher's lead"]


def test_agreement_that_chose_for_want_of_labels_has_one_column():
    unlabelled = result(monitor={"metric": "agreement", "mode": "max"}, metrics={"test/agreement": 0.5}, baseline=None)
    assert result_table(unlabelled).header == ["", "agreement", "parameters", "size", "latency"]
    assert sum("agreement" in name for name in sweep_table([unlabelled]).header) == 2  # validation and test


def test_without_a_terminal_lines_are_plain_and_aligned():
    text = printed(result_table(result()), width=100)
    assert text.isprintable() or "\x1b" not in text
    lines = text.splitlines()
    assert len({len(line) for line in lines[1:5]}) == 1
    assert "│" not in text


def test_on_a_terminal_the_distilled_student_stands_out():
    text = printed(result_table(result()), width=100, force_terminal=True, color_system="truecolor")
    line = next(line for line in text.splitlines() if "distilled student" in line)
    assert "\x1b[1m" in line


def test_markdown_is_a_table_that_markdown_readers_know():
    lines = [line for line in result_markdown(result()).splitlines() if line.startswith("|")]
    assert len(lines) == 5
    assert {line.count("|") for line in lines} == {7}
    assert "**85.4 %**" in lines[-1]


def test_markdown_of_a_failed_run_says_why():
    assert "diverged: not finite since step 40: kd" in result_markdown(result(status="diverged"))


def test_a_sweep_is_grouped_by_configuration_and_ordered_by_validation():
    runs = [run_of(t, s, 0.8 + t / 100 + s / 1000) for t in (1, 8, 4) for s in (0, 1, 2)]
    table = sweep_table(runs, rerun="kd-train -m x")
    assert [row[0] for row in table.rows] == ["teacher", "T08.0", "T04.0", "T01.0"]
    assert table.rows[1][1:4] == ["3", "87.1 ± 0.1 %", "88.1 ± 0.1 %"]
    assert table.emphasis == 1
    assert table.notes == ["9 finished"]
    assert table.command == ""


@pytest.mark.parametrize(
    ("key", "names"),
    [("trainer.max_epochs", ["epochs1", "epochs2"]), ("student.blocks", ["blocks1", "blocks2"]), ("x", ["s1", "s2"])],
)
def test_what_is_no_seed_makes_rows_of_its_own_whatever_the_runs_are_called(key, names):
    group, _, leaf = key.partition(".")
    runs = [
        result(name, config={"seed": 0, group: {leaf: value} if leaf else value}, setting_name=name)
        for name, value in zip(names, (1, 2), strict=True)
    ]
    rows = sweep_table(runs).rows[1:]
    assert [row[:2] for row in rows] == [[names[0], "1"], [names[1], "1"]]
    assert not any("±" in cell for row in rows for cell in row)


def test_a_seed_that_is_there_twice_counts_once():
    rows = sweep_table([run_of(1, 1, 0.8), run_of(1, 1, 0.8), run_of(1, 2, 0.9), run_of(1, 3, status="failed")]).rows[
        1:
    ]
    assert [row[:2] for row in rows] == [["T01.0", "2/3"]]
    assert rows[0][3] == "85.0 ± 7.1 %"


def test_two_settings_of_one_name_are_told_apart():
    runs = [result("run", config={"x": value}) for value in (1, 1.0)]
    first, second = (row[0] for row in sweep_table(runs).rows[1:])
    assert first != second
    assert (first[:4], second[:4]) == ("run ", "run ")


def test_a_sweep_tells_what_failed_and_the_command_that_runs_it_again():
    runs = [run_of(1, 0), run_of(1, 1, status="failed"), run_of(2, 0, status="diverged")]
    command = "kd-train -m method.temperature=1,2 seed=0,1 sweep_dir=outputs/a"
    table = sweep_table(runs, rerun=command, skipped=["T01.0_s0"])
    assert table.rows[1][:2] == ["T01.0", "1/2"]
    assert table.rows[2] == ["T02.0", "0/1", NONE, NONE, NONE]
    text = str(table)
    assert "1 finished, 1 failed, 1 diverged, 1 of them already before" in text
    assert "T01.0_s1 failed: not finite since step 40: kd" in text
    assert command in text


def test_a_long_command_is_broken_so_that_a_shell_takes_it_as_one():
    command = "kd-train -m " + " ".join(f"some.long.key.number{i}=1,2,3" for i in range(12)) + " sweep_dir=outputs/a"
    text = printed(sweep_table([result(status="failed")], rerun=command), width=80)
    copied = text[text.index("kd-train") :]
    assert max(len(line) for line in copied.splitlines()) <= 80
    assert shlex.split(copied.replace("\\\n", "")) == shlex.split(command)


def test_a_large_sweep_shows_the_best_configurations_only():
    table = sweep_table([run_of(t, 0, t / 1000) for t in range(144)])
    assert len(table.rows) == 1 + 24
    assert table.rows[1][0] == "T143.0"
    assert "… and 120 more in the report" in table.notes


def test_minimised_metrics_are_ordered_the_other_way():
    runs = [run_of(t, 0, monitor={"metric": "rmse", "mode": "min"}, metrics={"best/val_rmse": t}) for t in (3, 1, 2)]
    assert [row[0] for row in sweep_table(runs).rows] == ["teacher", "T01.0", "T02.0", "T03.0"]


def test_references_stand_above_and_a_configuration_that_lacks_seeds_is_never_the_first():
    runs = [run_of(4, s, 0.8) for s in (0, 1)]
    runs += [run_of(8, 0, 0.99), run_of(8, 1, status="failed")]
    alone = {"role": "alone", "teacher": None, "setting_name": "student_alone"}
    runs += [result(f"student_alone_s{s}", 0.85, config={"seed": s}, **alone) for s in (0, 1)]
    table = sweep_table(runs)
    assert [row[0] for row in table.rows] == ["teacher", "student_alone", "T04.0", "T08.0"]
    assert table.rows[table.emphasis][0] == "T04.0"


def test_a_loss_is_called_worse_and_shown_in_a_warning_colour():
    table = result_table(result(acc=0.78))
    assert table.notes == ["distilled against alone: worse by 1.2 points (one seed)"]
    line = next(
        line
        for line in printed(table, width=100, force_terminal=True, color_system="standard").splitlines()
        if "worse by" in line
    )
    assert "\x1b[31m" in line


def test_a_sweep_with_one_seed_each_says_that_a_difference_may_be_luck():
    note = "one seed each: a difference may be luck (seed=0,1,2)"
    assert note in sweep_table([run_of(t, 0) for t in (1, 2)]).notes
    assert note not in sweep_table([run_of(t, s) for t in (1, 2) for s in (0, 1)]).notes


def test_an_empty_sweep_has_a_table_too():
    assert "no runs" in str(sweep_table([]))


def test_sizes_have_decimal_units():
    assert [size(n) for n in (999, 1000, 2_500_000, 3_000_000_000, None)] == [
        "999 B",
        "1.0 kB",
        "2.5 MB",
        "3.0 GB",
        NONE,
    ]


def test_runs_that_never_began_are_not_said_to_continue():
    stopped = {"status": "interrupted", "student": None}
    table = sweep_table(
        [
            run_of(2.0, 0, error=None, **stopped),
            *(run_of(float(t), 0, error="not started", **stopped) for t in (4, 8)),
            run_of(1.0, 0),
        ],
        rerun="again",
    )
    assert table.notes[0] == "1 finished, 1 interrupted, 2 not started"
    assert table.notes[-2:] == ["T02.0_s0 interrupted: continues where it stopped", "not started: T04.0_s0, T08.0_s0"]
    assert table.command == "again"
