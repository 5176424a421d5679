"""Teachers that cluster: what they answer, how soft, and that no label is read."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score

from kd_lightning.batch import Batch
from kd_lightning.data.array_data import ArrayData
from kd_lightning.data.module import DistillationDataModule
from kd_lightning.errors import UserError
from kd_lightning.teachers.clusterer import ClusteringTeacher, calibrated, mean_entropy
from kd_lightning.teachers.kind import TeacherContext

KINDS = {
    "kmeans": {"_target_": "sklearn.cluster.KMeans", "n_clusters": 3, "n_init": 2, "random_state": 0},
    "gmm": {"_target_": "sklearn.mixture.GaussianMixture", "n_components": 3, "random_state": 0},
    "spectral": {
        "_target_": "sklearn.cluster.SpectralClustering", "n_clusters": 3, "affinity": "nearest_neighbors",
        "random_state": 0,
    },
    "agglomerative": {"_target_": "sklearn.cluster.AgglomerativeClustering", "n_clusters": 3},
}  # fmt: skip


class Blobs(DistillationDataModule):
    """Three groups of points that touch."""

    num_classes = 3

    def train_data(self):
        random = torch.Generator().manual_seed(0)
        target = torch.randint(3, (240,), generator=random)
        centres = torch.tensor([[0.0, 0, 0, 0], [4, 0, 0, 0], [0, 4, 0, 0]])
        return centres[target] + torch.randn(240, 4, generator=random), target

    def array(self, values, targets, name, augment=None):
        return ArrayData(values, targets, name=name)


@pytest.fixture(scope="module")
def data():
    made = Blobs(val_size=60)
    made.setup("fit")
    return made


SEEN: list = []


class Spied(KMeans):
    """Keeps what it was shown."""

    def fit(self, rows, y=None, sample_weight=None):
        SEEN.append((rows.shape, y))
        return super().fit(rows)


def context(data, **task) -> TeacherContext:
    task = {"_target_": "kd_lightning.tasks.clustering.ClusteringTask", **task}
    return TeacherContext({"teacher": {"name": "mine"}, "task": task}, data, frozenset(), lambda spec: {})


def batch_of(data, split: str) -> Batch:
    samples = data._train if split == "train" else data._val
    index = torch.arange(len(samples))
    return Batch(*samples.read(index, 0), index, 0, split)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_clusterer_answers_for_samples_that_it_has_not_seen(kind, data):
    teacher = ClusteringTeacher(KINDS[kind]).make(context(data))
    for split in ("train", "val"):
        batch = batch_of(data, split)
        logits = teacher(batch).logits
        assert logits.shape == (len(batch.target), 3)
        assert logits.dtype == torch.float32
        assert normalized_mutual_info_score(batch.target, logits.argmax(1)) > 0.6
    teacher.verify()
    assert teacher.describe()["parameters"] > 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_entropy_of_soft_assignments_is_the_wanted_share(kind, data):
    for share in (0.05, 0.15, 0.5):
        teacher = ClusteringTeacher(KINDS[kind], entropy=share).make(context(data))
        found = mean_entropy(teacher(batch_of(data, "train")).logits)
        assert found == pytest.approx(share * math.log(3), rel=1e-3)


def test_the_calibrated_temperature_by_another_route():
    scores = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 6)) * 40)
    found = calibrated(scores, 0.15)
    grid = np.exp(np.linspace(np.log(0.1), np.log(1000), 20001))
    near = grid[(grid > 0.8 * found) & (grid < 1.25 * found)]
    best = min(near, key=lambda t: abs(mean_entropy(scores / t) - 0.15 * math.log(6)))
    assert found == pytest.approx(best, rel=1e-3)
    assert calibrated(1000 * scores, 0.15) == pytest.approx(1000 * found, rel=1e-6)  # the scale means nothing


def test_the_numbers_are_those_of_the_estimator(data):
    teacher = ClusteringTeacher(KINDS["kmeans"]).make(context(data))
    batch = batch_of(data, "train")
    mine = KMeans(n_clusters=3, n_init=2, random_state=0).fit(batch.inputs.numpy())
    assert teacher(batch).logits.argmax(1).tolist() == mine.predict(batch.inputs.numpy()).tolist()


def test_a_teacher_that_clusters_reads_no_label(data):
    SEEN.clear()
    ClusteringTeacher({"_target_": f"{__name__}.Spied"}).make(context(data))
    assert SEEN == [((180, 4), None)]


def test_there_are_as_many_clusters_as_classes_and_a_line_where_there_are_none(data):
    auto = {**KINDS["kmeans"]}
    del auto["n_clusters"]
    assert ClusteringTeacher(auto, clusters=5).make(context(data))(batch_of(data, "val")).logits.shape[1] == 5
    assert ClusteringTeacher(auto).make(context(data))(batch_of(data, "val")).logits.shape[1] == 3

    assert ClusteringTeacher(auto).make(context(data, clusters=4))(batch_of(data, "val")).logits.shape[1] == 4
    with pytest.raises(UserError, match=r"^teacher.clusters=5, and task.clusters=4: give the number once"):
        ClusteringTeacher(auto, clusters=5).make(context(data, clusters=4))

    class Unknown(Blobs):
        num_classes = None

    unknown = Unknown(val_size=60)
    unknown.setup("fit")
    with pytest.raises(UserError, match=r"^teacher.clusters: the data has no classes to count: give the number"):
        ClusteringTeacher(auto).make(context(unknown))


def test_components_and_fewer_samples_are_what_is_clustered(data):
    teacher = ClusteringTeacher(KINDS["kmeans"], components=2, fit_samples=100).make(context(data))
    batch = batch_of(data, "train")
    rows = teacher.features(batch)
    assert rows.shape == (180, 2)
    variance = torch.from_numpy(np.linalg.eigvalsh(np.cov(batch.inputs[:100].numpy().T)))
    assert rows[:100].var(0).sum() == pytest.approx(float(variance[-2:].sum()), rel=1e-4)


def test_an_encoders_layer_is_clustered(data):
    node = {"model": {"_target_": "kd_lightning.models.mlp.MLP", "hidden": [8], "in_features": 4, "num_classes": 5}}
    teacher = ClusteringTeacher(KINDS["kmeans"], encoder=node, layer="hidden").make(context(data))
    assert teacher(batch_of(data, "val")).logits.shape == (60, 3)
    assert teacher.features(batch_of(data, "val")).shape == (60, 8)
    assert "encoder" in teacher.cache_parts()
    by_output = ClusteringTeacher(KINDS["kmeans"], encoder=node).make(context(data))
    assert by_output.features(batch_of(data, "val")).shape == (60, 5)


def test_a_teacher_whose_clusters_moved_is_told(data):
    teacher = ClusteringTeacher(KINDS["kmeans"]).make(context(data))
    teacher.scores.centres += 1
    with pytest.raises(RuntimeError, match="its clusters moved"):
        teacher.verify()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"entropy": 1.5}, r"teacher\.entropy must be a share of ln K between 0 and 1"),
        ({"clusters": 4}, r"teacher\.clusters=4: sklearn.cluster.KMeans has clusterer.n_clusters=3 already"),
        ({"neighbours": 0}, r"teacher\.neighbours must be >= 1"),
        ({"layer": "hidden"}, r"teacher\.layer=hidden: names a layer of teacher\.encoder"),
        ({"components": 9}, r"teacher\.components=9 is more than 180 samples of 4 values have"),
        ({"clusterer": {"_target_": "torch.nn.ReLU"}}, r"ReLU is no clusterer: it has no fit"),
        ({"clusterer": {**KINDS["kmeans"], "n_clusters": 1000}}, r"teacher\.clusterer: fails on 180 samples"),
    ],
)
def test_what_cannot_be_is_one_line(settings, words, data):
    with pytest.raises(UserError, match=words) as raised:
        ClusteringTeacher(**{"clusterer": KINDS["kmeans"], **settings}).make(context(data))
    assert "\n" not in str(raised.value)
