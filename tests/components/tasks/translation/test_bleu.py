"""BLEU is of words, or of characters for scripts without spaces between words."""

import pytest

from seq2serve.components.tasks.translation.bleu import make_bleu

JAPANESE = ["私は昨日友達と映画を見ました。", "明日は雨が降るでしょう、傘を持って行きます。"]


@pytest.mark.parametrize(
    ("references", "tokenizer"),
    [
        (["The light is on.", "Das Licht ist an: 100 %"], "13a"),
        (["Нет места на диске", "오류가 발생했습니다"], "13a"),
        (["", "42"], "13a"),
        (JAPANESE, "char"),
        (["请输入有效的 API 密钥", "无法连接"], "char"),
        (["กรุณาลองใหม่อีกครั้ง"], "char"),
        (["Click 确定", *["The light is on."] * 5], "13a"),
    ],
)
def test_the_script_determines_the_tokenizer(references, tokenizer):
    bleu = make_bleu(references)
    bleu.corpus_score(references, [references])
    assert f"tok:{tokenizer}|" in str(bleu.get_signature())


def test_one_wrong_character_does_not_make_the_sentence_wrong():
    wrong = [text.replace("昨日", "今日").replace("雨", "雪") for text in JAPANESE]
    assert make_bleu(JAPANESE).corpus_score(wrong, [JAPANESE]).score > 60
    assert make_bleu(JAPANESE).corpus_score(JAPANESE, [JAPANESE]).score == pytest.approx(100)
