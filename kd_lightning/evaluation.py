"""One pass over a validation or test set: the teacher once a batch, every member's evaluator fed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from kd_lightning.batch import Batch
from kd_lightning.errors import UserError
from kd_lightning.joints import Clock, Evaluator, Step
from kd_lightning.member import Member
from kd_lightning.outputs import ModelOutput


class Evaluation:
    """Sums of several members over one evaluation set.

    Args:
        members: those that take part, by number.
    """

    def __init__(self, members: Mapping[int, Member]) -> None:
        self._members = dict(members)
        self._evaluators: dict[int, Evaluator] = {i: member.task.evaluator() for i, member in members.items()}

    def update(
        self,
        batch: Batch,
        teacher: ModelOutput | None,
        clock: Clock,
        look: Callable[[int, Step], None] | None,
        failed: Callable[[int, Exception], None],
    ) -> None:
        """Add one batch.

        Args:
            batch: the batch.
            teacher: the teacher's output for it, or None.
            clock: where the run stands.
            look: shown each member's step; None: nobody looks.
            failed: told of a member that raised; it takes no further part.
        """
        if batch.partner_target is not None:
            raise UserError(
                "these are mixed samples, with two labels each, which a metric would take for one: measure on "
                "val_dataloader() or test_dataloader()"
            )
        for i in list(self._evaluators):
            member = self._members[i]
            try:
                with member.autocast(batch.target.device):
                    output = member.answer(batch.inputs)
                self._evaluators[i].update(output, teacher, batch)
                if look is not None:
                    look(i, Step(batch, output, teacher, clock))
            except Exception as error:
                del self._evaluators[i]
                failed(i, error)

    def metrics(self, reduce: Callable[[Tensor], Tensor] | None = None) -> dict[int, dict[str, float]]:
        """Each member's metrics; ``reduce`` sums a tensor over processes, None where there is one."""
        if reduce is not None:
            for evaluator in self._evaluators.values():
                evaluator.sync(reduce)
        return {i: evaluator.compute() for i, evaluator in self._evaluators.items()}
