"""Language identification, which reveals rows that are untranslated or in the wrong language."""

import collections
import functools
from collections.abc import Iterable

from py3langid.langid import MODEL_FILE, LanguageIdentifier

# With these limits at most 1 in 1,000 texts is misidentified, and 50 to 90 % are identified at all. Measured on 2,000
# rows of the demo (English, German, French) and 2,000 rows of Multi30k.
_MIN_LETTERS = 20
_MIN_PROBABILITY = 0.8


def languages(texts: Iterable[str]) -> collections.Counter:
    """Counts texts by language (Lui and Baldwin 2012, langid.py: naive Bayes over byte n-grams).

    Args:
        texts: any texts.
    Returns:
        ISO 639-1 code -> number of texts. Texts that are too short or ambiguous are not counted.
    """
    counts: collections.Counter = collections.Counter()
    for text in texts:
        if sum(map(str.isalpha, text)) >= _MIN_LETTERS:
            language, probability = _identifier().classify(text)
            counts[language] += probability >= _MIN_PROBABILITY
    return +counts


@functools.cache
def _identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
