"""Which class and arguments each reference case is: logits in parts, regions, views and bins."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from golden_cases import array, on_features, on_logits
from golden_table import Comparison, of_file, weighted
from torch import Tensor

from kd_lightning.joints import Clock
from kd_lightning.losses.cross_view import AcrossViewsLoss, SecondViewTaskLoss, WithinViewLoss
from kd_lightning.losses.deepkd import LikelyClassesLoss
from kd_lightning.losses.dense_heads import BinDivergenceLoss, QualityFocalLoss
from kd_lightning.losses.dkd import TrueClassLoss
from kd_lightning.losses.learned_temperature import LearnedTemperatureLoss
from kd_lightning.losses.logarithmic import LogarithmicFeatureLoss
from kd_lightning.losses.multi_level import BatchCorrelationLoss, ClassCorrelationLoss
from kd_lightning.losses.multi_level_views import MultiLevelLoss
from kd_lightning.losses.nkd import ConfidenceLoss
from kd_lightning.losses.regional import RegionalLoss, regional_vectors
from kd_lightning.losses.soft_target import SoftTargetLoss
from kd_lightning.losses.streamlined import DirectionLoss, InstanceLoss
from kd_lightning.losses.universal_self import UniversalSelfLoss
from kd_lightning.losses.wasserstein import WassersteinFeatureLoss, WassersteinLogitLoss
from kd_lightning.outputs import ModelOutput


@of_file("deepkd")
def _(case, hp):
    standardise, top_k = hp.get("logit_stand", False), hp["topk"] or None
    true = on_logits(TrueClassLoss(hp["temperature"], standardise))
    others = on_logits(LikelyClassesLoss(hp["temperature"], top_k, not hp["DKD"], standardise))
    raised = min(hp["epoch"] / hp.get("warmup_factor", 1), 1.0) if hp["DKD"] else 1.0
    return weighted((raised * hp.get("alpha", 1.0), true), (raised * hp.get("beta", 1.0), others))


@of_file("ctkd")
def _(case, hp):
    if case.startswith("schedule") or "dkd" in case:
        return None
    term = LearnedTemperatureLoss(hp["t_start"], hp["t_end"], hp["decay_loops"]).double()
    clock = Clock(hp["epoch"] - 1, 0, 1, 1)

    def loss(s: Tensor, t: Tensor) -> Tensor:
        term.value.data.copy_(array("ctkd", "param/temp.global_T"))
        return term(ModelOutput(s), ModelOutput(t), torch.full((len(s),), -1), clock=clock)

    return Comparison(loss, {"parameters": {"temp.global_T": term.value}})


@of_file("crld")
def _(case, hp):
    within = WithinViewLoss(hp["T"], hp["tau_w"])
    across = AcrossViewsLoss(hp["T"], hp["tau_s"])

    def loss(sw: Tensor, ss: Tensor, tw: Tensor, ts: Tensor, y: Tensor) -> Tensor:
        given = (ModelOutput(sw), ModelOutput(tw), y)
        views = [(ModelOutput(ss), ModelOutput(ts))]
        task = F.cross_entropy(sw, y) + SecondViewTaskLoss()(*given, views=views)
        total = hp["ce_weight"] * task + hp["wv_weight"] * within(*given, views=views)
        return total + hp["cv_weight"] * across(*given, views=views)

    return loss


@of_file("mlkd")
def _(case, hp):
    if "total" in case:
        term = MultiLevelLoss([hp["T"], 3, 5, 2, 6], hp["logit_stand"], form="authors_code")

        def loss(s: Tensor, strong: Tensor, t: Tensor, t_strong: Tensor, y: Tensor) -> Tensor:
            given = (ModelOutput(s), ModelOutput(t), y)
            task = F.cross_entropy(s, y) + F.cross_entropy(strong, y)
            levels = term(*given, views=[(ModelOutput(strong), ModelOutput(t_strong))])
            return hp["ce"] * task + hp["kd"] * levels

        return loss
    kind = BatchCorrelationLoss if "_bc_" in case else ClassCorrelationLoss if "_cc_" in case else SoftTargetLoss
    return on_logits(kind(hp["T"]))


@of_file("sdd")
def _(case, hp):
    if "nkd" in case:
        return None
    term = RegionalLoss("x", hp["T"], hp["alpha"], hp["beta"])
    if "spp" not in case:
        return term.of_regions
    term.levels = [1, 2] if case.endswith("_12") else [1, 2, 4]

    def loss(fs: Tensor, ft: Tensor, y: Tensor) -> Tensor:
        ours, theirs = (
            F.linear(
                regional_vectors(maps, term.levels),
                array("sdd", f"param/{fc}.weight"),
                array("sdd", f"param/{fc}.bias"),
            )
            for maps, fc in ((fs, "fc"), (ft, "fc_t"))
        )
        return term.of_regions(ours.transpose(1, 2), theirs.transpose(1, 2), y)

    return loss


@of_file("wkd")
def _(case, hp):
    if case.startswith("wkdl"):
        others = "_sep_" in case
        term = WassersteinLogitLoss(hp["T"], hp["sinkhorn_lambda"], hp["sinkhorn_iter"], others)

        def loss(s: Tensor, t: Tensor, *rest: Tensor) -> Tensor:
            term.cost = rest[-1]
            moved = on_logits(term)(s, t, *rest[:-1])
            return on_logits(ConfidenceLoss())(s, t, rest[0]) + hp["gamma"] * moved if others else moved

        return loss
    term = WassersteinFeatureLoss("x", hp["grid"], hp["mean_cov_ratio"], hp["eps"], adapter=False)
    if "projector" not in case:
        return on_features(term, "x")
    norm = torch.nn.BatchNorm2d(12)
    term.adapter = torch.nn.Sequential(torch.nn.Conv2d(8, 12, 1), norm, torch.nn.ReLU()).double()
    names = {}
    for module, name in ((term.adapter[0], "conv.conv"), (norm, "conv.bn")):
        for kind in ("weight", "bias"):
            getattr(module, kind).data = array("wkd", f"param/{name}.{kind}")
            names[f"{name}.{kind}"] = getattr(module, kind)
    del names["conv.conv.bias"]  # BatchNorm takes the mean away, and the bias with it
    return Comparison(on_features(term, "x"), {"parameters": names})


@of_file("crosskd")
def _(case, hp):
    per = (lambda x, n: x.mean()) if hp["avg_factor"] is None else (lambda x, n: x.sum() / (hp["avg_factor"] + n))
    if case.startswith("kdqfl"):
        term = QualityFocalLoss(hp["beta"])
        return lambda s, t, w=1.0: per(
            term.elements(ModelOutput(s), ModelOutput(t)) * (w if isinstance(w, float) else w[:, None]), 1.1920929e-07
        )
    term = BinDivergenceLoss(hp["T"], hp["class_reduction"] == "mean")
    return lambda s, t, w=1.0: per(term.per_sample(ModelOutput(s), ModelOutput(t), None) * w, 1.1920929e-07)


@of_file("uskd")
def _(case, hp):
    term = UniversalSelfLoss("x", hp["alpha"], hp["beta"], hp["mu"], form="authors_code")
    term.weak = torch.nn.Linear(12, 10).double()
    term.weak.weight.data, term.weak.bias.data = (
        array("uskd", "param/loss.fc.weight"),
        array("uskd", "param/loss.fc.bias"),
    )
    parameters = {"loss.fc.weight": term.weak.weight, "loss.fc.bias": term.weak.bias}
    return Comparison(lambda s, mid, y: term(ModelOutput(s, {"x": mid}), None, y), {"parameters": parameters})


@of_file("skd_srd")
def _(case, hp):
    if case.startswith("srd"):
        far, soft = (
            on_features(LogarithmicFeatureLoss("x", hp["exponent"], adapter=False), "x"),
            on_logits(SoftTargetLoss(hp["temperature"])),
        )
        return lambda s, fs, t, ft: far(fs, ft) + soft(s, t) / hp["temperature"] ** 2
    if "instance" in case:
        form = "paper" if hp["mode"] == "paper" else "authors_code"
        return on_logits(InstanceLoss(hp["temperature"], form))
    return on_logits(DirectionLoss(float(torch.tensor(hp["tikhonov"])))) if hp["mode"] == "paper" else None
