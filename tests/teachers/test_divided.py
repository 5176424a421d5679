"""Which parts of a teacher are gathered one after the other; two processes that divide one: tests/running/test_ranks_fsdp.py."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kd_lightning.batch import Batch
from kd_lightning.errors import UserError
from kd_lightning.outputs import ModelOutput
from kd_lightning.teachers.divided import DividedTeacher, parts
from kd_lightning.teachers.frozen import FrozenTeacher

EXAMPLE = Batch(torch.zeros(2, 8), torch.zeros(2, dtype=torch.long), torch.arange(2))
CPU = torch.device("cpu")


def found(network: nn.Module, inputs: torch.Tensor = EXAMPLE.inputs) -> list[str]:
    names = {module: name for name, module in network.named_modules()}
    return [names[part] for part in parts(network, lambda: network(inputs))]


def test_large_layers_are_parts_and_the_network_takes_the_rest():
    network = nn.Sequential(nn.Linear(8, 90), nn.ReLU(), nn.Linear(90, 2), nn.Linear(2, 2))
    assert found(network) == ["0", "2", ""]


def test_small_layers_are_gathered_with_the_block_around_them():
    block = nn.Sequential(*(nn.Linear(8, 8) for _ in range(2)))
    network = nn.Sequential(*(nn.Sequential(*block) for _ in range(20)), nn.Linear(8, 200))
    names = found(network)
    assert names[-2:] == ["20", ""]
    assert all("." not in name for name in names)


def test_a_layer_whose_weights_its_parent_takes_without_calling_it_is_no_part():
    network = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    assert "self_attn.out_proj" not in found(network, torch.zeros(2, 3, 8))


def test_tied_weights_are_gathered_together():
    network = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    network[2].weight = network[0].weight
    assert found(network) == [""]


def test_a_teacher_that_is_no_network_has_nothing_to_divide():
    class Answers:
        name = "answers.csv"

        def __call__(self, batch):
            return ModelOutput(torch.zeros(2, 3))

    with pytest.raises(UserError, match=r"trainer.strategy=fsdp: .* answers.csv is none: use ddp"):
        DividedTeacher(Answers(), EXAMPLE, CPU)


def test_in_one_process_it_is_the_whole_teacher():
    whole = FrozenTeacher(nn.Linear(8, 3))
    divided = DividedTeacher(whole, EXAMPLE, CPU).to(CPU)
    assert torch.equal(divided(EXAMPLE).logits, whole(EXAMPLE).logits)
    divided.finish()
    divided.verify()
