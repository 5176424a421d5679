from __future__ import annotations

import torch

from kd_lightning.losses.contrastive import ContrastiveLoss
from kd_lightning.outputs import ModelOutput

SAMPLES, LABELS = 40, torch.arange(40) % 4


class Drawn(ContrastiveLoss):
    """Keeps what it compares with."""

    def against(self, student, teacher, index, compared):
        self.compared = compared
        return super().against(student, teacher, index, compared)


def asked(other_classes, target):
    torch.manual_seed(0)
    term = Drawn(SAMPLES, None, dimension=4, negatives=200, other_classes=other_classes)
    output = ModelOutput(torch.randn(SAMPLES, 5))
    term.prepare(output, output)
    assert torch.isfinite(term(output, output, target, torch.arange(SAMPLES)))
    return term


def test_negatives_are_of_other_classes_where_that_is_asked_for():
    compared = asked(True, LABELS).compared
    assert (compared[:, 0] == torch.arange(SAMPLES)).all()
    assert not (LABELS[compared[:, 1:]] == LABELS[:, None]).any()
    assert (LABELS[asked(False, LABELS).compared[:, 1:]] == LABELS[:, None]).any()


def test_a_sample_without_a_label_is_told_apart_from_all_and_one_class_alone_ends():
    hidden = LABELS.clone()
    hidden[::4] = -1
    assert (LABELS[asked(True, hidden).compared[0, 1:]] == 0).any()
    asked(True, torch.zeros(SAMPLES, dtype=torch.long))


def test_labels_seen_travel_in_the_checkpoint():
    assert torch.equal(asked(True, LABELS).state_dict()["labels"], LABELS)
    assert "labels" not in asked(False, LABELS).state_dict()
