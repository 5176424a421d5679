"""Which task's student can be exported how, and what eight bits cost on trained ones: real short runs, each exported.

``python tests/exporting/tasks_matrix.py`` writes the second half of docs/export_matrix.md (some minutes).
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matrix import FORMATS, OF_TASKS, PAGE
from PIL import Image

import kd_lightning as kd
from kd_lightning.cli.train import main as train
from kd_lightning.errors import UserError
from kd_lightning.exporting.precision import PRECISIONS, forms

QUICK = ["trainer.accelerator=cpu", "trainer.max_epochs=5", "baseline=false", "pictures.every_n_epochs=0"]
ALONE = ["teacher=none", "method=none"]
TASKS = {
    "classification": [*ALONE, "student=mlp"],
    "multilabel": [*ALONE, "task=multilabel", "data=table", "data.file=answers.csv", "data.target=[a,b,c]", "student=mlp"],
    "regression": [*ALONE, "task=regression", "data=diabetes", "student=mlp"],
    "regression, `task.output=gaussian`": [
        *ALONE, "task=regression", "task.output=gaussian", "data=diabetes", "student=mlp",
    ],
    "clustering": ["experiment=digits_clusters", "data.train_size=200"],
    "representation": [
        "task=representation", "data=digits", "data.labelled=0", "data.extra_views=1", "data.augment=true", "method=dino",
        "teacher=none", "student=backbone", "student.model._target_=kd_lightning.models.small_cnn.SmallCNN",
        "+student.model.image_size=8", "+student.model.channels=[8,16]",
    ],
    "segmentation": [
        *ALONE, "task=segmentation", "data=image_masks", "data.root=photos", "data.image_size=32", "data.val_size=4",
        "data.batch_size=4", "student=small_lraspp",
    ],
    "texts": [*ALONE, "data=scipy_topics", "student=token_bag", "data.train_size=400"],
}  # fmt: skip
"""The task's name -> what trains a student of it in seconds."""
FAMILIES = ["mlp", "small_cnn", "resnet8x4", "wrn_16_1", "mobilenet_v2_half", "shufflenet_v1", "shufflenet_v2"]


def made_up_data(folder: Path) -> None:
    """A table with three answers, and pictures with masks."""
    random = np.random.default_rng(0)
    inputs = random.normal(size=(400, 6))
    rows = np.hstack([inputs, inputs[:, :3] > 0])
    np.savetxt(folder / "answers.csv", rows, "%g", ",", header="u,v,w,x,y,z,a,b,c", comments="")
    for name in ("images", "masks"):
        (folder / "photos" / name).mkdir(parents=True)
    for number in range(30):
        classes = np.kron(random.integers(0, 3, (4, 5)), np.ones((8, 8))).astype(np.uint8)
        picture = np.stack([80 * classes, 255 - 80 * classes, classes], -1)
        Image.fromarray(picture).save(folder / f"photos/images/{number}.jpg")
        Image.fromarray(classes).save(folder / f"photos/masks/{number}.png")


def trained(words: list[str], run_dir: str) -> None:
    """Train in the working directory, without a word."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code = train([*QUICK, *words, f"run_dir={run_dir}"])
    if code != 0:
        raise RuntimeError(said.getvalue())


def exported(run_dir: str, format: str, precision: str) -> tuple[str, Mapping[str, Any] | None]:
    """ "yes" or "no", and what ``export.json`` says of the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = kd.export(run_dir, [format], precision=[precision], max_loss=1e9)
        except UserError:
            return "no", None
    return "yes", found.report["files"][found.files[0].name]


def by_task(names: list[str], formats: Sequence[str] = FORMATS, precisions: Sequence[str] = PRECISIONS) -> list[dict]:
    """A row a task: what works in each form and precision; the working directory gets the runs."""
    made_up_data(Path())
    rows = []
    for number, name in enumerate(names):
        trained(TASKS[name], f"task{number}")
        wanted = [(form.format, form.precision) for form in forms(formats, precisions).values()]
        rows.append({"task": name, **{" ".join(form): exported(f"task{number}", *form)[0] for form in wanted}})
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def by_family(names: list[str]) -> list[dict[str, str]]:
    """A row a family, trained on the digits: accuracy of checkpoint and 8-bit files, equal decisions."""
    rows = []
    for name in names:
        trained([*ALONE, f"student={name}", "data.labelled=null"], f"family_{name}")
        row = {"family": f"`{name}`"}
        for precision in ("int8", "int8_dynamic"):
            found, figures = exported(f"family_{name}", "onnx", precision)
            if figures is None:
                row[precision] = found
                continue
            before = figures["metrics"]["acc"] + figures["lost"]
            row.setdefault("fp32", f"{before:.1%}")
            row[precision] = f"{figures['metrics']['acc']:.1%} ({figures['equal_decisions']:.1%} alike)"
        rows.append(row)
        print(row, file=sys.stderr, flush=True)
    return rows


def table(rows: list[dict[str, str]]) -> list[str]:
    """Markdown."""
    columns = list(rows[0])
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return lines + [f"| {' | '.join(row.get(column, 'no') for column in columns)} |" for row in rows]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        text = [
            f"{OF_TASKS}'s student",
            "",
            "Students that were trained for some epochs, exported and compared on their test split as `kd-export` does; written",
            "by `python tests/exporting/tasks_matrix.py`, a test repeats part of it. The texts' student is `token_bag`; `int8` takes ranges",
            "from a single input, and is refused for two.",
            "",
            *table(by_task(list(TASKS))),
            "",
            "## What eight bits cost",
            "",
            "One model of each family, trained for 5 epochs on the 1,000 labelled digits, accuracy on the 597 test samples and the",
            "share of equal decisions, by the same command. What `int8` did to shufflenet_v1 here is no file that `kd-export` keeps",
            "(`max_loss`); `int8_dynamic` did not.",
            "",
            *table(by_family(FAMILIES)),
        ]
    kept = PAGE.read_text(encoding="utf-8").split(OF_TASKS)[0].rstrip()
    PAGE.write_text(kept + "\n\n" + "\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
