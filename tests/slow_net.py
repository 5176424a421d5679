"""A user's network for tests that stop and break runs on a cluster while these train."""

TEXT = '''
"""A network that is slow until there is a file "go", and breaks at its fifth step until there is one "mended"."""

import os
import time
from pathlib import Path

from torch import nn


class Net(nn.Module):
    def __init__(self, in_features, num_classes, width=4):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(in_features, width), nn.Dropout(0.1), nn.Linear(width, num_classes))
        self.width, self.steps = width, 0

    def forward(self, x):
        if self.training:
            self.steps += 1
            if self.steps == 5 and self.width == 6 and not Path("mended").exists():
                raise RuntimeError("a mistake of the user's own")
            if self.steps > 1:  # the first may be a trial
                with open(f"diary-{self.width}", "a") as diary:
                    diary.write(f"{os.getpid()}\\n")
                if not Path("go").exists():
                    time.sleep(0.3)
        return self.layers(x)
'''
