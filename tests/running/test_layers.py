"""kd-layers: the layers of both models and which of them go together."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kd_lightning.batch import Batch
from kd_lightning.cli.layers import main
from kd_lightning.models.small_vit import SmallViT
from kd_lightning.running.layers import Layer, layers_lines, layers_of, proposed_taps, taps_lines

BATCH = Batch(torch.zeros(2, 1, 8, 8), torch.zeros(2).long())


def network(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(width, width, 3, padding=1), nn.Flatten(),
        nn.Linear(width * 16, 5 * width), nn.ReLU(), nn.Linear(5 * width, 3),
    )  # fmt: skip


def test_layers_have_names_outputs_and_parameters():
    layers = {layer.name: layer for layer in layers_of(network(4).train(), BATCH)}
    assert layers["0"].shape == (4, 8, 8)
    assert layers["0"].parameters == 4 * 9 + 4
    assert layers["5"].shape == (20,)


def test_tokens_go_with_maps_of_their_square_and_not_with_each_other_where_there_are_none():
    transformer = layers_of(SmallViT(patch=2, width=8, depth=2, heads=2, num_classes=3, image_size=8), BATCH)
    teacher = layers_of(network(16), BATCH)
    assert [(mine.name, theirs.name) for mine, theirs in proposed_taps(transformer, teacher)] == [
        ("blocks:map", "2"),
        ("hidden", "5"),
    ]
    words = [
        Layer("words", "Embedding", (16, 8), 0),
        Layer("block", "Block", (16, 8), 0),
        Layer("classes", "Linear", (3,), 0),
    ]
    assert proposed_taps(words, words) == []


def test_maps_of_one_size_and_the_last_vectors_go_together():
    student, teacher = (layers_of(network(width), BATCH) for width in (4, 16))
    assert [(mine.name, theirs.name) for mine, theirs in proposed_taps(student, teacher)] == [
        ("0", "0"),
        ("2", "2"),
        ("5", "5"),
    ]
    assert (
        "method.taps.student.hint=2 method.taps.teacher.hint=2    # 4 x 4 x 4 and 16 x 4 x 4"
        in taps_lines(student, teacher)[1]
    )
    lines = layers_lines(student, teacher)
    assert len(lines) == 8
    assert lines[1].split() == [
        "0",
        "Conv2d",
        "4",
        "x",
        "8",
        "x",
        "8",
        "40",
        "0",
        "Conv2d",
        "16",
        "x",
        "8",
        "x",
        "8",
        "160",
    ]


def test_the_command_writes_nothing_and_proposes_what_can_be_typed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["student=small_cnn", "teacher=small_cnn", "student.channels=[4]"]) == 0
    told = capsys.readouterr().out
    assert "method.taps.student.hint=hidden method.taps.teacher.hint=hidden" in told
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("word", "told"), [("student=small_cn", "small_cnn"), ("student.width=3", "no such key")])
def test_a_mistake_is_one_line(word, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([word]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_a_student_that_cannot_take_the_data_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["student=torchvision:alexnet", "teacher=mlp"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: student: cannot take the data's inputs: ")
    assert error.count("\n") == 1
