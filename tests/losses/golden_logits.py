"""Which class and arguments each reference case is: soft targets and their relatives."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from golden_cases import on_logits
from golden_table import Comparison, Loss, alone, of_file, weighted
from torch import Tensor

from kd_lightning.losses.adaptive_target import AdaptiveTargetLoss
from kd_lightning.losses.alpha_beta import AlphaBetaLoss
from kd_lightning.losses.dist import InterClassLoss, IntraClassLoss
from kd_lightning.losses.dkd import OtherClassesLoss, TrueClassLoss
from kd_lightning.losses.entropy_weight import EntropyWeighted
from kd_lightning.losses.hard_label import HardLabelLoss
from kd_lightning.losses.improved_kl import LogitDifferenceLoss, SoftCrossEntropyLoss
from kd_lightning.losses.lskd import StandardisedSoftTargetLoss
from kd_lightning.losses.nkd import ConfidenceLoss, OtherClassesCrossEntropy
from kd_lightning.losses.rld import MaskedCorrelationLoss, SampleConfidenceLoss
from kd_lightning.losses.soft_target import SoftTargetLoss
from kd_lightning.losses.teacher_free import SmoothedLabelLoss, VirtualTeacherLoss
from kd_lightning.losses.ttm import TransformedTeacherLoss, WeightedTransformedTeacherLoss
from kd_lightning.losses.wsld import WeightedSoftLabelLoss


@of_file("rld")
def _(case, hp):
    confidence = on_logits(SampleConfidenceLoss(hp["alpha_T"], hp["logit_stand"]))
    return weighted(
        (hp["alpha"], confidence), (hp["beta"], on_logits(MaskedCorrelationLoss(hp["T"], hp["logit_stand"])))
    )


@of_file("dkl")
def _(case, hp):
    cross_entropy = on_logits(SoftCrossEntropyLoss(hp["T"]))
    settings = {"gamma": hp.get("gamma", 1.0), "normalise": case.startswith("gkl")}

    def loss(s: Tensor, t: Tensor, prior: Tensor | None = None) -> Tensor:
        term = LogitDifferenceLoss(hp["T2"], class_prior=hp["GI"], **settings).double()
        if prior is None:
            return hp["beta"] * on_logits(term)(s, t) + hp["alpha"] * cross_entropy(s, t)
        term.prior, term.collected = prior, prior.new_zeros(prior.shape)  # row i is that of sample i's class
        return hp["beta"] * on_logits(term)(s, t, _rows(s)) + hp["alpha"] * cross_entropy(s, t)

    return loss


@of_file("eakd")
def _(case, hp):
    if case.startswith("eakd"):
        return on_logits(EntropyWeighted(SoftTargetLoss(hp["T"]), hp["t"], hp["H_ub"]))
    parts: list[tuple[float, Loss]] = [
        (hp[name], on_logits(EntropyWeighted(term(hp["T"], hp["LS"]), hp["t"], hp["H_ub"], hp["LS"])))
        for name, term in (("alpha", TrueClassLoss), ("beta", OtherClassesLoss))
    ]
    return Comparison(weighted(*parts), {"rtol": 1e-8})  # the reference clamps where it adds 1e-10 elsewhere


@of_file("tfkd")
def _(case, hp):
    def mixed(term: Loss, weight: float, share: float) -> Loss:
        return lambda *given: (1 - share) * F.cross_entropy(given[0], given[-1]) + weight * term(*given)

    if "label_smoothing" in case:
        return alone(SmoothedLabelLoss(hp["alpha"]))
    if "reg" in case:
        term = VirtualTeacherLoss(hp["reg_temperature"], hp["correct_prob"], form="authors_code")
        return mixed(alone(term), hp["reg_alpha"] * hp["multiplier"], hp["reg_alpha"])
    soft = on_logits(SoftTargetLoss(hp["T"]))  # the reference's KL is a mean over classes too
    scale = hp["alpha"] * hp.get("multiplier", 1.0)
    return mixed(lambda s, t, y: soft(s, t, y) / s.shape[1], scale, hp["alpha"])


@of_file("ofa")
def _(case, hp):
    return None if "method" in case else on_logits(AdaptiveTargetLoss(hp["eps"], hp["temperature"]))


@of_file("abkd")
def _(case, hp):
    if case.startswith("cls"):
        return on_logits(AlphaBetaLoss(hp["alpha"], hp["beta"], hp["T"]))
    a, b = hp["alpha"], hp["beta"]
    factor = b if a == 0 and b else a if b == 0 and a else a if a + b == 0 and a else 1.0

    def loss(s: Tensor, t: Tensor, label: Tensor) -> Tensor:
        kept = label != -100
        return factor * on_logits(AlphaBetaLoss(a, b))(s[kept], t[kept])

    # the reference's gradient is nan at the -inf logit; of equal distributions everything is rounding noise
    return Comparison(loss, {"gradient": "inf" not in case and "same" not in case, "atol": 1e-12})


@of_file("kd")
def _(case, hp):
    temperature = hp.get("T", 1.0)
    soft, n = on_logits(SoftTargetLoss(temperature)), temperature**2
    if case == "hard_label":
        return on_logits(HardLabelLoss())
    if case.startswith("clskd_softce"):
        return weighted((hp["alpha"] * n, on_logits(SoftCrossEntropyLoss(temperature))))
    if "targets_none" in case or "alpha0" in case:
        return weighted((1 / n, soft))
    if "_sum_" in case and "torchdistill" in case:
        return lambda s, t, y: hp["alpha"] * F.cross_entropy(s, y, reduction="sum") + hp["beta"] * len(s) * soft(s, t)
    if "total" in case or "a0.5" in case:
        task, share = (hp["gamma"], hp["alpha"]) if "gamma" in hp else (hp["alpha"], 1 - hp["alpha"])
        return lambda s, t, y: task * F.cross_entropy(s, y) + share * soft(s, t)
    if hp.get("reduction") == "mean":
        return lambda s, t: soft(s, t) / s.shape[1]
    if hp.get("reduction") == "sum":
        return lambda s, t: soft(s, t) * len(s)
    return soft


@of_file("dkd")
def _(case, hp):
    standardise = "stand" in case
    true, others = TrueClassLoss(hp["T"], standardise), OtherClassesLoss(hp["T"], standardise)
    return weighted((hp["alpha"], on_logits(true)), (hp["beta"], on_logits(others)))


@of_file("lskd")
def _(case, hp):
    term = on_logits(StandardisedSoftTargetLoss(hp["T"]))
    if "targets_none" in case:
        return weighted((1 / hp["T"] ** 2, term))
    if case.startswith("torchdistill"):
        both = lambda s, t, y: hp["alpha"] * F.cross_entropy(s, y) + hp["beta"] * term(s, t)  # noqa: E731
        return Comparison(both, {"gradient": "flat" not in case})
    loss = weighted((hp.get("extra_weight_in", 1.0), term))
    return Comparison(loss, {"gradient": False}) if "flat" in case else loss  # the reference's gradient is nan there


@of_file("nkd")
def _(case, hp):
    return weighted((1.0, on_logits(ConfidenceLoss())), (hp["gamma"], on_logits(OtherClassesCrossEntropy(hp["temp"]))))


@of_file("wsld")
def _(case, hp):
    return weighted((hp.get("alpha", 1.0), on_logits(WeightedSoftLabelLoss(hp.get("temp", hp.get("tau"))))))


@of_file("ttm")
def _(case, hp):
    kind = WeightedTransformedTeacherLoss if case.startswith("wttm") else TransformedTeacherLoss
    return on_logits(kind(1 / hp["l"]))


@of_file("dist")
def _(case, hp):
    if case == "dist_kd_4d" or not case.startswith("torchdistill"):
        tau = hp.get("tau", 1.0)
        return weighted((hp["beta"], on_logits(InterClassLoss(tau))), (hp["gamma"], on_logits(IntraClassLoss(tau))))
    return None


def _rows(values: Tensor) -> Tensor:
    return torch.arange(len(values))
