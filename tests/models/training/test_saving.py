"""A saved model loads with its class, config and weights; other folders are an error."""

import numpy as np
import pytest

from seq2serve.models.config import ModelConfig
from seq2serve.models.training.saving import load_model, save_model
from seq2serve.models.transformer.models import EncoderClassifier

TINY = ModelConfig(num_encoder_layers=2, d_model=8, num_heads=2, dff=16, positions="rotary")


def test_a_saved_model_is_loaded_with_its_class_config_and_weights(tmp_path):
    model = EncoderClassifier(TINY, 12, 3)
    model.build()
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:  # norms and biases would otherwise be the same in every new model
        weight.assign(rng.normal(size=weight.shape))
    save_model(model, str(tmp_path))
    loaded = load_model(str(tmp_path))
    assert type(loaded) is EncoderClassifier
    assert loaded.get_config() == model.get_config()
    for saved, restored in zip(model.trainable_weights, loaded.trainable_weights, strict=True):
        np.testing.assert_array_equal(saved, restored)


@pytest.mark.parametrize("config", [None, "{}", '{"class": "Nothing"}', '{"class": "Transformer", "config": {"x": 1}}'])
def test_a_folder_without_a_model_is_an_error(tmp_path, config):
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(ValueError, match="does not contain a seq2serve model"):
        load_model(str(tmp_path))
