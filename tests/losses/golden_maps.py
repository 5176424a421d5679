"""Which class and arguments each reference case is: features of one sample."""

from __future__ import annotations

import unittest.mock

import torch
import torch.nn.functional as F
from golden_cases import array, entry, on_features, on_logits
from golden_table import Comparison, of_file, weighted
from torch import Tensor

from kd_lightning.losses.activation_boundary import ActivationBoundaryLoss
from kd_lightning.losses.attention import AttentionLoss
from kd_lightning.losses.attention_linking import SemanticLinkLoss
from kd_lightning.losses.channel_correlation import AffinityLoss, ChannelCorrelationLoss, NormalisedMapLoss
from kd_lightning.losses.channel_wise import ChannelWiseLoss
from kd_lightning.losses.class_activation import ClassActivationLoss
from kd_lightning.losses.dist import InterClassLoss, IntraClassLoss
from kd_lightning.losses.dist_plus import ChannelCorrelationDistance, SpatialCorrelationDistance
from kd_lightning.losses.factor_transfer import FactorTransferLoss, Paraphraser
from kd_lightning.losses.flow import FlowLoss
from kd_lightning.losses.hint import HintLoss
from kd_lightning.losses.masked_generation import MaskedGenerationLoss
from kd_lightning.losses.neuron_selectivity import NeuronSelectivityLoss
from kd_lightning.losses.orthogonal import OrthogonalFeatureLoss
from kd_lightning.losses.overhaul import OverhaulLoss, partial_distance
from kd_lightning.losses.regressed_representation import RegressedRepresentationLoss
from kd_lightning.losses.review import ReviewLoss, hierarchical_difference
from kd_lightning.losses.singular_vectors import SingularVectorLoss
from kd_lightning.losses.standardised_maps import PearsonMapLoss
from kd_lightning.losses.vid import VariationalInformationLoss
from kd_lightning.outputs import ModelOutput


@of_file("catkd")
def _(case, hp):
    if case.startswith("method_partial"):
        return None
    if case.startswith("cat_"):
        return on_features(ClassActivationLoss("x", hp["CAM_RESOLUTION"], hp["IF_NORMALIZE"]), "x")
    term = on_features(ClassActivationLoss("x", 2, hp.get("norm", True), binarise=hp.get("bin", False)), "x")
    weight = hp.get("w", 400.0)
    return lambda s, ls, t, lt, y: F.cross_entropy(ls, y) + weight * term(s, t)


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
    if case == "mmrazor":  # the margin is in the teacher's map already
        nothing = torch.full((), -torch.inf, dtype=torch.float64)
        return lambda s, t: partial_distance(_tiled(s, t), t, nothing).sum() / len(s) / hp["mul_factor"]
    term = OverhaulLoss(["x"], adapter=False).eval()
    term.mean, term.deviation = array("ofd", "param/bn.bias"), array("ofd", "param/bn.weight")
    if "connector" not in case:
        loss, names = (lambda s, t: on_features(term, "x")(0.9 * t + _tiled(s, t), t)), {}
    else:
        adapter = torch.nn.Sequential(torch.nn.Conv2d(8, 16, 1, bias=False), torch.nn.BatchNorm2d(16)).double()
        adapter[0].weight.data = array("ofd", "param/conn.connectors.0.0.weight")
        for kind in ("weight", "bias"):
            getattr(adapter[1], kind).data = array("ofd", f"param/conn.connectors.0.1.{kind}")
        term.adapters = torch.nn.ModuleList([adapter])
        names = {"conn.connectors.0.0.weight": adapter[0].weight, "conn.connectors.0.1.bias": adapter[1].bias}
        loss = on_features(term, "x")
    return Comparison(loss, {"parameters": names, "rtol": 1e-6})  # the reference's margins are in float32


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


@of_file("nst")
def _(case, hp):
    taps = ["a", "b"][: len(entry("nst", case)["student_inputs"])]
    return on_features(NeuronSelectivityLoss(taps), *taps)


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


@of_file("kdsvd")
def _(case, hp):
    return on_features(SingularVectorLoss(["a", "b"], hp["k"]), "a", "b") if "repdistiller" in case else None


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


def _paraphraser_names() -> list[str]:
    return [f"{half}.{i}.{kind}" for half in ("encoder", "decoder") for i in (0, 3, 6) for kind in ("weight", "bias")]


def _tiled(s: Tensor, t: Tensor) -> Tensor:
    return s.repeat(1, t.shape[1] // s.shape[1], 1, 1)


def _semckd_keys() -> list[str]:
    return [f"{n}.weight" for n in (0, 3, 6)] + [f"{n}.{kind}" for n in (1, 4) for kind in ("weight", "bias")]
