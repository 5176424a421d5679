"""Which shipped student can be written in which form: every model with random weights, written, opened again, compared for
another number of samples. ``python tests/exporting/matrix.py`` writes docs/export_matrix.md; with names of families after it, their
rows alone."""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn

from kd_lightning.config.build import build_sized_model
from kd_lightning.exporting.precision import Form, forms
from kd_lightning.outputs import as_model_output

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "export_matrix.md"
FORMATS = ["safetensors", "torch_export", "torchscript", "onnx"]
OF_TASKS = "## Which task"
"""Where the page goes on with what ``tasks_matrix.py`` writes."""
PRECISIONS = ["fp32", "fp16", "int8", "int8_dynamic"]
SIZES = {"num_classes": 10, "in_channels": 3, "in_features": 3072, "image_size": 32}
FAMILIES = {
    "resnet8x4": "resnet8 to resnet110, resnet8x4, resnet32x4",
    "wrn_16_1": "wrn_16_1 to wrn_40_2",
    "vgg8": "vgg8 to vgg19",
    "mobilenet_v2_half": "mobilenet_v2_half",
    "shufflenet_v1": "shufflenet_v1",
    "shufflenet_v2": "shufflenet_v2",
    "small_cnn": "small_cnn",
    "small_vit": "small_vit",
    "mlp": "mlp",
    "torchvision:resnet18": "",
    "torchvision:mobilenet_v3_small": "",
    "torchvision:vit_b_16": "with image_size=32",
    "timm:mobilenetv3_small_050": "",
}
"""One model of each family -> the shipped students that are built of the same parts."""


class Logits(nn.Module):
    """The model, its output one tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        return as_model_output(self.model(inputs)).logits


def made(name: str) -> tuple[nn.Module, Tensor]:
    """A family's model with random weights, and inputs."""
    package, _, model = name.rpartition(":")
    if package == "torchvision":
        size = {"image_size": "auto"} if model.startswith("vit") else {}
        node = {"_target_": f"torchvision.models.{model}", "num_classes": 10, "weights": None, **size}
    elif package == "timm":
        node = {"_target_": "timm.create_model", "model_name": model, "pretrained": False, "num_classes": 10}
    else:
        node = yaml.safe_load((ROOT / "conf" / "student" / f"{name}.yaml").read_text())
    torch.manual_seed(0)
    size = SIZES["image_size"]
    made = build_sized_model(node, SIZES, "student").eval()
    for weight in made.parameters():
        if weight.dim() > 1 and not weight.any():  # torchvision's ViT starts with a head of zeros: any file would agree
            nn.init.normal_(weight, std=0.1)
    return made, torch.randn(4, 3, size, size)


def works(form: Form, model: nn.Module, inputs: Tensor, scratch: Path) -> str:
    """ "yes", or the first words of what is wrong."""
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            prepared = form.prepared(model)
            whole = Logits(prepared) if form.exporter.holds_graph else prepared
            file = scratch / f"student{form.suffix}"
            form.write(whole.eval(), inputs[:2], file, lambda: inputs, scratch)
            opened = form.exporter.open(file, made_again(model))
            got, expected = as_model_output(opened(inputs[:3])).logits, as_model_output(model(inputs[:3])).logits
        share = float((got - expected).abs().max() / expected.abs().max().clamp_min(1))
        limit = form.tolerance if form.tolerance < 1 else 1.0
        return "yes" if share <= limit else f"differs by {share:.0%}"
    except Exception as error:
        return f"{type(error).__name__}"


def made_again(model: nn.Module) -> nn.Module:
    """Another one like it, with other weights."""
    import copy

    other = copy.deepcopy(model)
    for parameter in other.parameters():
        nn.init.zeros_(parameter)
    return other


def rows(
    names: Iterable[str], formats: list[str] = FORMATS, precisions: list[str] = PRECISIONS
) -> Iterator[dict[str, str]]:
    """By family: what works in each form and precision."""
    for name in names:
        model, inputs = made(name)
        with tempfile.TemporaryDirectory() as scratch:
            found = {
                f"{form.format} {form.precision}": works(form, model, inputs, Path(scratch))
                for form in forms(formats, precisions).values()
            }
        yield {"family": name, **found}


def main(names: Collection[str]) -> None:
    columns = [f"{form.format} {form.precision}" for form in forms(FORMATS, PRECISIONS).values()]
    page, _, further = PAGE.read_text(encoding="utf-8").partition(OF_TASKS)
    lines = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    for row in rows(names):
        print(row, file=sys.stderr, flush=True)
        family = row["family"]
        also = f" ({FAMILIES[family]})" if FAMILIES[family] not in ("", family) else ""
        lines[family] = f"| `{family}`{also} | " + " | ".join(row[column] for column in columns) + " |"
    text = [
        "# Which student can be exported how",
        "",
        "Each model with random weights, written, opened again, compared for another number of samples than it was traced",
        "with. Written by `python tests/exporting/matrix.py`; a test repeats part of it. What int8 costs depends on trained",
        "weights: [`kd-export`](export.md#half-precision-and-eight-bits) measures it for yours.",
        "",
        "| student | " + " | ".join(columns) + " |",
        "|---|" + "---|" * len(columns),
        *(lines[family] for family in FAMILIES if family in lines),
    ]
    PAGE.write_text("\n".join(text) + f"\n\n{OF_TASKS}{further}", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:] or FAMILIES)
