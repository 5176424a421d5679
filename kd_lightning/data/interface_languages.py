"""Which language is it? Messages of a program in twelve languages: Django's translations, as its package holds them.

``pip install django`` (BSD-3-Clause) brings some 900 short messages in each language; they are read where it is installed.
All translations of one message are in the same split.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kd_lightning.data.text import Columns, TextData
from kd_lightning.errors import UserError

LANGUAGES = ("cs", "da", "de", "es", "fr", "hu", "it", "nl", "pl", "pt", "ro", "sv")
LEAST_LETTERS = 12

_FOLDERS = {"pt": "pt_BR"}
_PLACES = re.compile(r"%\(\w+\)[sdrif]|%[sdrif]|\{[^}]*\}|<[^>]+>|&\w+;|https?:\S+")


class InterfaceLanguages(TextData):
    """About 9,000 messages in 12 languages.

    Args:
        languages: their codes, of :data:`LANGUAGES`; the classes.
        settings: those of :class:`~kd_lightning.data.text.TextData`.
    """

    GIVEN_TO_BASE = ("text", "target", "id", "group")

    def __init__(self, languages: Sequence[str] = LANGUAGES, **settings: Any) -> None:
        unknown = [code for code in languages if code not in LANGUAGES]
        if unknown or len(languages) < 2:
            raise UserError(f"data.languages: take two or more of {', '.join(LANGUAGES)}, got {', '.join(languages)}")
        self.languages = list(languages)
        super().__init__(text="text", target="label", id="id", group="message", **settings)

    def columns(self, split: str, path: str | None) -> Columns:
        """Messages, each once in a language, with what is translated; identifiers are ``language#number``."""
        made: dict[str, list[str]] = {name: [] for name in ("text", "label", "message", "id")}
        for language in self.languages:
            seen: set[str] = set()
            for message, text in translations(language):
                if text not in seen:
                    seen.add(text)
                    for name, cell in zip(made, (text, language, message, f"{language}#{len(seen)}"), strict=True):
                        made[name].append(cell)
        return made


def translations(language: str) -> Iterator[tuple[str, str]]:
    """``(message, its translation)``, without placeholders; in a fixed order."""
    spec = find_spec("django")
    if spec is None or spec.origin is None:
        raise UserError(
            "data: these texts are Django's translations, and it is not installed: pip install --no-deps django"
        )
    folder = _FOLDERS.get(language, language)
    for path in sorted(Path(spec.origin).parent.rglob(f"locale/{folder}/LC_MESSAGES/*.po")):
        for message, translated in entries(path.read_text(encoding="utf-8")):
            text = " ".join(_PLACES.sub(" ", translated).split())
            if sum(map(str.isalpha, text)) >= LEAST_LETTERS and translated != message:
                yield message, text


def entries(catalogue: str) -> Iterator[tuple[str, str]]:
    """``(msgid, msgstr)`` of a gettext catalogue, of plurals the first; those that are not translated are left out."""
    parts: dict[str, str] = {}
    field = ""
    for line in [*catalogue.splitlines(), ""]:
        match = re.match(r'(msgid|msgid_plural|msgctxt|msgstr(?:\[\d\])?) (".*")$', line)
        if match:
            field = match[1].replace("[0]", "")
            parts[field] = str(ast.literal_eval(match[2]))
        elif line.startswith('"') and field:
            parts[field] += str(ast.literal_eval(line))
        elif not line.strip():
            if parts.get("msgid") and parts.get("msgstr"):
                yield parts["msgid"], parts["msgstr"]
            parts, field = {}, ""
