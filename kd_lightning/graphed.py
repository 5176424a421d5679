"""Students' passes as CUDA graphs: recorded once, then replayed without Python launching anything.

An experiment beside the loop of the Distiller, which stays the default. Forward pass, loss and backward pass of a member
are recorded on one batch and replayed on the next ones, whose values are copied to where the recorded one lies; clipping,
optimizer, schedule, loss scale, metrics and checkpoints are those of the loop. The kernels and the numbers are the loop's
too: results are equal to the last bit, as far as the kernels themselves are deterministic.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from kd_lightning.batch import Batch
from kd_lightning.joints import Clock
from kd_lightning.member import Member
from kd_lightning.outputs import ModelOutput
from kd_lightning.recordable import changed, state_of, why_not
from kd_lightning.structure import mapped

log = logging.getLogger(__name__)

WARM_UP = 3
"""Steps in the loop before a member is recorded: libraries choose their kernels in the first ones, the last one is watched."""


class Graphs:
    """Whose steps are replayed, and those steps.

    A member that cannot be recorded, and each batch of another shape than the recorded one, is left to the loop.
    """

    def __init__(self) -> None:
        self._place: _Place | None = None
        self._recorded: dict[int, _Recorded] = {}
        self._steps: dict[int, int] = {}
        self._watched: dict[int, dict[str, Any]] = {}
        self._in_loop: set[int] = set()
        self._said: set[str] = set()

    def arrange(self, members: Mapping[int, Member]) -> None:
        """Forget what was recorded of members that are gone or are no longer as they were (weights that lie elsewhere, a
        temperature that a callback has set); once an epoch."""
        for i, recorded in list(self._recorded.items()):
            if i not in members or recorded.moved(members[i]):
                del self._recorded[i]

    def steps(
        self,
        members: Mapping[int, Member],
        batch: Batch,
        teacher: ModelOutput | None,
        *,
        stepping: bool,
        clock: Clock | None,
        failed: Callable[[int, Exception], None],
    ) -> dict[int, tuple[list[Tensor], float]]:
        """One training step of all that are recorded; the others are left out.

        Args and returns as those of :meth:`kd_lightning.stacked.Stacks.steps`.
        """
        done: dict[int, tuple[list[Tensor], float]] = {}
        ready = [i for i, member in members.items() if self._is_ready(i, member, batch.target.device)]
        if not ready:
            return done
        if self._place is None:
            self._place = _Place(batch, teacher)
        if not self._place.put(batch, teacher):
            return done
        for i in ready:
            begun = time.perf_counter()
            if i not in self._recorded and not self._record(i, members[i]):
                continue
            try:
                done[i] = self._recorded[i].step(members[i]), time.perf_counter() - begun
            except Exception as error:
                failed(i, error)
        return done

    def _is_ready(self, i: int, member: Member, device: torch.device) -> bool:
        """Whether a member is recorded, or has taken its steps in the loop and can be."""
        if i in self._recorded:
            return True
        if i in self._in_loop:
            return False
        taken = self._steps.get(i, 0)
        self._steps[i] = taken + 1
        if taken == 0 and (reason := why_not(member, device)) is not None:
            self._leave(i, member, reason)
        elif taken == WARM_UP - 1:
            self._watched[i] = state_of(member)
        elif taken >= WARM_UP:
            found = changed(self._watched.pop(i, {}), state_of(member)) if i in self._watched else None
            if found is None:
                return True
            self._leave(i, member, f"a step changed {found}")
        return False

    def _record(self, i: int, member: Member) -> bool:
        assert self._place is not None
        try:
            self._recorded[i] = _Recorded(member, self._place)
        except Exception as error:  # what waits for the device cannot be recorded
            for parameter in member.parameters():
                parameter.grad = None
            self._leave(i, member, " ".join(str(error).split())[:160])
            return False
        self._say("students' steps are replayed from CUDA graphs", logging.INFO)
        return True

    def _leave(self, i: int, member: Member, reason: str) -> None:
        self._in_loop.add(i)
        self._say(reason, logging.WARNING, f"{member.name} trains in the loop: ")

    def _say(self, line: str, level: int, who: str = "") -> None:
        """Once, whoever it is true of."""
        if line not in self._said:
            self._said.add(line)
            log.log(level, "cuda_graphs: %s%s", who, line)


class _Place:
    """Where the recorded batch and the teacher's answer lie, for all members."""

    def __init__(self, batch: Batch, teacher: ModelOutput | None) -> None:
        self.batch, self.teacher = mapped((batch, teacher), _copy)
        self._tensors = _tensors((self.batch, self.teacher))
        self.pool = torch.cuda.graph_pool_handle()  # one for all: their graphs never run at the same time

    def put(self, batch: Batch, teacher: ModelOutput | None) -> bool:
        """Copy a batch and its answer there; False where they have another form."""
        given = _tensors((batch, teacher))
        if list(map(_form, given)) != list(map(_form, self._tensors)):
            return False
        with torch.no_grad():
            for kept, new in zip(self._tensors, given, strict=True):
                kept.copy_(new, non_blocking=True)
        return True


class _Recorded:
    """The graph of one member's loss and gradient."""

    def __init__(self, member: Member, place: _Place) -> None:
        self._parameters = member.trained_parameters()
        for parameter in self._parameters:
            parameter.grad = None  # the recorded pass makes them, so that a replay writes them anew
        self._graph = torch.cuda.CUDAGraph()
        with member.rng.paused(), torch.cuda.graph(self._graph, pool=place.pool):
            total, parts = member.loss(place.batch, place.teacher)
            member.optimization.scaled(total).backward()
            self._values = torch.stack([total.detach(), *parts.values()])
        self._names = tuple(parts)
        self._gradients = [parameter.grad for parameter in self._parameters]
        self._lies, self._was = _places(member), state_of(member)
        for parameter in self._parameters:
            parameter.grad = None

    def moved(self, member: Member) -> bool:
        """Whether a parameter or buffer lies elsewhere than when it was recorded, another one learns, or a module is set otherwise."""
        return _places(member) != self._lies or changed(self._was, state_of(member)) is not None

    def step(self, member: Member) -> list[Tensor]:
        """As :meth:`kd_lightning.member.Member.training_step`, of the batch that was put in its place."""
        self._graph.replay()
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        total, *parts = self._values.clone().unbind()
        return member.after_backward(total, dict(zip(self._names, parts, strict=True)), stepping=True, clock=None)


def _places(member: Member) -> list[tuple[int, bool]]:
    return [(tensor.data_ptr(), tensor.requires_grad) for tensor in (*member.parameters(), *member.buffers())]


def _copy(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, Tensor) else leaf


def _form(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.dtype, tensor.stride(), tensor.device


def _tensors(value: Any) -> list[Tensor]:
    found: list[Tensor] = []

    def note(leaf: Any) -> None:
        if isinstance(leaf, Tensor):
            found.append(leaf)

    mapped(value, note)
    return found
