"""Where a member's metrics and checkpoints go, and when it is done training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from kd_lightning.joints import Step

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from kd_lightning.member import Member


class Recorder:
    """What a Distiller tells about one member. Every method may be left as it is: this one keeps nothing."""

    done: bool = False
    """True as soon as the member shall train no further."""
    checkpoint_every_n_steps: int | None = None
    """Batches between two calls of ``save`` within an epoch; None saves at the end of epochs only."""

    def started(self, member: Member) -> None:
        """Training begins or continues; the member is on its device and has its optimizer."""

    def log(self, step: int, epoch: int, metrics: dict[str, float]) -> None:
        """Means of the losses since the last call, by their full names (``train/loss`` …)."""

    def validated(self, member: Member, step: int, epoch: int, metrics: dict[str, float]) -> None:
        """The task's metrics on the validation split, by their short names (``acc`` …)."""

    def tested(self, metrics: dict[str, float]) -> None:
        """The task's metrics on the test split."""

    def look(self, step: Step) -> None:
        """The first batch of an evaluation and what the models answered, for pictures."""

    def save(self, member: Member, epoch: int, batch: int, step: int) -> None:
        """Keep what continuing after ``batch`` batches of ``epoch`` needs."""

    def agree(self, share: Callable[[Any], Any]) -> None:
        """Of several processes that train the member: take over what process 0 decided; ``share(value)`` gives its value."""

    def diverged(self, step: int, terms: list[str]) -> None:
        """A loss is no longer finite since ``step``; ``terms`` were the first that weren't."""
        raise FloatingPointError(f"loss is not finite since step {step}, first in {', '.join(terms)}")

    def warned(self, kind: str, text: str) -> bool:
        """Something spoils the training, and what to do; False if this kind is known already and need not be said again."""
        return True

    def failed(self, error: Exception) -> None:
        """The member raised and leaves its group."""


class LightningRecorder(Recorder):
    """For a Distiller in a user's own script: metrics go to the Trainer's loggers and to its callbacks' monitors.

    Metrics of an evaluation are of all processes' samples already; ``sync_dist`` tells Lightning, which else asks for it.

    Args:
        module: the LightningModule that this recorder's member belongs to.
        prefix: stands before every name, so that several members' metrics stay apart ("a/" gives "a/val/acc").
    """

    def __init__(self, module: pl.LightningModule, prefix: str = "") -> None:
        self._module = (module,)  # hidden from a deep copy of the module's attributes as a submodule
        self._prefix = prefix

    def log(self, step: int, epoch: int, metrics: dict[str, float]) -> None:
        named = self._named(metrics)
        for logger in self._module[0].trainer.loggers:
            logger.log_metrics(named, step)

    def validated(self, member: Member, step: int, epoch: int, metrics: dict[str, float]) -> None:
        self._module[0].log_dict(self._named(metrics, "val/"), sync_dist=True)

    def tested(self, metrics: dict[str, float]) -> None:
        self._module[0].log_dict(self._named(metrics, "test/"), sync_dist=True)

    def _named(self, metrics: dict[str, float], split: str = "") -> dict[str, float]:
        return {f"{self._prefix}{split}{name}": value for name, value in metrics.items()}


def prefixes(names: Sequence[str]) -> list[str]:
    """What stands before each member's metrics: nothing for one; its name, numbered where names are alike."""
    if len(names) == 1:
        return [""]
    return [f"{name}/" if names.count(name) == 1 else f"{name}{i}/" for i, name in enumerate(names)]
