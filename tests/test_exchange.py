"""What several processes of one run exchange, as far as one process can tell; tests/running/test_ranks.py has two."""

from __future__ import annotations

import functools

import torch
from torch import nn

from kd_lightning.distiller import Distiller
from kd_lightning.exchange import Exchange, _order, _real_rows
from kd_lightning.member import Member
from kd_lightning.method import Method
from kd_lightning.tasks.classification import ClassificationTask


def test_samples_are_dealt_out_in_turn_as_the_loader_dealt_them():
    assert _order((2, 2)) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert _order((2, 1, 1)) == [(0, 0), (0, 1), (0, 2), (1, 0)]
    parts = torch.tensor([[0, 3], [1, -1], [2, -1]])  # what each process has, filled up to the longest
    assert parts.T.flatten()[_real_rows((2, 1, 1), parts.device)].tolist() == [0, 1, 2, 3]


def test_each_process_and_each_forward_pass_draws_its_own_numbers_and_the_steps_again_the_same():
    def drawn(rank: int, epoch: int, batch: int, passes: int) -> float:
        exchange = Exchange(rank, 2, torch.device("cpu"))
        exchange.at(epoch, batch)
        value = 0.0
        for _ in range(passes):
            with exchange.forward_stream(7):
                value = float(torch.rand(()))
        return value

    places = [(0, 0, 0, 1), (1, 0, 0, 1), (0, 1, 0, 1), (0, 0, 1, 1), (0, 0, 0, 2)]
    assert len({drawn(*place) for place in places}) == len(places)
    assert [drawn(*place) for place in places] == [drawn(*place) for place in places]


def test_a_signal_that_comes_while_they_agree_to_go_on_is_not_lost():
    method = Method({}, {"task": 1.0})
    optimizer = functools.partial(torch.optim.SGD, lr=0.1)
    distiller = Distiller(None, Member(nn.Linear(2, 2), method, ClassificationTask(), optimizer=optimizer))

    class Interrupted(Exchange):
        def any_of(self, here: bool) -> bool:
            distiller.interrupted = True  # as a handler does, which runs when the exchange returns
            return here

    distiller.members[0].exchange = Interrupted(0, 2, torch.device("cpu"))
    distiller._agree_to_stop()
    assert distiller.interrupted
