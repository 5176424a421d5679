"""The scripts that Slurm is given: what a job asks for, and what it does when its time is over or its process is killed."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kd_lightning.runs.interrupt import AGAIN, FRUITLESS, STOPPED


@dataclass(frozen=True)
class Resources:
    """What a job asks the site for; None leaves it to the site. ``conf/launcher/slurm.yaml`` explains each."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    gpus: int = 1
    gpu_type: str | None = None
    cpus: int | None = None
    memory: str | None = None
    time: str | None = None
    constraint: str | None = None
    options: Sequence[str] = ()
    setup: Sequence[str] = ()

    def lines(self) -> list[str]:
        """The ``#SBATCH`` lines."""
        wanted = {
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "gres": f"gpu:{f'{self.gpu_type}:' if self.gpu_type else ''}{self.gpus}" if self.gpus else None,
            "cpus-per-task": self.cpus,
            "mem": self.memory,
            "time": self.time,
            "constraint": self.constraint,
        }
        return [f"--{key}={value}" for key, value in wanted.items() if value is not None] + list(self.options)


@dataclass(frozen=True)
class Script:
    """One job, or an array of them.

    Attributes:
        name: shown by ``squeue``.
        module: what is run, as ``python -m``.
        argument: of the module; in an array ``{}`` in it stands for the task's number plus ``first``, four digits.
        log: file that it writes into, with Slurm's ``%A``, ``%a``, ``%j``.
        cwd: the directory in which the sweep was started.
        resources: what it asks for.
        nodes: on which one run is trained together; each of them runs the module once.
        tasks: of the array; None: a single job.
        at_once: most tasks of the array that run at the same time; None: as many as there is room for.
        after: dependency, as ``afterok:12``.
        warn_seconds: so long before its time limit a job is warned.
        kills: so often a job whose process was killed, or that reached nothing, is started again.
    """

    name: str
    module: str
    argument: str
    log: Path
    cwd: Path
    resources: Resources
    nodes: int = 1
    tasks: int | None = None
    first: int = 0
    at_once: int | None = None
    after: str = ""
    warn_seconds: int = 90
    kills: int = 2
    python: str = field(default_factory=lambda: sys.executable)

    def text(self) -> str:
        """The script. Its time limit's warning goes to the worker, which saves and ends with an exit code of its own."""
        options = [f"--job-name={self.name}", f"--output={self.log}", "--open-mode=append", "--requeue"]
        options += [f"--chdir={self.cwd}", f"--signal=USR2@{self.warn_seconds}", *self.resources.lines()]
        if self.nodes > 1:
            options += [f"--nodes={self.nodes}", "--ntasks-per-node=1"]
        if self.tasks is not None:
            options.append(f"--array=0-{self.tasks - 1}" + (f"%{self.at_once}" if self.at_once else ""))
        if self.after:
            options += [f"--dependency={self.after}", "--kill-on-invalid-dep=yes"]
        cpus, array = self.resources.cpus, self.tasks is not None
        srun = f"srun --ntasks={self.nodes} --kill-on-bad-exit=1" + (f" --cpus-per-task={cpus}" if cpus else "")
        argument = '"$number"'.join(shlex.quote(part) if part else "" for part in self.argument.split("{}"))
        lines = ["#!/bin/bash", *(f"#SBATCH {shlex.quote(option)}" for option in options), *self.resources.setup]
        if cpus:
            lines.append(f"export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{cpus}}}")
        if self.nodes > 1:  # where the processes of the nodes meet; a site's own setup may have said so already
            lines += [
                'export MASTER_ADDR=${MASTER_ADDR:-$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)}',
                "export MASTER_PORT=${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 20000))}",
            ]
        if array:
            lines.append(f"number=$(printf %04d $((SLURM_ARRAY_TASK_ID + {self.first})))")
        lines += [
            f"job={'${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}' if array else '$SLURM_JOB_ID'}",
            f"killed={shlex.quote(str(self.log.parent))}/killed-$job",
            'again() { echo "$1: job $job asks for another turn"; scontrol requeue "$job" && sleep 300; }',
            f"{srun} {shlex.quote(self.python)} -u -m {self.module} {argument}",
            "code=$?",
            f'if [ $code = {AGAIN} ]; then again "the time is over"; fi',
            # told to stop while the job itself goes on: by a partition that gives the job some time before it takes the place
            f'if [ $code = {STOPPED} ] && scontrol show job "$job" | grep -q "PreemptTime=[0-9]"; then',
            '  again "another job goes first"',
            "fi",
            # 137: killed from outside, by the kernel for want of memory or by somebody; 130 and 143: asked to stop. A job
            # whose time is never enough for a step would come back for ever
            f"if [ $code = {FRUITLESS} ] || {{ [ $code -gt 130 ] && [ $code != 143 ]; }}; then",
            '  echo $code >> "$killed"',
            f'  if [ "$(wc -l < "$killed")" -le {self.kills} ]; then again "exit code $code"; fi',
            "fi",
            "exit $code",
        ]
        return "\n".join(lines) + "\n"
