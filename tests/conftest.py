"""Puts this directory on the path, so that tests in all directories can import ``processes``."""

import pytest
import torch


@pytest.fixture(autouse=True)
def the_same_random_numbers_whatever_ran_before():
    torch.manual_seed(0)
