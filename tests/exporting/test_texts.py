"""A student of texts as files: it is compared like every other, and answers for lines of text without its run."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import kd_lightning as kd
from kd_lightning.cli.predict import main as predict
from kd_lightning.cli.train import main
from kd_lightning.data.texts.hashing import HashingTokenizer
from kd_lightning.errors import UserError
from kd_lightning.exporting.tokenizers import HASHING, trusted_tokenizer

QUICK = (
    "data=text", "data.file=reviews.csv", "data.text=text", "data.target=label", "data.batch_size=16",
    "data.tokenizer.vocab_size=500", "data.tokenizer.ngrams=[3]", "teacher=none", "method=none", "student=token_bag",
    "trainer.max_epochs=1", "trainer.accelerator=cpu", "pictures.every_n_epochs=0", "data.num_threads=1", "run_dir=run",
)  # fmt: skip
TEXTS = ["a good day", "bad, very bad news of more words than the others have", "", "Größe \U0001f600"]


def reviews(path: Path) -> None:
    random = np.random.default_rng(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label"])
        for number in range(120):
            words = random.choice(["day", "news", "the", "of", "very", "ways"], random.integers(1, 9))
            rows.writerow([" ".join([("good", "bad")[number % 2], *words]), "+-"[number % 2]])


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    reviews(folder / "reviews.csv")
    (folder / "lines.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(list(QUICK)) == 0
    return folder


@pytest.mark.slow
def test_every_form_answers_as_the_checkpoint_and_the_file_alone_reads_lines(place, monkeypatch, capfd):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(place)
    made = kd.export("run", ["onnx", "safetensors", "torch_export", "torchscript"])
    for figures in made.report["files"].values():
        assert figures["largest_difference"] <= figures["tolerance"]
        assert (figures["inputs"], figures["equal_decisions"]) == ("tokens", 1.0)
    alone = shutil.copytree("run/export", place / "alone")
    assert predict(["run", "lines.txt", "output=by_run.csv"]) == 0
    assert predict([str(alone / "student.onnx"), "lines.txt", "output=by_file.csv"]) == 0
    by_run, by_file = (
        list(csv.DictReader(Path(name).read_text().splitlines())) for name in ("by_run.csv", "by_file.csv")
    )
    assert [row["input"] for row in by_file] == [f"lines.txt:{number}" for number in (1, 2, 3, 4)]
    for ours, theirs in zip(by_run, by_file, strict=True):
        assert ours["class"] == theirs["class"]
        assert float(ours["probability"]) == pytest.approx(float(theirs["probability"]), abs=1e-4)
    capfd.readouterr()


@pytest.mark.slow
def test_what_is_beside_the_file_is_enough_for_another_language(place, monkeypatch):
    """onnxruntime, numpy, and the numbers as preprocessing.json words them: nothing of ours."""
    runtime = pytest.importorskip("onnxruntime")
    monkeypatch.chdir(place)
    kd.export("run", ["onnx"])
    said = json.loads(Path("run/export/preprocessing.json").read_text())
    settings = dict(said["reading"]["text"]["tokenizer"])
    assert settings.pop("_target_") == HASHING
    numbers = HashingTokenizer(**settings)(TEXTS[:2], truncation=True, max_length=said["reading"]["text"]["max_length"])
    session = runtime.InferenceSession("run/export/student.onnx", providers=["CPUExecutionProvider"])
    run, longest = kd.open_run("run"), max(map(len, numbers["input_ids"]))
    for row, length in ((0, longest), (1, longest), (1, 1)):
        ids = (numbers["input_ids"][row] + [0] * longest)[:length]
        mask = [int(token > 0) for token in ids]
        inputs = {"input_ids": np.array([ids]), "attention_mask": np.array([mask])}
        (logits,) = session.run(None, inputs)
        shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        np.testing.assert_allclose(shares, run.predict(inputs).numpy(), atol=1e-5)


@pytest.mark.slow
def test_what_texts_cannot_have_is_one_line(place, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(place)
    with pytest.raises(UserError, match="preprocess=true: is for images, this student takes texts"):
        kd.export("run", ["onnx"], preprocess=True)
    with pytest.raises(UserError, match="of texts precision=int8_dynamic"):
        kd.export("run", ["onnx"], precision=["int8"])


@pytest.mark.slow
def test_a_transformer_takes_texts_of_any_length_too(place, monkeypatch, capfd):
    pytest.importorskip("transformers")
    pytest.importorskip("onnxscript")
    monkeypatch.chdir(place)
    small = (
        "student=transformer",
        "student.hidden_size=16",
        "student.num_hidden_layers=1",
        "student.num_attention_heads=2",
    )
    words = [word for word in QUICK if not word.startswith(("student=", "run_dir="))]
    assert main([*words, *small, "student.intermediate_size=16", "run_dir=bert"]) == 0
    figures = kd.export("bert", ["onnx"]).report["files"]["student.onnx"]
    assert figures["largest_difference"] <= figures["tolerance"]
    assert predict(["bert/export/student.onnx", "lines.txt"]) == 0
    capfd.readouterr()


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "os.system", "command": "touch ran"},
        {"_target_": HASHING, "vocab_size": 5, "more": {"_target_": "os.abort"}},
        {
            "_target_": "transformers.AutoTokenizer.from_pretrained",
            "pretrained_model_name_or_path": "x",
            "trust_remote_code": True,
        },
        {"_target_": HASHING, "ngrams": [{"_target_": "os.abort"}]},
        {"_target_": HASHING, "vocab_size": "${oc.env:HOME}"},
        "text",
    ],
)
def test_a_file_names_no_code_to_run(node):
    with pytest.raises(UserError, match=r"^there: names a tokenizer that is not taken from a file"):
        trusted_tokenizer({"text": {"tokenizer": node}}, "there")


def test_the_hashing_tokenizer_is_taken_from_a_file():
    node = {"_target_": HASHING, "vocab_size": 500, "words": True, "ngrams": [3], "lowercase": False}
    assert trusted_tokenizer({"text": {"tokenizer": node}}, "there") == node
    assert trusted_tokenizer(None, "there") is None
