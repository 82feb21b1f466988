"""The tokenizers and models that a person passes to a run, as patterns of their files."""

import glob
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from seq2serve.components.base.artifact import WEIGHTS
from seq2serve.components.base.errors import UserError
from seq2serve.components.example_gen.corpora import parse_roles
from seq2serve.components.model_importer.pretrained import NAMED, Pretrained, find_pretrained
from seq2serve.components.storage.data_records import PRETRAINED, read_record
from seq2serve.components.tasks.registry import TASKS
from seq2serve.components.tasks.sizing import FINE_TUNING
from seq2serve.pipeline.config import AUTO, PipelineConfig, value_text
from seq2serve.pipeline.run_config import RunConfig

_OF_CLASSIFIERS = ("ngram_buckets", "begin_marker", "pooling")
_ONLY_LAYERS = {"EncoderClassifier": "num_encoder_layers", "DecoderLanguageModel": "num_decoder_layers"}


def user_models(tokenizer: str, warm_start: str, config: PipelineConfig, settings: Iterable[str]) -> dict[str, str]:
    """Returns the arguments `tokenizer` and `warm_start` of `make_pipeline`, patterns of files; empty for none.

    Args:
        tokenizer: a Tokenizer's folder, a SentencePiece model, or one per column such as source=DIR,target=DIR. If it
            is empty, a warm start uses the tokenizer of the earlier model.
        warm_start: folder of the Model, or of its Format-Keras, whose weights training starts from; empty for none.
        config: settings of the run; with `training.warm_start_optimizer` training starts from the state of the earlier
            model's optimizer, too.
        settings: those that the person chose, in the syntax of `--set`; `config` contains them.
    Raises:
        UserError: the folder has no weights, no configuration, no tokenizer, or no optimizer state where one is needed;
            or a setting of the tokenizer differs from the tokenizer that is used.
    """
    models = _models(tokenizer, warm_start, config.training.warm_start_optimizer)
    if models["tokenizer"]:
        names = [setting.partition("=")[0].strip().partition(".") for setting in settings]
        values = {key: getattr(config.tokenizer, key) for section, _, key in names if section == "tokenizer"}
        _check_settings(models["tokenizer"], values)
    return models


def check_trained(config: PipelineConfig, has_base: bool) -> None:
    """Refuses a run without training that has no model to start from, so that answers would be random, or a search."""
    training = config.training
    if training.steps or training.epochs or training.minutes:
        return
    if config.tuner.searches:
        raise UserError(
            "settings tuner.trials and tuner.minutes: there is nothing to search with training.steps=0",
            code="settings-conflict",
        )
    if not has_base:
        raise UserError(
            "setting training.steps=0 exports the model that training starts from, and there is none: name one with "
            "--from or --warm-start",
            code="base-missing",
            setting="training.steps",
        )


def find_start(chosen: RunConfig, task: str) -> Pretrained | None:
    """Returns the pretrained model that a run starts from; None if it names none.

    Raises:
        UserError: it is unknown, for another task, or cannot be downloaded; or a preset or a setting of the tokenizer
            does not fit to it.
    """
    if not chosen.start_from:
        return None
    if chosen.preset not in ("", AUTO):
        raise UserError(
            f"--preset {chosen.preset} trains from scratch and does not fit --from {chosen.start_from}: leave it out, "
            "and change single settings with --set",
            code="preset-unfit",
        )
    if fixed := [name for name in map(_name, chosen.settings) if name.startswith("tokenizer.")]:
        raise UserError(
            f"setting {fixed[0]} cannot be applied: the tokenizer is that of {chosen.start_from}; remove the setting",
            code="tokenizer-fixed",
            settings=fixed,
        )
    if chosen.start_from in NAMED and NAMED[chosen.start_from].parts != TASKS[task].parts:
        raise _other_task(chosen.start_from, NAMED[chosen.start_from].parts, task)
    return find_pretrained(chosen.start_from)


def _other_task(name: str, parts: tuple[str, ...], task: str) -> UserError:
    tasks = " or ".join(known for known, other in TASKS.items() if other.parts == parts)
    message = f"{name} is a model for {tasks}, not for {task}; set --task, or start from another model"
    return UserError(message, code="pretrained-task", path=name, task=task)


def _name(setting: str) -> str:
    return setting.partition("=")[0].strip()


def pretrained_settings(pretrained: Pretrained, task: str) -> tuple[str, ...]:
    """Returns the settings of the architecture that the weights of a pretrained model need, in the syntax of `--set`.

    Raises:
        UserError: the folder has no configuration, its architecture is not supported, or not for this task.
    """
    from seq2serve.models.importing.families import parts_of, settings_of  # NumPy, which a cached run does not need

    folder = str(pretrained.folder)
    try:
        parts, values = parts_of(folder), settings_of(folder)
    except ValueError as error:
        raise UserError(f"cannot import {folder}: {error}", code="import-impossible", path=folder) from error
    if parts != TASKS[task].parts:
        raise _other_task(folder, parts, task)
    return tuple(f"model.{key}={value_text(value)}" for key, value in values.items())


def settings_of_base(warm_start: str, parts: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the settings of an earlier model's architecture, which a new model has to share to take its weights.

    Args:
        warm_start: folder of the Model, or of its Format-Keras.
        parts: those of "encoder" and "decoder" that the new model has.
    Returns:
        Settings in the syntax of `--set`. A model that has only one of encoder and decoder starts both. Those of a
        fine-tuning if a pretrained model is behind it.
    Raises:
        UserError: the folder has no weights, no configuration or no tokenizer.
    """
    path = _keras_folder(Path(warm_start)) / "config.json"
    try:
        description = json.loads(path.read_bytes())
        kind, config = description["class"], description["config"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"cannot start from {path.parent}: config.json is not that of a model", code="model-invalid", path=str(path)
        ) from error
    values = {key: value for key, value in config.items() if "dropout" not in key}
    if only := _ONLY_LAYERS.get(kind):
        values |= dict.fromkeys(("num_encoder_layers", "num_decoder_layers"), values[only])
    fine_tuning, has_labels = {}, parts == ("encoder",)
    if (read_record(str(path.parent)) or {}).get(PRETRAINED):
        values |= {key: value for key, value in config.items() if "dropout" in key}
        rule = FINE_TUNING[("encoder",) if has_labels else ("encoder", "decoder")]
        fine_tuning = {"training.learning_rate": rule.learning_rate, "training.epochs": float(rule.epochs)}
        fine_tuning |= {"training.token_dropout": 0.0, "model.ngram_buckets": 0} if has_labels else {}
    for key in _OF_CLASSIFIERS:  # models of another kind have none of these
        if not (has_labels and values.get(key)):
            values.pop(key, None)
    if len(parts) < 2:
        values.pop("decoder", None)  # its kind is that of a translator's
    settings = {f"model.{key}": value for key, value in values.items()} | fine_tuning
    return tuple(f"{name}={value_text(value)}" for name, value in settings.items())


def _models(tokenizer: str, warm_start: str, with_optimizer: bool) -> dict[str, str]:
    if not warm_start:
        if with_optimizer:
            raise UserError(
                "setting training.warm_start_optimizer needs an earlier model: pass its folder with --warm-start",
                code="warm-start-missing",
                setting="training.warm_start_optimizer",
            )
        return {"tokenizer": _tokenizer_files(tokenizer), "warm_start": ""}
    folder = _keras_folder(Path(warm_start))
    model = f"{glob.escape(str(folder))}/**"
    if with_optimizer:
        model = f"model={model},optimizer={glob.escape(str(_checkpoints(folder)))}/ckpt-*"
    return {"tokenizer": _tokenizer_files(tokenizer or str(folder / "tokenizer")), "warm_start": model}


def _tokenizer_files(tokenizer: str) -> str:
    roles = [(role.column, Path(role.pattern)) for role in (parse_roles(tokenizer) if tokenizer else ())]
    if [column for column, _ in roles] == [""] and not (roles[0][1] / "tokenizer.json").exists():
        # The folder of a Tokenizer that has a folder per column.
        roles = [(path.parent.name, path.parent) for path in sorted(roles[0][1].glob("*/tokenizer.json"))] or roles
    patterns = [(column, f"{glob.escape(str(path))}/*" if path.is_dir() else path) for column, path in roles]
    return ",".join(f"{column}={pattern}" if column else str(pattern) for column, pattern in patterns)


def _check_settings(tokenizer: str, values: dict[str, Any]) -> None:
    """Checks settings of `[tokenizer]` against a tokenizer that is used instead of learning one.

    Args:
        tokenizer: patterns of its files.
        values: key -> value that the person chose.
    Raises:
        UserError: a value differs from the tokenizer's own, or the tokenizer does not say its own.
    """
    roles = parse_roles(tokenizer)
    for role in roles:
        own = {"shared": len(roles) == 1, **_own_settings(role.pattern, values)}
        if different := [key for key, value in values.items() if not _applies(key, value, own.get(key))]:
            names = " and ".join(f"tokenizer.{key}={value_text(values[key])}" for key in different)
            facts = ", ".join(f"{key}={value_text(own[key]) if key in own else 'unknown'}" for key in different)
            path = role.pattern.removesuffix("/*")
            raise UserError(
                f"{names} cannot be applied: the run uses the tokenizer {path} ({facts}) instead of learning "
                "one. Remove the setting, or learn a tokenizer: without --tokenizer and --warm-start",
                code="tokenizer-fixed",
                settings=[f"tokenizer.{key}" for key in different],
                path=path,
            )


def _applies(key: str, value: Any, own: Any) -> bool:
    """Returns whether a setting holds for a tokenizer whose own value is `own`, None if it is unknown."""
    if key == "vocab_size":  # the most pieces that may be learned; a small corpus yields fewer
        return own is not None and own <= value
    return own == value


def _own_settings(pattern: str, values: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings of a tokenizer; of a SentencePiece model, its kind and those that are applied to it."""
    paths = [Path(path) for path in sorted(glob.glob(pattern))]
    if description := next((path for path in paths if path.name == "tokenizer.json"), None):
        try:
            settings = json.loads(description.read_bytes())
        except ValueError:  # Transform reports the file
            settings = {}
        if isinstance(settings, dict) and "kind" in settings:  # other libraries use this name for a file, too
            return {key: value for key, value in settings.items() if key != "shared"}
    return {"kind": "sentencepiece"} | {key: value for key, value in values.items() if key == "placeholders"}


def _keras_folder(folder: Path) -> Path:
    for candidate in (folder / "Format-Keras", folder):
        is_complete = all((candidate / name).is_file() for name in ("config.json", WEIGHTS))
        if is_complete and any((candidate / "tokenizer").glob("**/tokenizer.json")):
            return candidate
    raise UserError(
        f"no model to start from in {folder}: pass the folder of a Trainer's model, such as runs/Trainer/model/7, "
        f"which has weights and tokenizer in its Format-Keras; a pushed version has neither",
        code="model-missing",
        path=str(folder),
    )


def _checkpoints(keras_folder: Path) -> Path:
    """Returns the folder of the checkpoint after the last step of the training of a model."""
    model = keras_folder.absolute().parent
    folder = model.parent.parent / "model_run" / model.name / "checkpoints"
    if not any(folder.glob("ckpt-*.index")):
        raise UserError(
            f"no optimizer state for {keras_folder}: file not found: {folder}/ckpt-*; it is in the pipeline root in "
            "which the model was trained. Pass the model's folder there, or set training.warm_start_optimizer=false",
            code="optimizer-missing",
            path=str(folder),
        )
    return folder
