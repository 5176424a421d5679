"""A user's network for tests that stop and break runs on a cluster while these train."""

from __future__ import annotations

from pathlib import Path

RUN = (
    "--config-dir", "mine", "-m", "data.num_threads=1", "data.train_size=128", "data.labelled=null", "data.batch_size=16",
    "trainer.accelerator=cpu", "trainer.max_epochs=30", "teacher=mlp", "teacher.model.hidden=[8]",
    "teacher.train.max_epochs=1", "pictures.every_n_epochs=0", "baseline=false", "student=net",
)  # fmt: skip
"""A sweep of it, but for its widths; :func:`write` makes its files."""
STEPS, EPOCH = 240, 8
"""Steps of such a run, and of one of its epochs."""

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


def write(folder: Path) -> None:
    """The network and its ``student=net``, as a user has them in a folder of their own."""
    (folder / "slow_net_of_mine.py").write_text(TEXT)
    (folder / "mine/student").mkdir(parents=True)
    (folder / "mine/student/net.yaml").write_text(
        "_target_: slow_net_of_mine.Net\nin_features: auto\nnum_classes: auto\n"
    )


def steps(width: int) -> list[str]:
    """The process of each step that the network of this width has made, here."""
    diary = Path(f"diary-{width}")
    return diary.read_text().splitlines() if diary.exists() else []
