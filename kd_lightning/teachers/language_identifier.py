"""py3langid as an estimator of scikit-learn's kind: a black box that says the language of a text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kd_lightning.errors import UserError


class LanguageIdentifier:
    """Naive Bayes on byte n-grams, trained by its authors on 97 languages (Lui & Baldwin 2012, ACL demo 25-30).

    It needs ``pip install py3langid`` (BSD-3-Clause). Nothing is fitted: :meth:`fit` only notes the classes.

    Args:
        languages: ISO codes, in the order of the data's class numbers.
    """

    def __init__(self, languages: Sequence[str]) -> None:
        try:
            from py3langid.langid import MODEL_FILE
            from py3langid.langid import LanguageIdentifier as Identifier
        except ImportError as error:
            raise UserError("teacher.estimator: needs py3langid: pip install --no-deps py3langid") from error
        self.languages = list(languages)
        self._identifier = Identifier.from_model_file(MODEL_FILE, norm_probs=True)
        try:
            self._identifier.set_languages(self.languages)
        except ValueError as error:
            raise UserError(f"teacher.estimator.languages: {error}") from error
        self.classes_ = np.arange(len(self.languages))

    def fit(self, texts: np.ndarray, targets: np.ndarray) -> LanguageIdentifier:
        """Nothing is learned of them."""
        return self

    def predict_proba(self, texts: np.ndarray) -> np.ndarray:
        """Probabilities (N, C) of N texts."""
        said = [dict(self._identifier.rank(text)) for text in texts]
        return np.array([[row[language] for language in self.languages] for row in said], dtype=np.float64)

    def predict(self, texts: np.ndarray) -> np.ndarray:
        """The likeliest class of each of N texts."""
        likeliest: np.ndarray = self.predict_proba(texts).argmax(1)
        return likeliest
