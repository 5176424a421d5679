"""A partition of a higher priority takes the place of jobs that train: they go on where they were, and nothing is lost."""

from __future__ import annotations

import pytest
import slow_net
import slurm_cluster
from processes import results, weights
from slurm_cluster import logs, wait_for

from kd_lightning.cli.train import main
from kd_lightning.runs.submission import read_submissions

missing = slurm_cluster.missing()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing), reason=f"no Slurm here (apt-get install slurm-wlm): {', '.join(missing)}"),
]

ON_SLURM = ("launcher=slurm", "launcher.wait=false", "launcher.gpus=0", "launcher.runs_per_job=1")


def test_runs_that_another_partition_preempts_lose_no_step_and_end_with_the_weights_of_undisturbed_ones(folder, slurm):
    slow_net.write(folder)
    at_once, told_before = folder / "at_once", folder / "told_before"
    assert main([*slow_net.RUN, "+student.width=4", *ON_SLURM, "sweep_dir=at_once"]) == 0
    assert (
        main([*slow_net.RUN, "+student.width=7", *ON_SLURM, "launcher.partition=patient", "sweep_dir=told_before"]) == 0
    )
    wait_for(lambda: all(len(slow_net.steps(width)) > 2 for width in (4, 7)), "both train")
    tasks = [
        task
        for sweep in (at_once, told_before)
        for submission in read_submissions(sweep)
        for task in submission.task_of_group().values()
    ]
    assert len(tasks) == 2
    urgent = slurm.run(
        "sbatch", "--parsable", "--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 900"
    ).strip()  # fmt: skip
    wait_for(lambda: slurm.tasks()[urgent][0] == "RUNNING", "the urgent job takes both nodes")
    wait_for(lambda: all(slurm.tasks()[task][0] == "PENDING" for task in tasks), "both wait for it")
    slurm.run("scancel", urgent)
    (folder / "go").touch()
    slurm.wait_until_empty()
    assert "another job goes first" in logs(told_before)["train_0"]
    assert all("asks for another turn" not in text for text in logs(at_once).values()), "Slurm itself requeues these"

    undisturbed = ["+student.width=4,7", "sweep_dir=here", "paths.teacher_dir=own", "paths.cache_dir=own"]
    assert main([*slow_net.RUN, *undisturbed]) == 0
    for width, sweep in {4: at_once, 7: told_before}.items():
        here = folder / f"here/width00{width}"
        ((name, result),) = results(sweep).items()
        assert result["status"] == "finished"
        assert weights(sweep / name, "last") == weights(here, "last")
        assert weights(sweep / name) == weights(here)
        turns = len(set(slow_net.steps(width))) - 1  # one of the processes is the undisturbed one's
        assert turns >= 2, "it was not interrupted"
        assert len(slow_net.steps(width)) - (slow_net.STEPS - 1) == slow_net.STEPS - turns, "a step was lost"
