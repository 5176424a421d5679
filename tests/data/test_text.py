"""Texts: hashed into tokens, padded by batch, split by group, found again by their identifiers; small transformers read them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from kd_lightning.batch import UNLABELLED
from kd_lightning.cli.evaluate import main as evaluate
from kd_lightning.cli.train import main
from kd_lightning.data.scipy_topics import ScipyTopics, paragraphs
from kd_lightning.data.text import TextData
from kd_lightning.data.texts.hashing import HashingTokenizer
from kd_lightning.data.texts.reading import read_columns
from kd_lightning.data.texts.rows import PaddedBatch, TextRows
from kd_lightning.errors import UserError
from kd_lightning.models.token_bag import TokenBag
from kd_lightning.teachers.cache.marks import input_marks, same_inputs

WORDS = {
    "sea": ["wave", "salt", "ship", "tide", "sail", "deep", "reef", "foam"],
    "hill": ["rock", "path", "pine", "snow", "climb", "goat", "steep", "ridge"],
    "town": ["street", "shop", "tram", "crowd", "light", "bridge", "square", "noise"],
}
TINY = (
    *("data=text", "data.file=texts.csv", "baseline=false", "trainer.max_epochs=2", "trainer.accelerator=cpu"),
    *("pictures.every_n_epochs=0", "data.batch_size=32", "optimizer.lr=0.05", "run_dir=run"),
)
BAG = ("student=token_bag", "student.width=8")


def written(path: str = "texts.csv", rows: int = 360) -> str:
    """A CSV of texts of 3 to 9 words, a third about each place, by 40 authors; every tenth label is missing."""
    random = np.random.default_rng(0)
    lines = ["id,author,text,label"]
    for row in range(rows):
        place = list(WORDS)[row % 3]
        text = " ".join(random.choice([*WORDS[place], "the", "a", "and"], size=random.integers(3, 10)))
        lines.append(f'doc{row},a{random.integers(40)},"{text.capitalize()}, {row}.",{"" if row % 10 == 9 else place}')
    Path(path).write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written()
    return tmp_path


@pytest.fixture
def data(folder):
    made = TextData(file="texts.csv", id="id", batch_size=16, tokenizer=HashingTokenizer(512))
    made.setup("fit")
    return made


def refused(capfd, *arguments: str) -> str:
    assert main([*TINY, *arguments]) == 2
    error = capfd.readouterr().err
    assert "Traceback" not in error
    return error.strip().splitlines()[-1]


def test_a_tokens_number_is_the_same_in_every_process_and_never_that_of_padding():
    tokenizer = HashingTokenizer(64, ngrams=[2])
    numbers = tokenizer(["a rose", "A  ROSE!", ""])["input_ids"]
    assert numbers[0] == numbers[1]
    assert numbers[2] == []
    assert len(numbers[0]) == 1 + 2 + 1 + 5  # words, and pairs of letters with the words' ends
    assert all(0 < number < 64 for number in numbers[0])
    assert HashingTokenizer(1 << 20)(["tide"])["input_ids"] == [[405234]]
    assert tokenizer(["a rose"], truncation=True, max_length=3)["input_ids"][0] == numbers[0][:3]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"vocab_size": 1}, "vocab_size must be >= 2"),
        ({"words": False}, "needs ngrams"),
        ({"ngrams": [0]}, "must be >= 1"),
    ],
)
def test_a_tokenizer_that_cannot_be_is_refused(arguments, said):
    with pytest.raises(UserError, match=said):
        HashingTokenizer(**arguments)


def test_a_batch_is_as_long_as_its_longest_text_and_the_rest_is_masked():
    rows = TextRows(["one two three", "", "one"], [0, 1, 0], HashingTokenizer(100), max_length=2)
    inputs, labels = rows.gather(torch.tensor([2, 0]), 0)
    assert inputs["input_ids"].shape == (2, 2)
    assert inputs["attention_mask"].tolist() == [[1, 0], [1, 1]]
    assert inputs["input_ids"][0, 1] == 0
    assert labels == [0, 0]
    whole = PaddedBatch(0)([rows[k] for k in range(3)])
    gathered, _ = rows.gather(torch.arange(3), 0)
    assert all(torch.equal(whole[name], gathered[name]) for name in ("input_ids", "attention_mask"))
    assert whole["text"] == gathered["text"]


def test_padding_changes_no_answer_and_no_stored_answers_mark():
    rows = TextRows(["one two three four five", "one two"], None, HashingTokenizer(100), max_length=9)
    alone, _ = rows.gather(torch.tensor([1]), 0)
    padded, _ = rows.gather(torch.tensor([0, 1]), 0)
    model = TokenBag(100, 3, width=4, hidden=[5])
    answers = [model(b["input_ids"], b["attention_mask"])[-1] for b in (alone, padded)]
    assert torch.allclose(*answers, atol=1e-6)
    assert same_inputs(input_marks(padded)[1:], input_marks(alone)).all()
    assert not same_inputs(input_marks(padded)[:1], input_marks(alone)).any()


def test_labels_are_texts_in_sorted_order_and_empty_cells_are_no_labels(data):
    assert data.class_names == ["hill", "sea", "town"]
    assert data.sizes() == {"num_classes": 3, "vocab_size": 512}
    batches = list(data.train_dataloader())
    targets = torch.cat([batch.target for batch in batches])
    missing = int((targets == UNLABELLED).sum())
    assert 0 < missing <= 36
    assert data.labelled_in("val") == data.val_samples  # a text without a label is never validation
    for batch in batches[:3]:
        for text, target in zip(batch.inputs["text"], batch.target.tolist(), strict=True):
            if target != UNLABELLED:
                assert any(word in text.lower() for word in [*WORDS[data.class_names[target]], "the", "a ", "and"])


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_each_sample_is_at_its_place_in_the_file(data, split):
    texts = read_columns("texts.csv", "data.file")["text"]
    places = data.places(split)
    samples = {"train": data.train_views_dataset, "val": data.val_dataloader().dataset, "test": data.test_dataset()}
    inputs, _ = samples[split].read(torch.arange(5), 0)
    assert inputs["text"] == [texts[row] for row in places.rows[:5].tolist()]
    assert list(places.ids[:5]) == [f"doc{row}" for row in places.rows[:5].tolist()]
    assert (places.origin, places.total) == ("train", 360)


def test_what_a_group_holds_stays_together(folder):
    data = TextData(file="texts.csv", id="id", group="author", batch_size=16, test_size=0.3, val_size=0.2)
    data.setup("fit")
    authors = read_columns("texts.csv", "data.file")["author"]
    seen = {split: {authors[row] for row in data.places(split).rows.tolist()} for split in ("train", "val", "test")}
    assert not seen["train"] & seen["val"]
    assert not (seen["train"] | seen["val"]) & seen["test"]
    assert sum(map(len, seen.values())) == len(set(authors))
    other = TextData(file="texts.csv", group="author", batch_size=16, test_size=0.3, val_size=0.2, split_seed=1)
    other.setup("fit")
    assert {authors[row] for row in other.places("test").rows.tolist()} == seen["test"]
    assert {authors[row] for row in other.places("val").rows.tolist()} != seen["val"]


def test_without_validation_all_groups_but_those_of_test_are_trained_on(folder):
    data = TextData(file="texts.csv", group="author", batch_size=16, test_size=0.3, val_size=0)
    data.setup("fit")
    rows = [*data.places("train").rows.tolist(), *data.places("test").rows.tolist()]
    assert sorted(rows) == list(range(360))
    assert data.val_samples == 0


def test_an_estimator_that_takes_texts_teaches_a_model_that_takes_tokens(folder):
    assert main([*TINY, *BAG, "teacher=tfidf", "data.labelled=90", "teacher.data.labelled=null"]) == 0
    result = json.loads(Path("run/result.json").read_text())
    assert result["teacher"]["estimator"] == "Pipeline"
    assert result["teacher"]["test/acc"] > 0.9
    assert evaluate(["run"]) == 0


def test_stored_answers_are_found_by_the_texts_identifiers(folder, capfd):
    columns = read_columns("texts.csv", "data.file")
    lines = ["doc,p_town,p_sea,p_hill"]
    for row in np.random.default_rng(1).permutation(360):
        place = list(WORDS)[row % 3]
        lines.append(
            columns["id"][row] + "".join(f",{0.8 if name == place else 0.1}" for name in ("town", "sea", "hill"))
        )
    Path("answers.csv").write_text("\n".join(lines) + "\n")
    words = (*BAG, "data.id=id", "teacher=stored", "teacher.file=answers.csv", "teacher.key=doc")
    assert main([*TINY, *words]) == 0
    result = json.loads(Path("run/result.json").read_text())
    assert result["teacher"]["test/acc"] == 1.0  # what is split off stands in the same file
    Path("answers.csv").write_text("\n".join(lines[:200]) + "\n")
    assert "training samples have no row, the first: doc 'doc" in refused(capfd, *words, "run_dir=b")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("data.file=gone.csv",), "data.file=gone.csv: no such file"),
        (("data.file=null",), "data.file: needs a table"),
        (("data.text=label", "data.target=text"), "360 samples have 360 different texts as labels"),
        (("data.text=words",), "data.text=words: texts.csv has no such column, it has id, author, text, label"),
        (("data.group=author", "data.test_size=50"), "data.group: what is split off is said as fractions"),
        (("+data.inputs=[text]",), "has no such argument"),
        (("data.tokenizer={_target_: builtins.dict}",), "data.tokenizer"),
    ],
)
def test_what_cannot_be_meant_is_one_line(folder, capfd, words, said):
    assert said in refused(capfd, *BAG, "teacher=none", "method=none", *words)


def test_a_test_file_of_texts_that_were_trained_on_is_told(folder):
    lines = Path("texts.csv").read_text().splitlines()
    Path("new.csv").write_text(
        "\n".join([lines[0], *(line.replace("e", "yy").replace("a", "oo") for line in lines[1:200])]) + "\n"
    )
    Path("mostly.csv").write_text("\n".join(lines[:200]) + "\n")
    told = {}
    for name in ("new.csv", "mostly.csv"):
        data = TextData(file="texts.csv", test_file=name, batch_size=16)
        data.setup("fit")
        told[name] = [note for note in data.notes if note.startswith("data.test_file")]
    assert told["new.csv"] == []
    assert "of its 199 samples are training samples too" in told["mostly.csv"][0]


def test_a_text_with_a_comma_that_is_not_quoted_is_named_by_its_line(folder):
    Path("bad.csv").write_text("text,label\na, b,1\n")
    with pytest.raises(UserError, match=r"line 2 has 3 cells.*quotes"):
        read_columns("bad.csv", "data.file")


def test_parquet_and_csv_give_the_same_texts(folder):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.read_csv("texts.csv")
    frame.to_parquet("texts.parquet")
    assert read_columns("texts.parquet", "data.file") == read_columns("texts.csv", "data.file")


def test_small_transformers_teach_and_learn(folder):
    pytest.importorskip("transformers")
    small = ("hidden_size=16", "num_hidden_layers=1", "num_attention_heads=2", "intermediate_size=16")
    student = [f"student.{word}" for word in small]
    target = "kd_lightning.models.transformer.sequence_classifier"
    teacher = f"+teacher.model={{_target_: {target}, vocab_size: auto, {', '.join(word.replace('=', ': ') for word in small)}}}"
    recipe = "{max_epochs: 1, seed: 0, optimizer: {_target_: torch.optim.AdamW, _partial_: true, lr: 0.01}}"
    words = ["student=transformer", *student, "teacher=none", teacher.removeprefix("+"), f"teacher.train={recipe}"]
    assert main([*TINY, *words, "teacher.name=bert", "data.max_length=12", "optimizer=adamw"]) == 0
    result = json.loads(Path("run/result.json").read_text())
    assert result["status"] == "finished"
    assert result["teacher"]["parameters"] == result["student"]["parameters"]


def test_a_tokenizer_of_hugging_face_is_called_as_ours(folder):
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {
        "[PAD]": 7,
        "[UNK]": 1,
        **{word: 8 + k for k, word in enumerate(w for p in WORDS.values() for w in p)},
    }
    vocabulary |= {f"<{k}>": k for k in (0, 2, 3, 4, 5, 6)}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")
    data = TextData(file="texts.csv", tokenizer=tokenizer, batch_size=16, max_length=5)
    batch = next(iter(data.train_dataloader()))
    assert data.sizes()["vocab_size"] == len(vocabulary)
    assert batch.inputs["input_ids"].shape[1] <= 5
    assert (batch.inputs["input_ids"][batch.inputs["attention_mask"] == 0] == 7).all()


def test_paragraphs_of_a_docstring_are_prose_without_markup():
    docstring = """Find the best of all possible minima of a function.

Parameters
----------
x : array_like
    A long explanation of what it is that must not be among the texts here.

Notes
-----
The method `scipy.optimize.this` is :math:`O(n)` and it works well for most functions [1]_ of interest.

>>> an example with many words that nobody reads as prose at all
"""
    assert list(paragraphs(docstring)) == [
        "Find the best of all possible minima of a function.",
        "The method is and it works well for most functions of interest.",
    ]


def test_the_topics_are_read_from_the_installed_scipy_and_a_function_is_in_one_split():
    data = ScipyTopics(topics=["fft", "ndimage", "integrate"], batch_size=32, test_size=0.25, labelled=60)
    data.setup("fit")
    assert data.class_names == ["fft", "integrate", "ndimage"]
    assert data.train_samples > 150
    functions = {split: {i.partition("#")[0] for i in data.places(split).ids} for split in ("train", "val", "test")}
    assert not functions["train"] & functions["test"]
    assert not functions["train"] & functions["val"]
    assert data.labelled_in("train") == 60
    with pytest.raises(UserError, match=r"data\.topics: take two or more of fft"):
        ScipyTopics(topics=["physics", "fft"])
