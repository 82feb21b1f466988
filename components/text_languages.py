"""Which language a text is written in: a sign of rows that are not translated, or into another language.

Comes in: texts. Goes out: how many are in each language.
Read next: statistics_protos.py, which asks; anomalies.py, which judges.
"""

import collections
import functools
from collections.abc import Iterable

from py3langid.langid import MODEL_FILE, LanguageIdentifier

# At these, of 2,000 rows each of the demo (English, German, French) and of Multi30k one in a thousand at most is told
# wrong; half to nine tenths are told at all.
_MIN_LETTERS = 20
_MIN_PROBABILITY = 0.8


def languages(texts: Iterable[str]) -> collections.Counter:
    """Counts texts by language (Lui and Baldwin 2012, langid.py: naive Bayes over n-grams of bytes).

    Args:
        texts: any.
    Returns:
        ISO 639-1 code -> texts, of those that are long enough and of one language beyond doubt.
    """
    found: collections.Counter = collections.Counter()
    for text in texts:
        if sum(map(str.isalpha, text)) >= _MIN_LETTERS:
            language, probability = _identifier().classify(text)
            found[language] += probability >= _MIN_PROBABILITY
    return +found


@functools.cache
def _identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
