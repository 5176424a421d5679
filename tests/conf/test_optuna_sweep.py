"""``sweep=optuna``: trials train in lockstep, and a study that is started again goes on from what it knows."""

from __future__ import annotations

import sqlite3

import processes
import pytest

pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason='pip install "kd-lightning[optuna]"')

pytestmark = pytest.mark.slow
SEARCH = (*processes.SMALL, "sweep=optuna", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=3", "sweep_dir=sweep")


def trials(folder) -> list[tuple[str, float]]:
    with sqlite3.connect(folder / "optuna.db") as database:
        return database.execute(
            "select state, value from trials join trial_values using (trial_id) order by trial_id"
        ).fetchall()


def test_a_study_is_continued_by_the_same_command(tmp_path):
    first = processes.run(tmp_path, *SEARCH)
    assert first.code == 0, first.text
    assert "4 runs in" in first.text  # three trials and the student alone, trained together
    known = trials(tmp_path)
    assert [state for state, _ in known] == ["COMPLETE"] * 3
    best = {run["metrics"]["best/val_acc"] for run in processes.results(tmp_path / "sweep").values()}
    assert {value for _, value in known} <= best

    second = processes.run(tmp_path, *SEARCH)
    assert second.code == 0, second.text
    assert trials(tmp_path)[:3] == known
    assert len(trials(tmp_path)) == 6
    assert "student_alone is finished already" in second.text
