"""A vocabulary smaller than the characters of a corpus: the rarest become bytes, or the vocabulary grows."""

import collections

import pytest
import tensorflow as tf

from seq2serve.models.config import TokenizerConfig
from seq2serve.models.tokenizers.tokenizer import learn_tokenizer, load_tokenizer
from seq2serve.models.tokenizers.vocabulary_fit import fit_vocabulary

# Like English and Japanese: 2,243 different characters, most of which are rare.
RARE = [chr(0x4E00 + number) for number in range(2200)]
WORDS = collections.Counter({"the": 900, "light": 500, "is": 700, "on": 600, "A\u0308rger": 9, "\x01": 3})
WORDS.update({"".join(RARE[first : first + 10]): 2200 - first for first in range(0, 2200, 10)})
TEXT = f"the light {RARE[0]} {RARE[-1]}"


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_the_rarest_characters_become_bytes(model_type, tmp_path):
    fitted = fit_vocabulary(WORDS, TokenizerConfig(vocab_size=2000, model_type=model_type))
    assert fitted.notice.startswith("1,342 of 2,211 different characters (")
    assert learn_tokenizer(fitted.words.items(), fitted.config, str(tmp_path)) <= 2000
    tokenizer = load_tokenizer(str(tmp_path))
    ids = tokenizer.tokenize(tf.constant([TEXT, RARE[-1]]))
    assert tokenizer.detokenize(ids).numpy()[0].decode() == TEXT
    assert b"<0xE5>" in tokenizer.id_to_piece(ids.flat_values).numpy()  # the first byte of the rarest character


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({"kind": "wordpiece"}, 5427),
        ({"byte_fallback": False}, 3216),
        ({"byte_fallback": False, "kind": "characters"}, 2216),
    ],
)
def test_without_bytes_the_vocabulary_grows(settings, size, tmp_path):
    fitted = fit_vocabulary(WORDS, TokenizerConfig(vocab_size=2000, **settings))
    assert fitted.notice.startswith(
        f"the vocabulary grew from tokenizer.vocab_size=2,000 to at most {size:,} pieces, because the text has 2,211 "
    )
    assert learn_tokenizer(fitted.words.items(), fitted.config, str(tmp_path)) <= size
    tokenizer = load_tokenizer(str(tmp_path))
    assert tokenizer.detokenize(tokenizer.tokenize(tf.constant([TEXT]))).numpy()[0].decode() == TEXT


@pytest.mark.parametrize("vocab_size", [2472, 2471])
def test_nothing_changes_exactly_if_every_character_fits(vocab_size, tmp_path):
    """SentencePiece agrees: 2,211 characters, the space, four control pieces and 256 bytes."""
    fitted = fit_vocabulary(WORDS, TokenizerConfig(vocab_size=vocab_size))
    assert (fitted.notice == "") == (vocab_size == 2472) == (fitted.words is WORDS)
    assert learn_tokenizer(fitted.words.items(), fitted.config, str(tmp_path)) <= vocab_size


def test_a_smaller_coverage_needs_fewer_pieces(tmp_path):
    fitted = fit_vocabulary(WORDS, TokenizerConfig(vocab_size=2470, character_coverage=0.98))
    assert fitted.notice == ""
    assert learn_tokenizer(fitted.words.items(), fitted.config, str(tmp_path)) <= 2470


@pytest.mark.parametrize("vocab_size", [8, 2000])
def test_a_tokenizer_of_bytes_has_the_same_pieces_for_every_size(vocab_size, tmp_path):
    fitted = fit_vocabulary(WORDS, TokenizerConfig(kind="bytes", vocab_size=vocab_size))
    assert learn_tokenizer(fitted.words.items(), fitted.config, str(tmp_path)) == 261
