"""Which class and arguments each reference case is: what is more than one loss, and forms that only some codes have."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatch
from typing import Any

import golden_logits  # noqa: F401  (these fill the table before)
import golden_logits_more  # noqa: F401
import golden_maps  # noqa: F401
import golden_samples  # noqa: F401
import torch
import torch.nn.functional as F
from golden_cases import array, entry, on_features, on_logits
from golden_table import FILES, Comparison, Loss, of_file, weighted
from torch import Tensor

from kd_lightning.joints import Clock
from kd_lightning.losses.adaptive_target import AdaptiveTargetLoss
from kd_lightning.losses.attention import AttentionLoss
from kd_lightning.losses.class_activation import ClassActivationLoss
from kd_lightning.losses.correlation_congruence import CorrelationCongruenceLoss
from kd_lightning.losses.dist import InterClassLoss, IntraClassLoss
from kd_lightning.losses.factor_transfer import FactorTransferLoss
from kd_lightning.losses.flow import FlowLoss
from kd_lightning.losses.hint import HintLoss
from kd_lightning.losses.learned_temperature import LearnedTemperatureLoss, decayed
from kd_lightning.losses.projected_feature import ProjectedFeatureLoss
from kd_lightning.losses.regional import RegionalLoss
from kd_lightning.losses.similarity import SimilarityLoss
from kd_lightning.losses.singular_vectors import SingularVectorLoss
from kd_lightning.losses.stage_heads import StageHeadLoss
from kd_lightning.losses.wasserstein import WassersteinFeatureLoss
from kd_lightning.models.teacher_classifier import projector
from kd_lightning.outputs import ModelOutput

Made = Loss | Comparison | None


def variant(pattern: str) -> Callable:
    """Register a function for the cases of a file that fit ``file/case``; the others stay as they are."""
    file, _, cases = pattern.partition("/")

    def register(function: Callable[[str, dict[str, Any]], Made]) -> Callable:
        before = FILES.get(file)

        def either(case: str, hp: dict[str, Any]) -> Made:
            chosen = function if fnmatch(case, cases) else before
            return chosen(case, hp) if chosen is not None else None

        return of_file(file)(either)

    return register


def _filled(module: torch.nn.Module, file: str, prefix: str, names: dict[str, str]) -> dict[str, torch.nn.Parameter]:
    """Fill a module with a reference's stored parameters, ``names`` its names for our layers; by the reference's names."""
    stored = {}
    for key in module.state_dict():
        layer, _, kind = key.rpartition(".")
        stored[key] = f"{prefix}{names.get(layer, layer)}.{kind}"
    module.double().load_state_dict({key: array(file, f"param/{name}") for key, name in stored.items()})
    return {stored[key]: parameter for key, parameter in module.named_parameters()}


@variant("simkd_srrl/simkd*")
def _(case, hp):
    added, term = projector(8, 16, hp.get("factor", 2)), ProjectedFeatureLoss("x")
    names = _filled(added, "simkd_srrl", "simkd.transfer.", {})
    weight, bias = (array("simkd_srrl", f"param/cls_t.{kind}") for kind in ("weight", "bias"))

    def loss(fs: Tensor, ft: Tensor) -> Tensor:
        projected = added(fs)
        logits = F.linear(projected.mean(dim=(2, 3)), weight, bias)
        torch.testing.assert_close(logits, array("simkd_srrl", f"{case}/out.pred"))
        return term(ModelOutput(logits, {"x": projected}), ModelOutput(logits, {"x": ft}), None)

    return Comparison(loss, {"parameters": names})


@variant("ofa/ofa_method*")
def _(case, hp):
    taps = [f"feat{k}" for k in hp["ofa_stage"]]
    term = StageHeadLoss(taps, hp["ofa_eps"][:-1], hp["temperature"], width=12)
    example = ModelOutput(torch.zeros(8, 10), {tap: array("ofa", f"in/{tap}") for tap in taps})
    term.prepare(example, example)
    names = {}
    for stage, head in zip(hp["ofa_stage"], term.heads, strict=True):
        blocks = len(head) - 3
        layers = {f"{k}.{i}": f"{k}.op.{i}" for k in range(blocks) for i in range(8)}
        names |= _filled(head, "ofa", f"projector.{stage}.", layers)
    last = AdaptiveTargetLoss(hp["ofa_eps"][-1], hp["temperature"])

    def loss(s: Tensor, *rest: Tensor) -> Tensor:
        *features, t, y = rest
        student = ModelOutput(s, dict(zip(taps, features, strict=True)))
        total = hp["gt_loss_weight"] * F.cross_entropy(s, y)
        total = total + hp["kd_loss_weight"] * last(student, ModelOutput(t), y)
        return total + hp["ofa_loss_weight"] * term(student, ModelOutput(t), y)

    return Comparison(loss, {"parameters": names})


@variant("dist/torchdistill_*")
def _(case, hp):
    terms = [kind(hp["tau"], epsilon_on="norms") for kind in (InterClassLoss, IntraClassLoss)]
    return weighted((hp["beta"], on_logits(terms[0])), (hp["gamma"], on_logits(terms[1])))


@variant("at/repdistiller_p1")
def _(case, hp):
    return on_features(AttentionLoss(["a", "b"], hp["p"], signed=True), "a", "b")


@variant("at/kdzoo_*")
def _(case, hp):
    return on_features(AttentionLoss(["a"], hp["p"], epsilon=1e-6), "a")


@variant("sp/torchdistill_batchmean")
def _(case, hp):
    return on_features(SimilarityLoss(["a"], row_norm=1), "a")


@variant("cc/torchdistill_*")
def _(case, hp):
    term = CorrelationCongruenceLoss("x", hp["gamma"], hp["max_p"], normalise=False, form="norm")
    return on_features(term, "x")


@variant("fsp/torchdistill_pair")
def _(case, hp):
    return on_features(FlowLoss(["a", "b"], form="column_norms"), "a", "b")


@variant("ft/torchdistill_p2_*")
def _(case, hp):
    term = on_features(FactorTransferLoss("x", p=2, paraphraser_epochs=0, form="norm"), "x")
    return (lambda s, t: term(s, t) * len(s)) if hp["reduction"] == "sum" else term


@variant("fitnet/*2")
def _(case, hp):
    module = "rep_down2" if "down" in case else "rep_up2"
    term = HintLoss("x", relu=True, resize="learned")
    inputs = entry("fitnet", case)
    given = [array("fitnet", f"in/{name}") for name in (*inputs["student_inputs"], *inputs["other_inputs"])]
    term.prepare(*(ModelOutput(torch.zeros(8, 2), {"x": values}) for values in given))
    names = _filled(term.adapter, "fitnet", f"{module}.", {"0": "conv", "1": "bn"})
    return Comparison(on_features(term.double(), "x"), {"parameters": names if "repdistiller" in case else {}})


@variant("wkd/wkdf_bottleneck_*")
def _(case, hp):
    term = WassersteinFeatureLoss("x", hp["grid"], hp["mean_cov_ratio"], hp["eps"], bottleneck=5)
    given = [array("wkd", f"in/{name}") for name in ("fp", "ft")]
    term.prepare(*(ModelOutput(torch.zeros(4, 2), {"x": values}) for values in given))
    layers = {"0": "conv1", "1": "conv2", "2": "conv3", "3": "bn"}
    names = _filled(term.adapter, "wkd", "bottleneck.", layers)
    del names["bottleneck.conv3.bias"]  # BatchNorm takes the mean away, and the bias with it
    return Comparison(on_features(term.double(), "x"), {"parameters": names})


@variant("catkd/method_partial_top3")
def _(case, hp):
    term = ClassActivationLoss("x", top_k=hp["n"] - 1)  # the code keeps one class less than it says

    def loss(s: Tensor, ls: Tensor, t: Tensor, lt: Tensor, y: Tensor) -> Tensor:
        cat = term(ModelOutput(ls, {"x": s}), ModelOutput(lt, {"x": t}), y)
        return 400.0 * cat  # of this case the labels are no part

    return loss


@variant("ctkd/ctkd_dkd_*")
def _(case, hp):
    term = LearnedTemperatureLoss(
        hp["t_start"], hp["t_end"], hp["decay_loops"], first=hp["decay_max"], last=hp["decay_min"],
        decoupled=(hp["alpha"], hp["beta"]),
    ).double()  # fmt: skip
    clock = Clock(hp["epoch"] - 1, 0, 1, 1)

    def loss(s: Tensor, t: Tensor, y: Tensor) -> Tensor:
        term.value.data.copy_(array("ctkd", "param/temp.global_T"))
        value = term(ModelOutput(s), ModelOutput(t), y, clock=clock)
        (found,) = torch.autograd.grad(value, term.value, retain_graph=True)
        expected = array("ctkd", f"{case}/out.grad_global_T_fd")
        torch.testing.assert_close(found.squeeze(), expected.squeeze(), rtol=1e-5, atol=1e-9)
        return value

    return loss


@variant("ctkd/schedule_*")
def _(case, hp):
    def loss() -> Tensor:
        epochs = array("ctkd", f"{case}/out.epochs").tolist()
        values = [decayed(int(e), hp["max"], hp["min"], hp["loops"], case.split("_")[1]) for e in epochs]
        torch.testing.assert_close(torch.tensor(values, dtype=torch.float64), array("ctkd", f"{case}/out.values"))
        return torch.tensor(sum(values), dtype=torch.float64)

    return Comparison(loss, {"gradient": False})


@variant("sdd/sdd_nkd_*")
def _(case, hp):
    return RegionalLoss("x", hp["T"], gamma=hp["gamma"], form="authors_code").of_regions


@variant("kdsvd/mdistiller_*")
def _(case, hp):
    term = on_features(SingularVectorLoss(["a", "b"], hp["k"], form="rows"), "a", "b")
    return Comparison(lambda *maps: term(*maps).float(), {"rtol": 1e-4})  # the reference decomposes in float32
