"""A pretrained model is imported as it computes, and what cannot be imported is refused with its name."""

import json

import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

from seq2serve.models.importing.families import settings_of
from tests.models.importing.small_bert import BERT, bert_tensors, write_bert


def layer_norm(x, tensors, name):
    centred = x - x.mean(-1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + BERT["layer_norm_eps"])
    return normal * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]


def dense(x, tensors, name):
    return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]


def bert_outputs(tensors: dict[str, np.ndarray], ids: list[int]) -> np.ndarray:
    """Computes BERT for one text as in Devlin et al. 2019: [T, D]."""
    x = tensors["embeddings.word_embeddings.weight"][ids]
    x = x + tensors["embeddings.position_embeddings.weight"][: len(ids)]
    x = layer_norm(x + tensors["embeddings.token_type_embeddings.weight"][0], tensors, "embeddings.LayerNorm")
    heads, width = BERT["num_attention_heads"], BERT["hidden_size"] // BERT["num_attention_heads"]
    for number in range(BERT["num_hidden_layers"]):
        name = f"encoder.layer.{number}"
        parts = [dense(x, tensors, f"{name}.attention.self.{part}") for part in ("query", "key", "value")]
        query, key, value = (part.reshape(len(ids), heads, width).transpose(1, 0, 2) for part in parts)
        scores = tf.nn.softmax(query @ key.transpose(0, 2, 1) / np.sqrt(width)).numpy()
        y = (scores @ value).transpose(1, 0, 2).reshape(len(ids), -1)
        y = dense(y, tensors, f"{name}.attention.output.dense")
        x = layer_norm(x + y, tensors, f"{name}.attention.output.LayerNorm")
        y = dense(tf.nn.gelu(dense(x, tensors, f"{name}.intermediate.dense")).numpy(), tensors, f"{name}.output.dense")
        x = layer_norm(x + y, tensors, f"{name}.output.LayerNorm")
    return x


def test_an_imported_bert_computes_the_mean_of_berts_outputs(tmp_path, run_import):
    result, model, tokenizer = run_import(write_bert(tmp_path / "bert"))
    texts = ["The cats sat on a mat", "the cat", ""]
    ids = tf.concat([tokenizer.tokenize(texts), tf.fill([3, 1], tokenizer.eos_id)], 1).to_tensor()
    theirs = [[3, 1, 6, 9, 7, 8, 11, 10, 4], [3, 1, 6, 4], [3, 4]]  # in the order of their file
    expected = [bert_outputs(bert_tensors(BERT), row).mean(0) for row in theirs]
    np.testing.assert_allclose(model.pool(ids), expected, rtol=1e-4, atol=1e-5)
    assert result.initialised == []
    assert result.ignored == ["pooler.dense.bias", "pooler.dense.weight"]
    assert model.head is None


def test_a_classifiers_head_is_imported_with_its_labels_in_alphabetical_order(tmp_path, run_import):
    labels = {"0": "spam", "1": "ham", "2": "eggs"}
    config = {"architectures": ["BertForSequenceClassification"], "id2label": labels}
    head = {"classifier.weight": np.eye(3, 8, dtype=np.float32), "classifier.bias": np.arange(3, dtype=np.float32)}
    tensors = bert_tensors(BERT)
    named = {f"bert.{name}": tensor for name, tensor in tensors.items()} | head
    result, model, _ = run_import(write_bert(tmp_path / "bert", config, named))
    pooled = np.tanh(dense(bert_outputs(tensors, [3, 6, 4])[0], tensors, "pooler.dense"))
    expected = dense(pooled, head, "classifier")[[2, 1, 0]]
    np.testing.assert_allclose(model(tf.constant([[model_id(6), 3]]))[0], expected, rtol=1e-4, atol=1e-5)
    assert result.labels == ["eggs", "ham", "spam"]
    assert result.ignored == []


def model_id(row: int) -> int:
    """Returns our id of a row of their embeddings: the control pieces come first."""
    order = [0, 2, 3, 4]
    return [*order, *(i for i in range(BERT["vocab_size"]) if i not in order)].index(row)


def test_older_names_of_norms_and_the_heads_of_pretraining_are_known(tmp_path, run_import):
    tensors = {
        f"bert.{name.replace('Norm.weight', 'Norm.gamma').replace('Norm.bias', 'Norm.beta')}": tensor
        for name, tensor in bert_tensors(BERT).items()
    }
    result, *_ = run_import(
        write_bert(tmp_path / "bert", tensors=tensors | {"cls.predictions.bias": np.zeros(12, np.float32)})
    )
    assert result.initialised == []
    assert "cls.predictions.bias" in result.ignored


def test_tensors_in_several_files_and_of_half_precision_are_read(tmp_path, run_import):
    folder = write_bert(tmp_path / "bert")
    tensors = {name: tensor.astype(np.float16) for name, tensor in bert_tensors(BERT).items()}
    names = sorted(tensors)
    (folder / "model.safetensors").unlink()
    for number, part in enumerate((names[:9], names[9:]), 1):
        path = folder / f"model-0000{number}-of-00002.safetensors"
        safetensors.numpy.save_file({name: tensors[name] for name in part}, path)
    _, model, _ = run_import(folder)
    row = tensors["embeddings.word_embeddings.weight"][6].astype(np.float32)
    np.testing.assert_array_equal(model.embedding.matrix[model_id(6)], row)


def without(name: str) -> dict[str, np.ndarray]:
    return {key: tensor for key, tensor in bert_tensors(BERT).items() if key != name}


@pytest.mark.parametrize(
    ("config", "tensors", "message"),
    [
        ({"model_type": "roberta"}, {}, r"model_type 'roberta', which is not supported; supported: bert, marian$"),
        (
            {"hidden_act": "silu"},
            {},
            r"config.json has hidden_act='silu', which is not supported, only 'gelu' or 'relu'$",
        ),
        (
            {},
            without("encoder.layer.1.output.dense.bias"),
            r"1 tensors are missing: encoder.layer.1.output.dense.bias$",
        ),
        ({}, {**bert_tensors(BERT), "adapter.a": np.zeros(1, np.float32)}, r"1 tensors are not part .*: adapter.a$"),
        (
            {"intermediate_size": 12},
            bert_tensors(BERT),
            r"intermediate.dense.weight have the shape \(8, 16\); .*\(8, 12\)$",
        ),
        ({"vocab_size": 5}, bert_tensors({**BERT, "vocab_size": 5}), r"word_embeddings.weight do not fit config.json"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path, run_import, config, tensors, message):
    with pytest.raises(ValueError, match=message):
        run_import(write_bert(tmp_path / "bert", config, tensors))


@pytest.mark.parametrize(
    ("modes", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "first"),
        ({"pooling_mode_mean_tokens": True}, "mean"),
    ],
)
def test_the_pooling_of_sentence_transformers_is_taken(tmp_path, modes, pooling):
    folder = write_bert(tmp_path / "bert")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 8, **modes}))
    assert settings_of(str(folder))["pooling"] == pooling


def test_an_unknown_pooling_is_refused(tmp_path):
    folder = write_bert(tmp_path / "bert")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}')
    with pytest.raises(ValueError, match=r"1_Pooling/config.json has pooling_mode_max_tokens, which is not supported$"):
        settings_of(str(folder))


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (
            '[{"type": "sentence_transformers.models.Dense"}]',
            "modules.json has the module Dense, which is not supported$",
        ),
        ("{", "modules.json is not a list of modules with their types$"),
        ('[{"name": "0"}]', "modules.json is not a list of modules with their types$"),
    ],
)
def test_other_modules_of_sentence_transformers_are_refused(tmp_path, modules, message):
    folder = write_bert(tmp_path / "bert")
    (folder / "modules.json").write_text(modules)
    with pytest.raises(ValueError, match=message):
        settings_of(str(folder))


def test_pickles_are_not_read(tmp_path, run_import):
    folder = write_bert(tmp_path / "bert")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"safetensors; pytorch_model.bin may run code when it is read: convert it"):
        run_import(folder)


def test_a_damaged_file_is_named(tmp_path, run_import):
    folder = write_bert(tmp_path / "bert")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"model.safetensors cannot be read: "):
        run_import(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "has no config.json, as in Hugging Face's layout, and no model file of Marian$"),
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
    ],
)
def test_a_missing_or_damaged_config_is_named(tmp_path, text, message):
    path = write_bert(tmp_path / "bert") / "config.json"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(ValueError, match=message):
        settings_of(str(path.parent))


def test_a_config_without_a_size_is_refused(tmp_path):
    path = write_bert(tmp_path / "bert") / "config.json"
    path.write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match=r"config.json lacks 'num_hidden_layers'$"):
        settings_of(str(path.parent))
