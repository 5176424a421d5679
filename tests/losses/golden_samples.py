"""Which class and arguments each reference case is: relations, embeddings, values."""

from __future__ import annotations

from typing import Any

import torch
from golden_cases import array, entry, on_features, on_logits
from golden_table import Comparison, Loss, alone, of_file, weighted
from torch import Tensor

from kd_lightning.losses.compress import QueueNeighbourhoodLoss
from kd_lightning.losses.contrastive import ContrastiveLoss
from kd_lightning.losses.correlation_congruence import CorrelationCongruenceLoss
from kd_lightning.losses.embedding_regression import EmbeddingRegressionLoss, TeacherQueueLoss, TokenSimilarityLoss
from kd_lightning.losses.gaussian import GaussianDivergenceLoss, HistogramLoss
from kd_lightning.losses.information import CorrelationLoss, MutualInformationLoss
from kd_lightning.losses.instance_graph import InstanceGraphLoss
from kd_lightning.losses.pkt import NeighbourhoodLoss
from kd_lightning.losses.probabilistic_kernels import KernelNeighbourhoodLoss
from kd_lightning.losses.relational import AngleLoss, DistanceLoss
from kd_lightning.losses.seed import QueueSimilarityLoss
from kd_lightning.losses.self_distillation import CentredCrossViewLoss
from kd_lightning.losses.self_supervised import ViewLogitLoss, ViewSimilarityLoss
from kd_lightning.losses.similarity import SimilarityLoss
from kd_lightning.losses.soft_target import SoftTargetLoss
from kd_lightning.outputs import ModelOutput


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


@of_file("gaussian_kl")
def _(case, hp):
    term = GaussianDivergenceLoss("student||teacher" in hp["direction"], joint="joint" in case)
    return lambda m, v, mt, vt: term(ModelOutput(m, spread=v), ModelOutput(mt, spread=vt), None)


@of_file("hl_gauss")
def _(case, hp):
    sigma = hp.get("sigma") or hp["sigma_to_bin_ratio"] * (hp["max"] - hp["min"]) / hp["num_bins"]
    return alone(HistogramLoss(hp["min"], hp["max"], hp["num_bins"], sigma, hp.get("clamp_to_range", False)))


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


@of_file("sp")
def _(case, hp):
    taps = ["a", "b"][: len(entry("sp", case)["student_inputs"])]
    return None if case == "torchdistill_batchmean" else on_features(SimilarityLoss(taps), *taps)


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


def on_logits_pair(term: Any, student: Tensor, teacher: Tensor) -> Tensor:
    return term(ModelOutput(student), ModelOutput(teacher), torch.full((len(student),), -1))


def _queue_step(temperature: float) -> Loss:
    def loss(s: Tensor, t: Tensor, queue: Tensor) -> Tensor:
        term = TeacherQueueLoss(None, temperature, len(queue), normalise=False)
        term.queue.rows = queue
        term.queue.place.fill_(len(queue) - len(s))  # the reference's oldest rows are its last
        return on_logits(term)(s, t)

    return loss
