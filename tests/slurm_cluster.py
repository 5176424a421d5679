"""A private Slurm for tests: a controller and two nodes on this machine, without root, that nobody else can reach.

Every daemon listens on 127.0.0.1 only and knows a key of its own: Slurm's defaults would listen on all addresses. The
nodes are two daemons on one machine that say they had more processors than it has, and GPUs that are ``/dev/null``.
Jobs of the partition ``urgent`` take the places of others: of those in ``main`` at once, of those in ``patient`` 100 seconds
after these were told.
Debian: ``apt-get install slurm-wlm``.
"""

from __future__ import annotations

import ctypes
import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
SBIN = ":/usr/sbin:/usr/local/sbin"
PR_SET_PDEATHSIG = 1

CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
StateSaveLocation={folder}/state
SlurmdParameters=config_overrides
SlurmdSpoolDir={folder}/spool-%n
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,bf_interval=1
GresTypes=gpu
ReturnToService=2
JobRequeue=1
KillWait=30
PropagateResourceLimits=NONE
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=60
PartitionName=patient Nodes=ALL DefaultTime=60 GraceTime=100
PartitionName=urgent Nodes=ALL DefaultTime=60 PriorityTier=9
"""


def missing() -> list[str]:
    """Programs of Slurm that this machine lacks."""
    return [name for name in NEEDED if shutil.which(name, path=os.environ["PATH"] + SBIN) is None]


class SlurmCluster:
    """A running Slurm. Its commands find it by ``SLURM_CONF``, which :attr:`environment` has.

    Args:
        nodes: n0, n1, …
        cpus: that each node says it has; one job takes one.
        gpus: of each node.
    """

    def __init__(self, nodes: int = 2, cpus: int = 4, gpus: int = 4) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="kd-slurm-"))  # short: a socket's path has at most 107 characters
        self.environment = {"SLURM_CONF": str(self.folder / "slurm.conf")}
        self.nodes = [f"n{number}" for number in range(nodes)]
        self._daemons: list[subprocess.Popen] = []
        try:
            self._start(cpus, gpus)
        except BaseException:
            self.stop()
            raise

    def _start(self, cpus: int, gpus: int) -> None:
        folder, host = self.folder, socket.gethostname().partition(".")[0]
        (folder / "state").mkdir()
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o600)
        for number in range(gpus):
            (folder / f"gpu{number}").symlink_to("/dev/null")
        (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-{gpus - 1}]\n")
        ports = _free_ports(1 + len(self.nodes))
        lines = [
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} Gres=gpu:{gpus}"
            for name, port in zip(self.nodes, ports[1:], strict=True)
        ]
        conf = CONF.format(host=host, user=getpass.getuser(), controller=ports[0], folder=folder)
        before, partitions = conf.split("PartitionName", 1)
        (folder / "slurm.conf").write_text(before + "\n".join(lines) + f"\nPartitionName{partitions}")
        self._daemon(
            "munged", "--foreground", "--force", f"--key-file={folder}/munge.key", f"--socket={folder}/munge.sock",
            f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/munge.seed",
        )  # fmt: skip
        self._until(lambda: (folder / "munge.sock").exists(), "munged")
        self._daemon("slurmctld", "-D")
        for name in self.nodes:
            self._daemon("slurmd", "-D", "-N", name)
        self._until(lambda: self.states() == dict.fromkeys(self.nodes, "idle"), "the nodes")

    def _daemon(self, program: str, *arguments: str) -> None:
        path = shutil.which(program, path=os.environ["PATH"] + SBIN)
        assert path is not None
        log = (self.folder / f"{program}-{len(self._daemons)}.out").open("wb")
        environment = {**os.environ, **self.environment, "PATH": os.environ["PATH"] + SBIN}
        self._daemons.append(
            subprocess.Popen(
                [path, *arguments], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment,
                start_new_session=True, preexec_fn=_end_with_parent,
            )
        )  # fmt: skip

    def _until(self, condition, what: str, seconds: float = 60) -> None:
        until = time.monotonic() + seconds
        while not condition():
            assert all(daemon.poll() is None for daemon in self._daemons), f"{what}: a daemon ended:\n{self.said()}"
            assert time.monotonic() < until, f"{what}: not there within {seconds} s:\n{self.said()}"
            time.sleep(0.05)

    def said(self) -> str:
        """How the daemons are, and the ends of what they have said."""
        codes = [daemon.poll() for daemon in self._daemons]
        texts = [path.read_text(errors="replace")[-2000:] for path in sorted(self.folder.glob("*.out"))]
        return "\n".join([f"exit codes {codes}", *texts])

    def run(self, *command: str, check: bool = True) -> str:
        """What one of Slurm's commands prints."""
        done = subprocess.run(
            command, env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0 or not check, f"{command}: {done.stderr}\n{self.said()}"
        return done.stdout

    def states(self) -> dict[str, str]:
        """State of each node, without Slurm's marks (``*``)."""
        rows = (line.split() for line in self.run("sinfo", "-h", "-N", "-o", "%N %t", check=False).splitlines())
        return {row[0]: row[1].rstrip("*~#!%$@^-") for row in rows if len(row) == 2}

    def tasks(self) -> dict[str, tuple[str, str]]:
        """State and node of each job, also of those that ended lately; tasks of arrays as ``12_0``."""
        rows = self.run("squeue", "-h", "-r", "-a", "-t", "all", "-o", "%i|%T|%N").splitlines()
        return {row[0]: (row[1], row[2]) for row in (line.split("|") for line in rows)}

    def wait_until_empty(self, seconds: float = 120) -> None:
        """Return when no job waits or runs."""
        self._until(lambda: not self.run("squeue", "-h", "-r").strip(), "an empty queue", seconds)

    def stop(self) -> None:
        """End every job and every daemon, and remove the files."""
        if len(self._daemons) > 1:
            for more in ([], ["--signal=KILL", "--full"]):
                self.run("scancel", *more, "--user", getpass.getuser(), check=False)
        for daemon in reversed(self._daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 240) -> None:
    """Return as soon as the condition holds; an AssertionError with the queue after ``seconds``."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            command = ["squeue", "-a", "-r", "-t", "all", "-o", "%i %T %N %r"]
            queue = subprocess.run(command, capture_output=True, text=True, check=False)
            raise AssertionError(f"not within {seconds} s: {what}\n{queue.stdout}{queue.stderr}")
        time.sleep(0.1)


def logs(sweep: Path) -> dict[str, str]:
    """What each job has written, by the log's name without its numbers of jobs: ``train_0``."""
    found: dict[str, str] = {}
    for path in sorted((sweep / ".jobs").glob("*/*.log")):
        name = re.sub(r"-\d+", "", path.stem)
        found[name] = found.get(name, "") + path.read_text(errors="replace")
    return found


def _end_with_parent() -> None:
    """Also if the tests are killed, nothing stays behind."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
