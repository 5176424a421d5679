"""Groups of runs in this process, one group after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from kd_lightning.joints import Handle
from kd_lightning.running.executors.devices import number_of_devices, on_devices
from kd_lightning.running.run_group import run_group
from kd_lightning.runs.result_file import Result
from kd_lightning.runs.spec import RunSpec
from kd_lightning.terminal.progress import GroupProgress


class LocalExecutor:
    """Computes runs here.

    Args:
        fuse: train runs that agree in data, task, teacher and trainer in lockstep.
        progress: show how far the runs are.
        devices: of this machine: 1 computes in this process; more, or "all", in a process for each.
    """

    def __init__(self, fuse: bool = True, progress: bool = True, devices: int | str = 1) -> None:
        self.fuse = fuse
        self.progress = progress
        self.devices = devices

    def submit(self, groups: Iterable[Sequence[RunSpec]], after: Sequence[Handle] = ()) -> Sequence[Handle]:
        """One handle a group; a group is computed while its results are asked for, so ``after`` has ended by then."""
        count = 1 if self.devices == 1 else number_of_devices(self.devices)
        if count > 1:
            return on_devices(groups, count)
        return [LocalHandle(group, self.progress) for group in groups]


class LocalHandle:
    """A group that is computed while its results are asked for."""

    def __init__(self, specs: Sequence[RunSpec], progress: bool) -> None:
        self.specs = list(specs)
        self.progress = progress

    def results(self) -> Iterator[Result]:
        return run_group(self.specs, (lambda names: GroupProgress(list(names))) if self.progress else None)

    def cancel(self) -> None:
        """Nothing to do: what is not asked for is not computed."""
