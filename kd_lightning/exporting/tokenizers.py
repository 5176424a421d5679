"""How a text becomes token numbers, in ``preprocessing.json``; and back, without running whatever such a file names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kd_lightning.data.texts.hashing import HashingTokenizer
from kd_lightning.errors import UserError
from kd_lightning.running.open_run import OpenRun

HASHING = f"{HashingTokenizer.__module__}.{HashingTokenizer.__name__}"
PRETRAINED = "transformers.AutoTokenizer.from_pretrained"
SETTINGS = ("vocab_size", "words", "ngrams", "lowercase")
RULE = (
    "tokens: runs of letters, digits and _ (words), and of each word, put between the characters 2 and 3, all sequences of the "
    "lengths in ngrams, as the configuration says; small letters where lowercase; a token's number: CRC-32 of its UTF-8 bytes "
    "modulo (vocab_size - 1), plus 1; the first max_length numbers; none: one 0; 0 pads"
)


def with_tokenizer(run: OpenRun) -> Mapping[str, Any] | None:
    """What ``preprocessing.json`` says of reading: of a run on texts, its tokenizer as well."""
    reading = run.preprocessing.reading
    if not reading or "text" not in reading:
        return reading
    node = run.spec.config["data"].get("tokenizer")
    if node is None or node.get("_target_") == HASHING:
        made = HashingTokenizer(**{key: value for key, value in (node or {}).items() if key != "_target_"})
        node = {"_target_": HASHING, **{key: getattr(made, key) for key in SETTINGS}}
        return {"text": {**reading["text"], "tokenizer": node, "rule": RULE}}
    return {"text": {**reading["text"], "tokenizer": dict(node)}}


def trusted_tokenizer(reading: Mapping[str, Any] | None, where: str) -> dict[str, Any] | None:
    """The tokenizer's node that a file gives; None where there is none.

    Raises:
        UserError: it is none that is known to run no code of the file's.
    """
    node = ((reading or {}).get("text") or {}).get("tokenizer")
    if node is None:
        return None
    known = {HASHING: {"_target_", *SETTINGS}, PRETRAINED: {"_target_", "pretrained_model_name_or_path", "use_fast"}}
    target = node.get("_target_") if isinstance(node, Mapping) else None
    within = json.dumps(list(node.values())) if isinstance(node, Mapping) else ""
    plain = "_target_" not in within and "${" not in within
    if target not in known or not set(node) <= known[target] or not plain:
        raise UserError(
            f"{where}: names a tokenizer that is not taken from a file, {str(node)[:120]}; make input_ids and attention_mask with "
            "it yourself, or use the run in place of the file"
        )
    return dict(node)
