"""BLEU and chrF equal sacrebleu's."""

import pytest
from sacrebleu.metrics import BLEU, CHRF

from seq2serve.components.base.errors import UserError
from seq2serve.components.tasks.data import DataSpec
from seq2serve.components.tasks.translation.task import Translation
from seq2serve.models.config import ModelConfig


def test_translations_are_measured_as_in_sacrebleu():
    predictions, references = ["das Licht ist an", "die Tür"], ["das Licht ist aus", "die Tür ist auf"]
    rows = [{"source": "", "target": reference} for reference in references]
    measurement = Translation().measure({"translation": predictions}, rows)
    for name, metric in (("bleu", BLEU()), ("chrf", CHRF())):
        assert measurement.metrics[name] == metric.corpus_score(predictions, [references]).score
        assert measurement.signature[name] == str(metric.get_signature())
        assert 0 < measurement.metrics[name] < 100


def test_a_model_that_writes_lower_case_is_measured_without_regard_to_case():
    predictions, references = ["das licht ist an jetzt", "die tür"], ["Das Licht ist an jetzt", "Die Tür ist auf"]
    rows = [{"source": "Das Licht", "target": reference} for reference in references]
    task, answers = Translation(), {"translation": predictions}
    measurement = task.measure(answers, rows, lowercase=True)
    expected = BLEU(lowercase=True).corpus_score(predictions, [references]).score
    assert measurement.metrics["bleu"] == task.statistics(answers, rows, lowercase=True).total()["bleu"] == expected
    assert expected > task.measure(answers, rows).metrics["bleu"]
    assert all("|case:lc|" in signature for signature in measurement.signature.values())
    copied = task.measure({"translation": ["das licht ist an jetzt", "die tür ist auf"]}, rows, lowercase=True)
    assert copied.metrics["bleu"] == pytest.approx(100)
    assert (copied.is_perfect, measurement.is_perfect) == (True, False)


def test_separate_tokenizers_cannot_share_an_embedding_matrix():
    config = ModelConfig(1, 1, d_model=16, num_heads=2, dff=32, tie_embeddings=True)
    message = "^source and target have separate tokenizers, so .*; add --set model.tie_embeddings=false$"
    with pytest.raises(UserError, match=message) as error:
        Translation().implementation().make_model(config, DataSpec(20, source_vocab_size=30, max_length=16))
    assert (error.value.code, error.value.fields) == ("settings-conflict", {"setting": "model.tie_embeddings"})
