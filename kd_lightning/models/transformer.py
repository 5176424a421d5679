"""Sequence classifiers of Hugging Face's transformers (pip install "kd-lightning[text]"), made small or read from a folder."""

from __future__ import annotations

from typing import Any

from torch import nn

from kd_lightning.errors import UserError


def sequence_classifier(
    num_classes: int, vocab_size: int | None = None, kind: str = "bert", pretrained: str | None = None, **config: Any
) -> nn.Module:
    """A transformer that takes ``input_ids`` and ``attention_mask`` by name and answers with logits (N, C).

    Args:
        num_classes: C.
        vocab_size: how many token numbers the data's tokenizer has.
        kind: transformers' name of the architecture: "bert", "distilbert", "roberta", ….
        pretrained: a folder (or a name, which is fetched) with its weights; None: fresh ones.
        config: further settings of a fresh one: ``hidden_size``, ``num_hidden_layers``, ….

    Raises:
        UserError: transformers is missing, or does not know these.
    """
    try:
        from transformers import AutoConfig, AutoModelForSequenceClassification
    except ImportError as error:
        raise UserError('a transformer needs the package: pip install "kd-lightning[text]"') from error
    if pretrained is not None:
        made: Any = AutoModelForSequenceClassification.from_pretrained(pretrained, num_labels=num_classes)
        known = getattr(made.config, "vocab_size", None)
        if known and vocab_size and not 0.9 <= vocab_size / known <= 1:  # a network may have some rows to spare
            raise UserError(
                f"pretrained={pretrained}: reads a vocabulary of {known:,} tokens, the data's tokenizer has {vocab_size:,}, which are "
                "other ones: set data.tokenizer to that of the model; a teacher may have its own (teacher=text_classifier)"
            )
        module: nn.Module = made
        return module
    try:
        known = AutoConfig.for_model(kind)
        unknown = [name for name in config if not hasattr(known, name)]
        if unknown:
            raise ValueError(f"{kind} has no setting {unknown[0]!r}")
        size = {} if vocab_size is None else {"vocab_size": vocab_size}
        settings = AutoConfig.for_model(kind, num_labels=num_classes, **size, **config)
        fresh: nn.Module = AutoModelForSequenceClassification.from_config(settings)
    except ValueError as error:
        raise UserError(f"transformers: {' '.join(str(error).split())[:200]}") from error
    return fresh
