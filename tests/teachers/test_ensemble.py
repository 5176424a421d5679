from __future__ import annotations

import pytest
import torch
from torch import nn

from kd_lightning.batch import Batch
from kd_lightning.errors import UserError
from kd_lightning.joints import FEATURES, Teacher
from kd_lightning.outputs import ModelOutput
from kd_lightning.teachers.ensemble import Ensemble, EnsembleTeacher, draws
from kd_lightning.teachers.frozen import FrozenTeacher


def members(count: int = 3) -> dict[str, FrozenTeacher]:
    made = {}
    for number in range(count):
        torch.manual_seed(number)
        made[f"m{number}"] = FrozenTeacher(nn.Linear(4, 5), name=f"m{number}")
    return made


def ensemble(combine: str = "logits", weights=(0.5, 0.25, 0.25), seed: int = 0) -> Ensemble:
    teachers = members()
    return Ensemble(teachers, combine, dict(zip(teachers, weights, strict=True)), "m0", seed)


def batch(index: torch.Tensor, view: int = 0, split: str = "train") -> Batch:
    inputs = torch.stack([torch.full((4,), float(i)) for i in index.tolist()])
    return Batch(inputs, None, index, view, split)


def test_it_is_a_teacher():
    assert isinstance(ensemble(), Teacher)


@pytest.mark.parametrize("combine", ["logits", "probabilities"])
def test_the_mean_is_weighted(combine):
    asked = batch(torch.arange(6))
    answers = [member(asked).logits for member in members().values()]
    weights = (0.5, 0.25, 0.25)
    if combine == "logits":
        expected = sum(w * z for w, z in zip(weights, answers, strict=True))
    else:
        expected = sum(w * z.softmax(1) for w, z in zip(weights, answers, strict=True)).log()
    torch.testing.assert_close(ensemble(combine)(asked).logits, expected)


def test_a_draw_is_a_function_of_seed_view_and_position_whatever_batch_a_sample_is_in():
    teacher = ensemble("draw")
    whole = teacher(batch(torch.arange(64))).logits
    shuffled = torch.randperm(64)
    assert torch.equal(teacher(batch(shuffled)).logits, whole[shuffled])
    assert torch.equal(ensemble("draw")(batch(torch.arange(64))).logits, whole)
    assert not torch.equal(ensemble("draw", seed=1)(batch(torch.arange(64))).logits, whole)
    assert not torch.equal(teacher(batch(torch.arange(64), view=1)).logits, whole)


def test_each_training_sample_is_answered_by_one_member_as_often_as_its_weight_says():
    asked = batch(torch.arange(2000))
    answer = ensemble("draw")(asked).logits
    shares = [float((member(asked).logits == answer).all(1).float().mean()) for member in members().values()]
    assert sum(shares) == pytest.approx(1)
    assert shares == pytest.approx([0.5, 0.25, 0.25], abs=0.03)


def test_draws_are_even_and_differ_between_views_and_seeds():
    numbers = draws(torch.arange(20000), 0, 0)
    counts = torch.histc(numbers.float(), 10, 0, 1)
    assert float(counts.min()) > 1800
    assert float(counts.max()) < 2200
    for view, seed in ((1, 0), (0, 1)):
        other = draws(torch.arange(20000), view, seed)
        assert abs(float(torch.corrcoef(torch.stack([numbers, other]))[0, 1])) < 0.03


def test_evaluation_gets_the_mean_of_probabilities_also_where_training_draws():
    asked = batch(torch.arange(6), split="val")
    torch.testing.assert_close(ensemble("draw")(asked).logits, ensemble("probabilities")(asked).logits)


def test_a_draw_without_positions_is_one_line():
    with pytest.raises(UserError, match="index"):
        ensemble("draw")(batch(torch.arange(3))._replace(index=None))


def test_everything_that_its_answers_depend_on_is_part_of_its_key():
    keys = [ensemble().cache_parts(), ensemble("probabilities").cache_parts(), ensemble("draw").cache_parts()]
    keys += [ensemble("draw", seed=1).cache_parts(), ensemble(weights=(0.25, 0.5, 0.25)).cache_parts()]
    assert len({str(key) for key in keys}) == len(keys)


def test_members_of_other_classes_leave_the_features_of_the_named_one():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 7))
    other = FrozenTeacher(model, taps={"0": "0"}, provides=frozenset({FEATURES}))
    teacher = Ensemble({"a": FrozenTeacher(nn.Linear(4, 5)), "b": other}, "logits", {"a": 0.5, "b": 0.5}, "b")
    assert teacher.provides == {FEATURES}
    assert teacher(batch(torch.arange(3))).features["0"].shape == (3, 3)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"members": {}}, "at least one member"),
        ({"features": "c"}, "no member 'c'"),
        ({"weights": {"c": 1}}, "teacher.weights.c"),
        ({"weights": {"a": 0, "b": 0}}, "above 0"),
        ({"weights": {"a": -1, "b": 2}}, ">= 0"),
    ],
)
def test_what_cannot_be_meant_of_an_ensemble_names_the_key(settings, words):
    node = {"model": {"_target_": "torch.nn.Linear"}}
    with pytest.raises(UserError, match=words):
        EnsembleTeacher(**{"members": {"a": node, "b": node}, **settings})


def gaussians(*moments):
    """Teachers that answer with one Gaussian each, whatever they are shown."""

    def answering(mean, variance):
        def read(output):
            spread = torch.full_like(output.logits, variance).log()
            return ModelOutput(torch.full_like(output.logits, mean), spread=spread)

        return FrozenTeacher(nn.Linear(4, 1), read=read)

    return {f"m{k}": answering(*moment) for k, moment in enumerate(moments)}


def test_gaussians_are_a_mixture_whose_spread_counts_how_far_they_are_apart():
    ensemble = Ensemble(gaussians((1.0, 0.5), (3.0, 2.0)), "logits", {"m0": 0.25, "m1": 0.75}, "m0", values=True)
    answer = ensemble(Batch(torch.zeros(2, 4), torch.zeros(2)))
    mean = 0.25 * 1 + 0.75 * 3
    variance = 0.25 * (0.5 + 1) + 0.75 * (2 + 9) - mean**2
    assert answer.logits.flatten().tolist() == pytest.approx([mean, mean])
    assert answer.spread.exp().flatten().tolist() == pytest.approx([variance, variance])


def test_values_are_averaged_in_evaluation_where_training_draws():
    ensemble = Ensemble(gaussians((1.0, 0.5), (3.0, 2.0)), "draw", {"m0": 0.5, "m1": 0.5}, "m0", values=True)
    inputs = torch.zeros(8, 4)
    assert ensemble(Batch(inputs, inputs[:, 0], torch.arange(8), 0, "val")).logits.flatten().tolist() == [2.0] * 8
    drawn = ensemble(Batch(inputs, inputs[:, 0], torch.arange(8), 0, "train"))
    pairs = {
        (mean, round(spread, 4))
        for mean, spread in zip(drawn.logits[:, 0].tolist(), drawn.spread.exp()[:, 0].tolist(), strict=True)
    }
    assert pairs == {(1.0, 0.5), (3.0, 2.0)}


def test_by_confidence_whoever_is_nearer_the_label_counts_more():
    asked = batch(torch.arange(6))._replace(target=torch.tensor([0, 1, 2, 3, 4, -1]))
    logs = torch.stack([member(asked).logits.log_softmax(1) for member in members().values()])
    found = ensemble("confidence", weights=(1 / 3, 1 / 3, 1 / 3))(asked).logits
    torch.testing.assert_close(found.exp().sum(1), torch.ones(6))
    entropy = -(logs.exp() * logs).sum(2)
    doubt = torch.stack([-logs[:, i, y] if y >= 0 else entropy[:, i] for i, y in enumerate(asked.target.tolist())], 1)
    shares = (1 - doubt.exp() / doubt.exp().sum(0)) / 2  # they sum to M - 1
    torch.testing.assert_close(found.exp(), (shares[:, :, None] * logs.exp()).sum(0))
    evaluated = ensemble("confidence")(asked._replace(split="val")).logits
    torch.testing.assert_close(evaluated, ensemble("probabilities")(asked).logits)
