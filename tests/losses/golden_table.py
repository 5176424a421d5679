"""Reference cases and our losses: what is compared how, and why some are not; the tables are beside this file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

from golden_cases import entry
from torch import Tensor

from kd_lightning.outputs import ModelOutput

Loss = Callable[..., Tensor]


NOT_OURS: dict[str, str] = {
    "lightly_distill/v1_step_queue_small": "of a batch larger than the queue the first rows stay there, the last here",
    "mgd/mmrazor": "a plain squared error: the generation happens outside",
    "misc_feature/reg_l1": "the L1 norm of the student's own feature: a regulariser, no distillation",
    "skd_srd/skd_direction_code": "another, unpublished normalisation; the paper's form is compared",
    "sobolev_lwm/lwm": "the layers between its convolution and its classifier are not stored; ClassMapLoss has the formula",
}


"""``file/case``, possibly with ``*`` -> why it is not compared."""


def reason(file: str, case: str) -> str | None:
    """Why a case is not compared; None where it is."""
    return next((text for pattern, text in NOT_OURS.items() if fnmatch(f"{file}/{case}", pattern)), None)


@dataclass
class Comparison:
    """Our loss as a function of the case's inputs, and options of the comparison."""

    loss: Loss
    options: dict[str, Any] = field(default_factory=dict)


FILES: dict[str, Callable[[str, dict[str, Any]], Loss | Comparison | None]] = {}


def ours(file: str, case: str) -> Comparison | None:
    """Our loss for a case; None where it is not compared."""
    make = None if reason(file, case) else FILES.get(file)
    made = make(case, entry(file, case)["hyperparameters"]) if make else None
    return Comparison(made) if callable(made) else made


def of_file(name: str) -> Callable:
    def register(function: Callable) -> Callable:
        FILES[name] = function
        return function

    return register


def weighted(*parts: tuple[float, Loss]) -> Loss:
    """The weighted sum of losses of the same inputs; a weight of 0 leaves a loss out."""
    return lambda *given: sum(weight * loss(*given) for weight, loss in parts if weight)


def alone(term: Any) -> Loss:
    """A term without a teacher as a function of (student logits, target)."""
    return lambda s, y: term(ModelOutput(s), None, y)
