"""Students of one architecture computed together: one forward and one backward pass over their stacked weights.

An experiment beside the loop of the Distiller, which stays the default. The forward pass is that of one student under
``torch.vmap``: matrix products become batched ones, convolutions grouped ones, so that many small students are as few
launches as one. Their weights are stacked anew in each step and the gradient flows back into each student's own: loss,
optimizer, schedule, clipping, loss scale, checkpoints and metrics are what they are in the loop.

Batched sums are rounded in another order than those of one student: results equal the loop's up to rounding, never to
the last bit, and a run's depend on who is beside it.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from kd_lightning.batch import Batch
from kd_lightning.errors import UserError
from kd_lightning.joints import Clock
from kd_lightning.member import Member
from kd_lightning.outputs import ModelOutput
from kd_lightning.stackable import difference, why_not
from kd_lightning.taps import Taps

log = logging.getLogger(__name__)


class Stacks:
    """Which members are computed together, and their steps.

    A member that cannot be stacked, or is alone of its kind, is left to the loop; one line of the log says why.
    """

    def __init__(self) -> None:
        self._stacks: list[list[int]] = []
        self._stacked: dict[tuple[int, ...], Stack] = {}
        self._given_up: set[int] = set()
        self._in_loop: dict[str, list[str]] = defaultdict(list)
        self._said: set[str] = set()

    def arrange(self, members: Mapping[int, Member]) -> None:
        """Find out who goes with whom; once an epoch, since layers may have been frozen and hooks set.

        Args:
            members: those that train, by number.
        """
        self._stacked.clear()
        self._stacks = []
        for i, member in members.items():
            if i in self._given_up:
                continue
            reason = why_not(member)
            if reason is not None:
                self._in_loop[reason].append(member.name)
                continue
            for stack in self._stacks:
                if difference(members[stack[0]], member) is None:
                    stack.append(i)
                    break
            else:
                self._stacks.append([i])
        for stack in self._stacks:
            if len(stack) > 1:
                self._say(f"{len(stack)} students are computed as one, equal to the loop up to rounding", logging.INFO)
            elif len(members) > 1:
                others = (difference(members[other[0]], members[stack[0]]) for other in self._stacks if other != stack)
                reason = next(filter(None, others), "no other student can be stacked")
                self._in_loop[reason].append(members[stack[0]].name)
            else:
                self._say("one student alone trains in the loop", logging.INFO)
        self._tell()

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
        """One training step of all that are stacked; who is in no stack, or alone in one, is left out.

        Args:
            members: those that train, by number.
            batch, teacher, stepping, clock: as for :meth:`kd_lightning.member.Member.training_step`.
            failed: told of a member that raised.

        Returns:
            By member: what its ``training_step`` returns, and its share of the seconds.
        """
        done: dict[int, tuple[list[Tensor], float]] = {}
        for numbers in list(self._stacks):
            here = tuple(i for i in numbers if i in members)
            if len(here) < 2:
                continue
            begun = time.perf_counter()
            if here not in self._stacked:
                self._stacked[here] = Stack([members[i] for i in here])
            try:
                outputs = self._stacked[here].answers(batch)
            except Exception as error:  # a model that draws random numbers, or branches on its values
                self._stacks.remove(numbers)
                self._given_up.update(numbers)
                said = " ".join(str(error).split())[:200]
                drawn = "their student draws random numbers (dropout, stochastic depth)"
                self._in_loop[drawn if "random operation" in said else said] = [members[i].name for i in here]
                self._tell()
                continue
            losses: dict[int, tuple[Tensor, dict[str, Tensor]]] = {}
            for i, output in zip(here, outputs, strict=True):
                try:
                    losses[i] = members[i].loss(batch, teacher, clock, output=output)
                except Exception as error:
                    failed(i, error)
            for i, values in _learn(members, losses, stepping, clock, failed).items():
                done[i] = values, (time.perf_counter() - begun) / len(losses)
        return done

    def _tell(self) -> None:
        """Who trains in the loop, and why."""
        for reason, names in self._in_loop.items():
            self._say(f"{', '.join(names)} train{'s' * (len(names) == 1)} in the loop: {reason}", logging.WARNING)
        self._in_loop.clear()

    def _say(self, line: str, level: int) -> None:
        if line not in self._said:
            self._said.add(line)
            log.log(level, "stacked: %s", line)


def _learn(
    members: Mapping[int, Member],
    losses: Mapping[int, tuple[Tensor, dict[str, Tensor]]],
    stepping: bool,
    clock: Clock | None,
    failed: Callable[[int, Exception], None],
) -> dict[int, list[Tensor]]:
    """One backward pass of all losses, then each member's own step."""
    done: dict[int, list[Tensor]] = {}
    if not losses:
        return done
    try:
        torch.stack([members[i].optimization.scaled(total) for i, (total, _) in losses.items()]).sum().backward()
    except Exception as error:  # nobody's own: none of them has a whole gradient
        if isinstance(error, torch.cuda.OutOfMemoryError):
            words = f"stacked: {len(losses)} students as one need more memory than there is: set max_fused below that"
            error = UserError(f"{words}, or stacked=null")
        for i in losses:
            failed(i, error)
        return done
    for i, (total, parts) in losses.items():
        try:
            done[i] = members[i].after_backward(total, parts, stepping=stepping, clock=clock)
        except Exception as error:
            failed(i, error)
    return done


class Stack:
    """Members of one architecture, whose students run as one.

    Args:
        members: at least two, between which there is no :func:`difference`.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self._first = members[0]
        self._run = _Tapped(members[0].student, members[0].taps)
        students = [member.student for member in members]
        self._parameters = _rows([dict(student.named_parameters()) for student in students])
        self._buffers = _rows([dict(student.named_buffers()) for student in students])

    def answers(self, batch: Batch) -> list[ModelOutput]:
        """Each student's output with its features, before the task reads it; their buffers move as in a pass alone."""

        def run(parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> Any:
            given = {f"student.{name}": value for part in (parameters, buffers) for name, value in part.items()}
            with self._first.autocast(batch.target.device):
                return functional_call(self._run, given, (batch.inputs,))

        stacked = torch.vmap(run, randomness="error")(_stacked(self._parameters), _stacked(self._buffers))
        answers, features, buffers = stacked
        with torch.no_grad():
            for name, rows in self._buffers.items():
                torch._foreach_copy_(rows, list(buffers[name].unbind(0)))
        outputs = {name: value.unbind(0) for name, value in answers.items()}
        tapped = {name: value.unbind(0) for name, value in features.items()}
        return [
            ModelOutput(
                outputs["logits"][row],
                {name: values[row] for name, values in tapped.items()},
                outputs["spread"][row] if "spread" in outputs else None,
            )
            for row in range(len(outputs["logits"]))
        ]


class _Tapped(nn.Module):
    """A student with its taps: what ``functional_call`` takes other weights for, and gives the buffers back."""

    def __init__(self, student: nn.Module, taps: Taps) -> None:
        super().__init__()
        self.student, self.taps = student, taps

    def forward(self, inputs: Any) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        output = self.taps(self.student, inputs)
        answer = {"logits": output.logits}
        if output.spread is not None:
            answer["spread"] = output.spread
        return answer, output.features, dict(self.student.named_buffers())


def _rows(named: Sequence[Mapping[str, Tensor]]) -> dict[str, list[Tensor]]:
    return {name: [each[name] for each in named] for name in named[0]}


def _stacked(rows: Mapping[str, list[Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack(each) for name, each in rows.items()}
