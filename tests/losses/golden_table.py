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
    "at/kdzoo_p2_stage1": "adds 1e-6 to the norm; ours bounds it at 1e-12, as the other codes do",
    "at/repdistiller_p1": "the first power without the absolute value: negative activations cancel positive ones",
    "catkd/method_partial_top3": "keeps n - 1 classes by a strict comparison; ours keeps n",
    "cc/torchdistill_*": "the norm of the kernels' difference, not its mean square, of features that are not normalised",
    "ctkd/ctkd_dkd_*": "DKD at a learned temperature: the reference's gradient is nan",
    "ctkd/schedule_*": "schedules: the cosine is inside LearnedTemperatureLoss; the linear one never reaches its end",
    "dist/torchdistill_*": "eps bounds each norm instead of being added to their product: up to 2 % of saturated logits",
    "fitnet/repdistiller_down2": "a strided convolution that fits a factor of 2 only; ours averages the larger map",
    "fitnet/*_up2": "a transposed convolution that fits a factor of 2 only; ours averages the larger map",
    "fsp/torchdistill_pair": "sums column norms and pools by the maximum; the paper has a squared Frobenius norm",
    "ft/torchdistill_p2_*": "p = 2 is a norm there, a square in the paper and here",
    "kdsvd/mdistiller_k2": "decomposes (C H) x W matrices in float32, which are not positions by channels",
    "lightly_distill/v1_step_queue_small": "of a batch larger than the queue the first rows stay there, the last here",
    "mgd/mmrazor": "a plain squared error: the generation happens outside",
    "misc_feature/reg_l1": "the L1 norm of the student's own feature: a regulariser, no distillation",
    "ofa/ofa_method_stages134": "the whole method with its stage heads; the loss itself is compared",
    "rkd/mmrazor_distance_nonorm": "leaves the diagonal out of the mean distance only",
    "sdd/sdd_nkd_*": "keeps the true class in the other-classes term, unlike NKD and the paper",
    "skd_srd/skd_direction_code": "another, unpublished normalisation; the paper's form is compared",
    "sobolev_lwm/lwm": "needs the teacher's own gradient, which a frozen teacher does not give",
    "sp/torchdistill_batchmean": "rows of L1 length: normalize's second argument is the exponent",
    "wkd/wkdf_bottleneck_projector": "another projector; the distance behind it is compared",
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
