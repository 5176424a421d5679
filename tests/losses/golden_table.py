"""Which class and arguments each reference case is: one function a file of ``tests/golden``."""

from __future__ import annotations

import unittest.mock
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

import torch
import torch.nn.functional as F
from golden_cases import array, entry, on_features, on_logits
from torch import Tensor

from kd_lightning.joints import Clock
from kd_lightning.losses.activation_boundary import ActivationBoundaryLoss
from kd_lightning.losses.adaptive_target import AdaptiveTargetLoss
from kd_lightning.losses.alpha_beta import AlphaBetaLoss
from kd_lightning.losses.attention import AttentionLoss
from kd_lightning.losses.attention_linking import SemanticLinkLoss
from kd_lightning.losses.channel_correlation import AffinityLoss, ChannelCorrelationLoss, NormalisedMapLoss
from kd_lightning.losses.channel_wise import ChannelWiseLoss
from kd_lightning.losses.class_activation import ClassActivationLoss
from kd_lightning.losses.compress import QueueNeighbourhoodLoss
from kd_lightning.losses.contrastive import ContrastiveLoss
from kd_lightning.losses.correlation_congruence import CorrelationCongruenceLoss
from kd_lightning.losses.cross_view import AcrossViewsLoss, SecondViewTaskLoss, WithinViewLoss
from kd_lightning.losses.deepkd import LikelyClassesLoss
from kd_lightning.losses.dense_heads import BinDivergenceLoss, QualityFocalLoss
from kd_lightning.losses.dist import InterClassLoss, IntraClassLoss
from kd_lightning.losses.dist_plus import ChannelCorrelationDistance, SpatialCorrelationDistance
from kd_lightning.losses.dkd import OtherClassesLoss, TrueClassLoss
from kd_lightning.losses.embedding_regression import EmbeddingRegressionLoss, TeacherQueueLoss, TokenSimilarityLoss
from kd_lightning.losses.entropy_weight import EntropyWeighted
from kd_lightning.losses.factor_transfer import FactorTransferLoss, Paraphraser
from kd_lightning.losses.flow import FlowLoss
from kd_lightning.losses.gaussian import GaussianDivergenceLoss, HistogramLoss
from kd_lightning.losses.hard_label import HardLabelLoss
from kd_lightning.losses.hint import HintLoss
from kd_lightning.losses.improved_kl import LogitDifferenceLoss, SoftCrossEntropyLoss
from kd_lightning.losses.information import CorrelationLoss, MutualInformationLoss
from kd_lightning.losses.instance_graph import InstanceGraphLoss
from kd_lightning.losses.learned_temperature import LearnedTemperatureLoss
from kd_lightning.losses.logarithmic import LogarithmicFeatureLoss
from kd_lightning.losses.lskd import StandardisedSoftTargetLoss
from kd_lightning.losses.masked_generation import MaskedGenerationLoss
from kd_lightning.losses.multi_level import BatchCorrelationLoss, ClassCorrelationLoss
from kd_lightning.losses.multi_level_views import MultiLevelLoss
from kd_lightning.losses.neuron_selectivity import NeuronSelectivityLoss
from kd_lightning.losses.nkd import ConfidenceLoss, OtherClassesCrossEntropy
from kd_lightning.losses.orthogonal import OrthogonalFeatureLoss
from kd_lightning.losses.overhaul import OverhaulLoss
from kd_lightning.losses.pkt import NeighbourhoodLoss
from kd_lightning.losses.probabilistic_kernels import KernelNeighbourhoodLoss
from kd_lightning.losses.regional import RegionalLoss, regional_vectors
from kd_lightning.losses.regressed_representation import RegressedRepresentationLoss
from kd_lightning.losses.relational import AngleLoss, DistanceLoss
from kd_lightning.losses.review import ReviewLoss, hierarchical_difference
from kd_lightning.losses.rld import MaskedCorrelationLoss, SampleConfidenceLoss
from kd_lightning.losses.seed import QueueSimilarityLoss
from kd_lightning.losses.self_distillation import CentredCrossViewLoss
from kd_lightning.losses.self_supervised import ViewLogitLoss, ViewSimilarityLoss
from kd_lightning.losses.similarity import SimilarityLoss
from kd_lightning.losses.singular_vectors import SingularVectorLoss
from kd_lightning.losses.soft_target import SoftTargetLoss
from kd_lightning.losses.standardised_maps import PearsonMapLoss
from kd_lightning.losses.streamlined import DirectionLoss, InstanceLoss
from kd_lightning.losses.teacher_free import SmoothedLabelLoss, VirtualTeacherLoss
from kd_lightning.losses.ttm import TransformedTeacherLoss, WeightedTransformedTeacherLoss
from kd_lightning.losses.universal_self import UniversalSelfLoss
from kd_lightning.losses.vid import VariationalInformationLoss
from kd_lightning.losses.wasserstein import WassersteinFeatureLoss, WassersteinLogitLoss
from kd_lightning.losses.wsld import WeightedSoftLabelLoss
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
    "simkd_srrl/simkd*": "SimKD changes the student that is exported: it is a model, not a loss",
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


def _rows(values: Tensor) -> Tensor:
    return torch.arange(len(values))


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
        return _alone(SmoothedLabelLoss(hp["alpha"]))
    if "reg" in case:
        term = VirtualTeacherLoss(hp["reg_temperature"], hp["correct_prob"], form="authors_code")
        return mixed(_alone(term), hp["reg_alpha"] * hp["multiplier"], hp["reg_alpha"])
    soft = on_logits(SoftTargetLoss(hp["T"]))  # the reference's KL is a mean over classes too
    scale = hp["alpha"] * hp.get("multiplier", 1.0)
    return mixed(lambda s, t, y: soft(s, t, y) / s.shape[1], scale, hp["alpha"])


def _alone(term: Any) -> Loss:
    return lambda s, y: term(ModelOutput(s), None, y)


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


@of_file("nkd")
def _(case, hp):
    return weighted((1.0, on_logits(ConfidenceLoss())), (hp["gamma"], on_logits(OtherClassesCrossEntropy(hp["temp"]))))


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


@of_file("catkd")
def _(case, hp):
    if case.startswith("method_partial"):
        return None
    if case.startswith("cat_"):
        return on_features(ClassActivationLoss("x", hp["CAM_RESOLUTION"], hp["IF_NORMALIZE"]), "x")
    term = on_features(ClassActivationLoss("x", 2, hp.get("norm", True), binarise=hp.get("bin", False)), "x")
    weight = hp.get("w", 400.0)
    return lambda s, ls, t, lt, y: F.cross_entropy(ls, y) + weight * term(s, t)


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


@of_file("fsp")
def _(case, hp):
    if case.startswith("torchdistill"):
        return None
    taps = ["a", "b", "c"][: len(entry("fsp", case)["student_inputs"])]
    return on_features(FlowLoss(taps), *taps)


@of_file("ft")
def _(case, hp):
    if "paraphraser" in case:
        module = Paraphraser(16, 0.5).double()
        state = {k: array("ft", f"param/paraphraser.{k}") for k in _paraphraser_names()}
        module.load_state_dict(dict(zip(module.state_dict(), state.values(), strict=True)))
        names = {f"paraphraser.{k}": p for k, p in zip(state, module.parameters(), strict=True)}
        return Comparison(lambda f: F.mse_loss(module(f)[1], f), {"parameters": names})
    if case.startswith("repdistiller"):
        return on_features(FactorTransferLoss("x", p=hp["p2"], paraphraser_epochs=0, average_channels=hp["p1"]), "x")
    if hp.get("p") == 2:
        return None
    term = on_features(FactorTransferLoss("x", p=1, paraphraser_epochs=0), "x")
    return (lambda s, t: term(s, t) * s.numel()) if hp.get("reduction") == "sum" else term


def _paraphraser_names() -> list[str]:
    return [f"{half}.{i}.{kind}" for half in ("encoder", "decoder") for i in (0, 3, 6) for kind in ("weight", "bias")]


@of_file("ab")
def _(case, hp):
    taps = ["a", "b"][: len(entry("ab", case)["student_inputs"])]
    term = on_features(ActivationBoundaryLoss(taps, hp["margin"], adapter=False), *taps)
    if case.startswith("repdistiller") or case.startswith("mmrazor"):
        return weighted((3 / 1000, term))
    if hp.get("reduction") == "sum":
        return lambda s, t: term(s, t) * len(s)
    return (lambda s, t: term(s, t) * len(s) / s.numel()) if case.startswith("kdzoo") else term


@of_file("ofd")
def _(case, hp):
    term = OverhaulLoss(["x"], adapter=False)
    if case == "mmrazor":  # the margin is in the teacher's map already
        term.margins = torch.full((32,), -1e9, dtype=torch.float64)
        return lambda s, t: on_features(term, "x")(_tiled(s, t), t) / hp["mul_factor"]
    term.margins = array("ofd", "param/margin_f32").flatten().double()
    if "connector" in case:
        adapter = torch.nn.Sequential(torch.nn.Conv2d(8, 16, 1, bias=False), torch.nn.BatchNorm2d(16)).double()
        adapter[0].weight.data = array("ofd", "param/conn.connectors.0.0.weight")
        for kind in ("weight", "bias"):
            getattr(adapter[1], kind).data = array("ofd", f"param/conn.connectors.0.1.{kind}")
        term.adapters = torch.nn.ModuleList([adapter])
        names = {"conn.connectors.0.0.weight": adapter[0].weight, "conn.connectors.0.1.bias": adapter[1].bias}
        return Comparison(on_features(term, "x"), {"parameters": names})
    return lambda s, t: on_features(term, "x")(0.9 * t + _tiled(s, t), t)


def _tiled(s: Tensor, t: Tensor) -> Tensor:
    return s.repeat(1, t.shape[1] // s.shape[1], 1, 1)


@of_file("misc_feature")
def _(case, hp):
    terms = {
        "cwd_T1": lambda: ChannelWiseLoss("x", 1.0),
        "cwd_T4": lambda: ChannelWiseLoss("x", 4.0),
        "pkd": lambda: PearsonMapLoss("x"),
        "ickd": lambda: ChannelCorrelationLoss("x"),
        "kta_p1": lambda: NormalisedMapLoss("x", 1),
        "kta_p2": lambda: NormalisedMapLoss("x", 2),
        "affinity_f32acc": lambda: AffinityLoss("x"),
    }
    if case not in terms:
        return None
    made = on_features(terms[case](), "x")
    # the reference sums in a float32 buffer
    return Comparison(lambda s, t: made(s, t).float(), {"rtol": 1e-6}) if case.startswith("affinity") else made


@of_file("kdsvd")
def _(case, hp):
    return on_features(SingularVectorLoss(["a", "b"], hp["k"]), "a", "b") if "repdistiller" in case else None


@of_file("irg_hkd")
def _(case, hp):
    if case == "kdzoo":
        term = InstanceGraphLoss("a", "b", "c", hp["w_vert"], hp["w_edge"], hp["w_tran"])

        def loss(f1: Tensor, f2: Tensor, v: Tensor, logits: Tensor, *theirs: Tensor) -> Tensor:
            outputs = [ModelOutput(x[3], {"a": x[0], "b": x[1], "c": x[2]}) for x in ((f1, f2, v, logits), theirs)]
            return term(*outputs, None)

        return loss
    if case == "hkd_combined":
        terms = [on_features(KernelNeighbourhoodLoss("x"), "x") for _ in range(2)]
        # the reference computes a decayed weight for the second layer and does not use it
        return lambda vs, ls, vt, lt: 100 * terms[0](vs, vt) + terms[1](ls, lt)
    return on_features(KernelNeighbourhoodLoss("x", hp["kernel"], hp["loss"]), "x")


@of_file("itrd")
def _(case, hp):
    kind = CorrelationLoss("x", hp["alpha"]) if "alpha" in hp else MutualInformationLoss("x")
    kind.adapter = torch.nn.Linear(16, 24).double()
    kind.adapter.weight.data = array("itrd", "param/it.embed.linear.weight")
    kind.adapter.bias.data = array("itrd", "param/it.embed.linear.bias")
    names = {"it.embed.linear.weight": kind.adapter.weight, "it.embed.linear.bias": kind.adapter.bias}
    return Comparison(on_features(kind, "x"), {"parameters": names})


@of_file("dist_plus")
def _(case, hp):
    inter, intra = (on_logits(kind(hp["tau"])) for kind in (InterClassLoss, IntraClassLoss))
    channel, spatial = (
        on_features(kind("x"), "x") for kind in (ChannelCorrelationDistance, SpatialCorrelationDistance)
    )

    def loss(s: Tensor, fs: Tensor, t: Tensor, ft: Tensor) -> Tensor:
        total = hp["beta"] * inter(s, t) + hp["gamma"] * intra(s, t)
        # the reference adds the channels' correlation instead of its distance from 1
        return total + hp["iota"] * (1 - channel(fs, ft)) + hp["kappa"] * spatial(fs, ft)

    return Comparison(loss, {"rtol": 1e-6})  # eps of the cosine: clamped there, added here


@of_file("vkd")
def _(case, hp):
    name = case.removeprefix("vkd_")
    weight = array("vkd", f"param/{name}.parametrizations.weight.original")
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False).double()
    term = OrthogonalFeatureLoss("x")
    term.projector = torch.nn.utils.parametrizations.orthogonal(linear)
    state = {
        f"parametrizations.weight.{k}": array("vkd", f"param/{name}.parametrizations.weight.{k}")
        for k in ("original", "0.base")
    }
    term.projector.load_state_dict(state)
    names = {f"{name}.parametrizations.weight.original": term.projector.parametrizations.weight.original}
    return Comparison(weighted((hp["alpha"], on_features(term, "x"))), {"parameters": names})


@of_file("gaussian_kl")
def _(case, hp):
    term = GaussianDivergenceLoss("student||teacher" in hp["direction"], joint="joint" in case)
    return lambda m, v, mt, vt: term(ModelOutput(m, spread=v), ModelOutput(mt, spread=vt), None)


@of_file("hl_gauss")
def _(case, hp):
    sigma = hp.get("sigma") or hp["sigma_to_bin_ratio"] * (hp["max"] - hp["min"]) / hp["num_bins"]
    return _alone(HistogramLoss(hp["min"], hp["max"], hp["num_bins"], sigma, hp.get("clamp_to_range", False)))


@of_file("seed")
def _(case, hp):
    term = QueueSimilarityLoss(None, hp["temp"], hp["t"], hp["K"])

    def start() -> None:
        term.queue.rows = array("seed", "in/queue").T.contiguous()
        term.queue.place.zero_()

    def loss(*given: Tensor) -> Tensor:
        start()
        if len(given) == 5:
            return on_logits(term)(given[0], given[2]) + on_logits(term)(given[1], given[3])
        return on_logits(term)(*given[:2])

    return loss


@of_file("compress")
def _(case, hp):
    two = "one_queue" not in case
    term = QueueNeighbourhoodLoss(None, hp["T"], hp["queue"], two_queues=two)
    if "momentum" in case:
        term.eval()

    def loss(*given: Tensor) -> Tensor:
        term.queue.rows = array("compress", "in/mem_t")
        term.queue.place.fill_(hp.get("index", 0))
        if two:
            term.student_queue.rows = array("compress", "in/mem_s")
            term.student_queue.place.fill_(hp.get("index", 0))
        if "two_steps" in case:
            return on_logits_pair(term, given[0], given[2]) + on_logits_pair(term, given[1], given[3])
        return on_logits_pair(term, given[0], given[1])

    return loss


def on_logits_pair(term: Any, student: Tensor, teacher: Tensor) -> Tensor:
    return term(ModelOutput(student), ModelOutput(teacher), torch.full((len(student),), -1))


@of_file("dino")
def _(case, hp):
    def loss(s: Tensor, t: Tensor, *rest: Tensor) -> Tensor:
        crops = hp["ncrops"]
        term = CentredCrossViewLoss(
            hp["student_temp"], hp["teacher_temp"], hp["warmup_teacher_temp"], hp["warmup_teacher_temp_epochs"],
            hp["center_momentum"], teacher_views=2,
        )  # fmt: skip
        term.centre = array("dino", "in/center")
        epochs = hp.get("epochs") or [hp["epoch"]]
        answers = [t, *rest[:-1]]
        return sum(
            term.of_views(s.chunk(crops), answer.chunk(2), epoch) for answer, epoch in zip(answers, epochs, strict=True)
        )

    return loss


@of_file("lightly_distill")
def _(case, hp):
    if case.startswith("v2"):
        return lambda u, v: on_logits_pair(EmbeddingRegressionLoss(), u.flatten(0, 1), v.flatten(0, 1))
    if "step" in case:
        return _queue_step(hp["temperature"])
    # the inputs have unit length already; the reference differentiates without normalising them again
    term = TeacherQueueLoss(None, hp.get("temperature") or hp["temperature_global"], 4, normalise=False).eval()

    def loss(s: Tensor, *rest: Tensor) -> Tensor:
        sl, t, tl, queue = (None, rest[0], None, rest[1]) if len(rest) == 2 else rest
        term.queue.rows = queue
        total = on_logits(term)(s, t)
        if sl is not None:
            local = TokenSimilarityLoss("x", hp["temperature_local"], normalise=False)
            total = total + hp["loss_local_weight"] * on_features(local, "x")(sl, tl)
        return total

    return Comparison(loss, {"atol": 1e-12, "gradient": "queue0" not in case})


@of_file("crd")
def _(case, hp):
    def loss(
        s: Tensor, s_b: Tensor, t: Tensor, t_b: Tensor, idx: Tensor, idx_b: Tensor, c: Tensor, c_b: Tensor
    ) -> Tensor:
        term = ContrastiveLoss(hp["n_data"], None, hp["feat_dim"], hp["nce_k"], hp["nce_t"], hp["nce_m"])
        term.memory_student, term.memory_teacher = array("crd", "param/memory_v1"), array("crd", "param/memory_v2")
        term.constants = term.constants.double()
        for name, inside in (("s", 20), ("t", 24)):
            layer = torch.nn.Linear(inside, 16).double()
            layer.weight.data, layer.bias.data = (
                array("crd", f"param/embed_{name}.weight"),
                array("crd", f"param/embed_{name}.bias"),
            )
            setattr(term, "embed_student" if name == "s" else "embed_teacher", layer)
        first = term.against(ModelOutput(s), ModelOutput(t), idx, c)
        return first + term.against(ModelOutput(s_b), ModelOutput(t_b), idx_b, c_b)

    return loss


@of_file("sskd")
def _(case, hp):
    weights = hp["weights"]

    def loss(s: Tensor, ss: Tensor, t: Tensor, ts: Tensor, y: Tensor) -> Tensor:
        plain = torch.arange(len(s)) % 4 == 0  # the reference's batches hold the four views of each sample in a row
        outputs = [ModelOutput(x[plain], {"x": z[plain]}) for x, z in ((s, ss), (t, ts))]
        views = [tuple(ModelOutput(x[k::4], {"x": z[k::4]}) for x, z in ((s, ss), (t, ts))) for k in (1, 2, 3)]
        if weights[1]:
            return weights[1] * on_logits(SoftTargetLoss(hp["kl_temp"]))(s[plain], t[plain])
        if weights[2]:
            return weights[2] * ViewSimilarityLoss("x", hp["ss_temp"], hp["ss_ratio"])(*outputs, y, views=views)
        return weights[3] * ViewLogitLoss(hp["tf_temp"], hp["tf_ratio"])(*outputs, y, views=views)

    return loss


@of_file("mgd")
def _(case, hp):
    if case == "mmrazor":
        return None
    term = MaskedGenerationLoss("x", hp["lambda_mgd"])
    term.align = torch.nn.Conv2d(8, 12, 1).double()
    term.generation = torch.nn.Sequential(
        torch.nn.Conv2d(12, 12, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(12, 12, 3, padding=1)
    ).double()
    names = {}
    for module, prefix in (
        (term.align, "mgd.align"),
        (term.generation[0], "mgd.generation.0"),
        (term.generation[2], "mgd.generation.2"),
    ):
        for kind in ("weight", "bias"):
            getattr(module, kind).data = array("mgd", f"param/{prefix}.{kind}")
            names[f"{prefix}.{kind}"] = getattr(module, kind)

    def loss(fs: Tensor, ft: Tensor) -> Tensor:
        draw = array("mgd", "param/uniform_draw")
        with unittest.mock.patch("torch.rand", return_value=draw):
            return hp["alpha_mgd"] * on_features(term, "x")(fs, ft)

    return Comparison(loss, {"parameters": names})


@of_file("at")
def _(case, hp):
    taps = ["a", "b"][: len(entry("at", case)["student_inputs"])]
    form = "paper" if case == "torchdistill_paper" else "authors_code"
    return on_features(AttentionLoss(taps, hp.get("p", 2), form), *taps)


@of_file("sp")
def _(case, hp):
    taps = ["a", "b"][: len(entry("sp", case)["student_inputs"])]
    return None if case == "torchdistill_batchmean" else on_features(SimilarityLoss(taps), *taps)


@of_file("nst")
def _(case, hp):
    taps = ["a", "b"][: len(entry("nst", case)["student_inputs"])]
    return on_features(NeuronSelectivityLoss(taps), *taps)


@of_file("pkt")
def _(case, hp):
    return Comparison(on_features(NeighbourhoodLoss("x", hp["eps"]), "x"), {"gradient": "zero_row" not in case})


@of_file("rkd")
def _(case, hp):
    if case.startswith("mmrazor"):
        kind = AngleLoss if "angle" in case else DistanceLoss
        return weighted((hp["loss_weight"], on_features(kind("x", hp["with_l2_norm"]), "x")))
    parts = (hp["w_distance"], on_features(DistanceLoss("x"), "x")), (hp["w_angle"], on_features(AngleLoss("x"), "x"))
    total = weighted(*parts)
    if hp.get("reduction") == "sum":
        return lambda s, t: (
            hp["w_distance"] * parts[0][1](s, t) * len(s) ** 2 + hp["w_angle"] * parts[1][1](s, t) * len(s) ** 3
        )
    return total


@of_file("cc")
def _(case, hp):
    if case == "repdistiller":
        return on_features(CorrelationCongruenceLoss("x", kernel="none"), "x")
    return on_features(CorrelationCongruenceLoss("x", gamma=hp["gamma"], order=hp["P"]), "x")


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


def _queue_step(temperature: float) -> Loss:
    def loss(s: Tensor, t: Tensor, queue: Tensor) -> Tensor:
        term = TeacherQueueLoss(None, temperature, len(queue), normalise=False)
        term.queue.rows = queue
        term.queue.place.fill_(len(queue) - len(s))  # the reference's oldest rows are its last
        return on_logits(term)(s, t)

    return loss


@of_file("wsld")
def _(case, hp):
    return weighted((hp.get("alpha", 1.0), on_logits(WeightedSoftLabelLoss(hp.get("temp", hp.get("tau"))))))


@of_file("vid")
def _(case, hp):
    module, (inside, outside) = ("rep32", (8, 32)) if "mismatch" in case else ("rep", (8, 16))
    term = VariationalInformationLoss("x")
    example = [ModelOutput(torch.zeros(2, 2), {"x": torch.zeros(2, width, 4, 4)}) for width in (inside, outside)]
    term.prepare(*example)
    term = term.double()
    ours = dict(term.named_parameters())
    names = {f"{module}.{k.replace('mean.', 'regressor.').replace('scale', 'log_scale')}": p for k, p in ours.items()}
    for name, parameter in names.items():
        parameter.data.copy_(array("vid", f"param/{name}"))
    return Comparison(on_features(term, "x"), {"parameters": names if case == "repdistiller_hw_mismatch" else {}})


@of_file("reviewkd")
def _(case, hp):
    taps = ["a", "b", "c"]
    if case.endswith("_hcl") and "abf" not in case:
        return lambda *maps: sum(hierarchical_difference(maps[k], maps[k + 3]) for k in range(3))
    term = ReviewLoss(taps)
    outputs = [
        ModelOutput(
            torch.zeros(8, 2, dtype=torch.float64), {tap: array("reviewkd", f"in/{tap}_{role}") for tap in taps}
        )
        for role in "st"
    ]
    term.prepare(*outputs)
    term = term.double()
    for k, fusion in enumerate(term.fusions):
        fusion.load_state_dict({name: array("reviewkd", f"param/abf{k}.{name}") for name in fusion.state_dict()})
    return on_features(term, *taps)


@of_file("fitnet")
def _(case, hp):
    if case in ("mse", "mmrazor_l1"):
        return on_features(HintLoss("x", adapter=False, distance="absolute" if "l1" in case else "squared"), "x")
    vectors = "vec" in case
    term, module = HintLoss("x", relu=True), "rep_vec" if vectors else "rep_same_hw"
    example = [array("fitnet", f"in/{name}") for name in (("v_s", "v_t") if vectors else ("s1", "t1"))]
    term.prepare(*(ModelOutput(torch.zeros(8, 2), {"x": values}) for values in example))
    term = term.double()
    layers = {"0": "linear"} if vectors else {"0": "conv", "1": "bn"}
    state = {}
    for key in term.adapter.state_dict():
        number, kind = key.split(".")
        state[key] = array("fitnet", f"param/{module}.{layers[number]}.{kind}")
    term.adapter.load_state_dict(state)
    term.train(not case.endswith("eval"))
    return on_features(term, "x")


@of_file("simkd_srrl")
def _(case, hp):
    term = RegressedRepresentationLoss("x", hp["alpha"], hp["beta"])
    adapter = torch.nn.Sequential(
        torch.nn.Conv2d(8, 16, 1, bias=False), torch.nn.BatchNorm2d(16), torch.nn.ReLU()
    ).double()
    adapter.load_state_dict({k: array("simkd_srrl", f"param/srrl_ck.Connectors.{k}") for k in adapter.state_dict()})
    term.adapter = adapter
    term.weight, term.bias = (array("simkd_srrl", f"param/cls_t.{kind}") for kind in ("weight", "bias"))
    names = {f"srrl_ck.Connectors.{k}": p for k, p in adapter.named_parameters()}

    def loss(fs: Tensor, ft: Tensor, lt: Tensor) -> Tensor:
        return term(ModelOutput(lt, {"x": fs}), ModelOutput(lt, {"x": ft}), None)

    return Comparison(loss, {"parameters": names})


@of_file("semckd")
def _(case, hp):
    term = SemanticLinkLoss(["a", "b"], ["t"], 8, factor=2, temperature=hp["soft"])
    example = {"a": array("semckd", "in/s1"), "b": array("semckd", "in/s3"), "t": array("semckd", "in/t1")}
    output = ModelOutput(torch.zeros(8, 2, dtype=torch.float64), example)
    term.prepare(output, output)
    term = term.double()
    names = {}
    for k in range(2):
        state = {key: array("semckd", f"param/simkd_selfa.regressor{k}0.regressor.{key}") for key in _semckd_keys()}
        full = term.adapters[k].state_dict()
        full.update(state)
        term.adapters[k].load_state_dict(full)
    for net, name in ((term.queries[0], "query_0"), (term.queries[1], "query_1"), (term.keys[0], "key_0")):
        for number, layer in ((0, "linear1"), (2, "linear2")):
            for kind in ("weight", "bias"):
                getattr(net[number], kind).data = array("semckd", f"param/simkd_selfa.{name}.{layer}.{kind}")

    def loss(s1: Tensor, s3: Tensor, t1: Tensor) -> Tensor:
        student = ModelOutput(torch.zeros(8, 2), {"a": s1, "b": s3})
        return term(student, ModelOutput(torch.zeros(8, 2), {"t": t1}), None)

    return Comparison(loss, {"parameters": names})


def _semckd_keys() -> list[str]:
    return [f"{n}.weight" for n in (0, 3, 6)] + [f"{n}.{kind}" for n in (1, 4) for kind in ("weight", "bias")]
