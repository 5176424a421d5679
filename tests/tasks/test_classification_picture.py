from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from kd_lightning.tasks import classification_picture
from kd_lightning.tasks.classification_picture import RIGHT, STUDENT, TEACHER, WRONG


def sample_picture(*arguments, **options) -> np.ndarray:
    return np.asarray(classification_picture.sample_picture(*arguments, **options))


def logits_for(classes: list[int], of: int = 10) -> torch.Tensor:
    logits = torch.zeros(len(classes), of)
    logits[range(len(classes)), classes] = 6.0
    return logits


def pixels(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((picture == np.array(colour, dtype=np.uint8)).all(-1).sum())


def test_a_picture_has_three_samples_a_row_and_is_an_rgb_array():
    six = sample_picture(torch.rand(6, 1, 8, 8), torch.arange(6), torch.randn(6, 10), torch.randn(6, 10), 4.0)
    three = sample_picture(torch.rand(3, 1, 8, 8), torch.arange(3), torch.randn(3, 10), torch.randn(3, 10), 4.0)
    assert six.dtype == np.uint8
    assert six.shape[2] == 3
    assert six.shape[1] == three.shape[1]
    assert six.shape[0] > three.shape[0]


def test_bars_are_as_high_as_the_probabilities_of_their_model():
    target = torch.tensor([3])
    sure, flat = logits_for([3]) * 100, torch.zeros(1, 10)
    picture = sample_picture(None, target, flat, sure, 1.0)
    legend = 60  # rows of pixels above the bars
    heights = {
        colour: (picture[legend:] == np.array(colour, dtype=np.uint8)).all(-1).sum(0) for colour in (TEACHER, STUDENT)
    }
    highest = heights[TEACHER].max()
    assert highest > 80
    assert (heights[TEACHER] > 5).sum() < 25  # one bar of the teacher
    assert heights[STUDENT].max() == pytest.approx(0.1 * highest, abs=2)


def test_a_higher_temperature_flattens_what_is_drawn():
    target, logits = torch.tensor([3]), logits_for([3])
    assert (
        sample_picture(None, target, logits, logits, 1.0) != sample_picture(None, target, logits, logits, 8.0)
    ).any()


def test_predictions_are_coloured_by_whether_they_are_right():
    target = torch.tensor([3])
    both_right = sample_picture(None, target, logits_for([3]), logits_for([3]))
    one_wrong = sample_picture(None, target, logits_for([4]), logits_for([3]))
    unknown = sample_picture(None, torch.tensor([-1]), logits_for([4]), logits_for([3]))
    assert pixels(both_right, RIGHT) > 0
    assert pixels(both_right, WRONG) == 0
    assert pixels(one_wrong, RIGHT) > 0
    assert pixels(one_wrong, WRONG) > 0
    assert pixels(unknown, RIGHT) == pixels(unknown, WRONG) == 0


def test_the_normalisation_is_undone():
    white = (torch.ones(1, 3, 8, 8) - 0.5) / 0.25
    picture = sample_picture(
        white, torch.tensor([0]), torch.randn(1, 10), torch.randn(1, 10), 1.0, None, [0.5] * 3, [0.25] * 3
    )
    black = sample_picture(torch.zeros(1, 3, 8, 8), torch.tensor([0]), torch.randn(1, 10), torch.randn(1, 10))
    middle = (slice(90, 180), slice(60, 140))
    assert (picture[middle] == 255).all()
    assert (black[middle] == 0).all()


@pytest.mark.parametrize(
    "shape", [(4, 1, 8, 8), (4, 3, 32, 32), (4, 3, 300, 200), (4, 2, 9, 9), (4, 1, 1, 500), (4, 64), None]
)
@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_any_shape_of_input_and_any_number_of_classes_is_drawn(shape, classes):
    images = torch.rand(shape) if shape else None
    names = [f"a class with quite a long name {i}" for i in range(classes)]
    picture = sample_picture(
        images, torch.tensor([0, 1, -1, 0]), torch.randn(4, classes), torch.randn(4, classes), 8.0, names
    )
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20


def test_half_precision_and_huge_logits_are_drawn():
    logits = torch.tensor([[1e4, -1e4, 0.0]])
    assert sample_picture(torch.rand(1, 1, 8, 8).half(), torch.tensor([0]), logits.bfloat16(), logits).shape[2] == 3


def test_drawing_takes_less_than_a_fifth_of_a_second():
    arguments = (torch.rand(6, 3, 224, 224), torch.arange(6), torch.randn(6, 100), torch.randn(6, 100), 4.0)
    sample_picture(*arguments)
    times = []
    for _ in range(5):
        started = time.process_time()
        sample_picture(*arguments)
        times.append(time.process_time() - started)
    assert min(times) < 0.2
