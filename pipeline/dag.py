"""READ FIRST: the pipeline, its components joined in the order in which data meets them.

Each component is a typed function in `components/<name>/component.py`; running/runner.py runs them.
"""

import dataclasses
import glob
from collections.abc import Mapping

from seq2serve.components.base.artifact import ModelFiles, PretrainedFiles, SchemaFile, TokenizerFiles
from seq2serve.components.base.component import Channel, Node, raw_files
from seq2serve.components.base.uris import absolute_uri
from seq2serve.components.bulk_inferrer.component import BulkInferrer
from seq2serve.components.evaluator.component import Evaluator
from seq2serve.components.example_gen.component import ExampleGen
from seq2serve.components.example_gen.config import InputConfig, SplitConfig
from seq2serve.components.example_gen.corpora import corpus_weights
from seq2serve.components.example_validator.component import ExampleValidator
from seq2serve.components.infra_validator.component import InfraValidator
from seq2serve.components.model_importer.component import ModelImporter
from seq2serve.components.model_importer.pretrained import Pretrained
from seq2serve.components.pusher.component import Pusher
from seq2serve.components.schema_gen.component import ImportSchemaGen, SchemaGen
from seq2serve.components.statistics_gen.component import StatisticsGen
from seq2serve.components.tasks.registry import get_task
from seq2serve.components.tasks.sizing import MAX_LENGTH, VOCABULARY
from seq2serve.components.trainer.component import Trainer
from seq2serve.components.transform.component import Transform, TransformByTokenizer
from seq2serve.components.transform.preprocessing import Preprocessing
from seq2serve.components.tuner.component import Tuner
from seq2serve.models.config import Recipe
from seq2serve.pipeline.config import PipelineConfig
from seq2serve.pipeline.run_config import LAST, RunConfig
from seq2serve.pipeline.running.last_model import last_model
from seq2serve.pipeline.running.pipeline import Pipeline
from seq2serve.pipeline.running.user_models import (
    check_trained,
    find_start,
    pretrained_settings,
    settings_of_base,
    user_models,
)

NUM_SAMPLES = 64  # rows of each shard of the test split that the pushed model answers, for people to look at


def make_pipeline(
    config: PipelineConfig,
    files: str,
    pipeline_root: str,
    serving_dir: str,
    schema_file: str = "",
    tokenizer: str = "",
    warm_start: str = "",
    pretrained: Pretrained | None = None,
) -> Pipeline:
    """Joins the components (TFX: a pipeline's `create_pipeline`).

    Args:
        config: every setting.
        files: path or pattern of the user's files, or several with their roles and weights
            (components/example_gen/corpora.py).
        pipeline_root: the folder or URL of artifacts and metadata.
        serving_dir: the folder or URL where model versions are pushed.
        schema_file: a schema that the user maintains; empty to infer one.
        tokenizer: pattern of the files of a tokenizer to use; empty to learn one.
        warm_start: pattern of the files of an earlier model whose weights training starts from; empty for none.
        pretrained: instead of both, a model in another format, whose tokenizer and weights are used.
    Returns:
        A Pipeline, its channels checked.
    """
    task = get_task(config.task)
    data_nodes, examples, schema = _data_nodes(config, files, schema_file)
    start_nodes, tokenizer_source, base_model = _start_nodes(tokenizer, warm_start, pretrained)
    transform = _transform_node(config, examples, schema, tokenizer_source)
    training_nodes = _training_nodes(config, transform, base_model, corpus_weights(files))
    trainer = training_nodes[-1]
    model = trainer.outputs["model"]
    # It also reads the last blessed model's evaluation, which is not an input but found among its earlier outputs
    # (TFX: a Resolver).
    evaluator = Evaluator(
        examples=examples,
        model=model,
        task=task,
        bar=config.evaluation.bar,
        num_examples=config.evaluation.num_examples,
        base_model=base_model,
    )
    infra_validator = InfraValidator(model=model, examples=examples)
    pusher = Pusher(
        model=model,
        model_blessing=evaluator.outputs["blessing"],
        infra_blessing=infra_validator.outputs["blessing"],
        destination=absolute_uri(serving_dir),
        task=task.name,
    )
    bulk_inferrer = BulkInferrer(
        examples=examples,
        pushed_model=pusher.outputs["pushed_model"],
        task=task,
        split="test",
        num_examples=NUM_SAMPLES,
    )
    nodes = (*data_nodes, *start_nodes, transform, *training_nodes, evaluator, infra_validator, pusher, bulk_inferrer)
    return Pipeline(task.name, absolute_uri(pipeline_root), nodes)


def _training_nodes(
    config: PipelineConfig, transform: Node, base_model: Channel | None, weights: Mapping[str, float]
) -> tuple[Node, ...]:
    """Returns the nodes that train; the last is Trainer. Tuner is there if it has something to choose."""
    inputs = {key: transform.outputs[key] for key in ("transformed_examples", "tokenizer")}
    settings = {"task": get_task(config.task), "recipe": Recipe(config.model, config.training, config.decoding)}
    more = {"base_model": base_model, "corpus_weights": weights or None}
    fine_tunes = base_model is not None and base_model.node.component is ModelImporter
    automatic = tuple(name for name in config.automatic if name.startswith(("model.", "training.")))
    searched = config.searched(warm_start=bool(base_model))
    if not (automatic or searched):
        return (Trainer(**inputs, **settings, **more),)
    tuner = Tuner(
        automatic=automatic,
        searched=searched,
        tuner_config=config.tuner,
        fine_tunes=fine_tunes,
        **inputs,
        **settings,
        **(more if searched else {}),
    )
    return tuner, Trainer(hyperparameters=tuner.outputs["best_hyperparameters"], **inputs, **settings, **more)


def make_configured_pipeline(
    chosen: RunConfig, pipeline_root: str, serving_dir: str, metadata_url: str = ""
) -> Pipeline:
    """Joins the components for what the user chose; the pipeline has the config file that repeats it.

    Args:
        chosen: files, columns and settings.
        pipeline_root, serving_dir: as for `make_pipeline`.
        metadata_url: of a shared store, in which the last model is looked up; empty for the pipeline root's own.
    Raises:
        UserError: a setting is wrong, or a tokenizer or an earlier model cannot be used.
    """
    config = chosen.pipeline_config()
    if chosen.warm_start == LAST:
        chosen = dataclasses.replace(chosen, warm_start=last_model(pipeline_root, config.task, metadata_url))
    pretrained = find_start(chosen, config.task)
    if pretrained:
        chosen = dataclasses.replace(chosen, settings=pretrained_settings(pretrained, config.task) + chosen.settings)
        config = chosen.pipeline_config()
    elif chosen.warm_start and config.automatic:
        base = settings_of_base(chosen.warm_start, get_task(config.task).parts)
        chosen = dataclasses.replace(chosen, settings=base + chosen.settings)
        config = chosen.pipeline_config()
    check_trained(config, has_base=bool(pretrained or chosen.warm_start))
    models = user_models(chosen.tokenizer, chosen.warm_start, config, chosen.settings)
    models |= {"schema_file": chosen.schema, "pretrained": pretrained}
    pipeline = make_pipeline(config, chosen.data, pipeline_root, serving_dir, **models)
    chosen.effective_text({})  # raises before anything is written
    return dataclasses.replace(pipeline, config=chosen.effective_text)


def make_validation_pipeline(config: PipelineConfig, files: str, pipeline_root: str, schema_file: str = "") -> Pipeline:
    """Joins the components that check the data, with which `make_pipeline` begins; see there for the arguments."""
    return Pipeline(config.task, absolute_uri(pipeline_root), _data_nodes(config, files, schema_file)[0])


def input_config(config: PipelineConfig) -> InputConfig:
    """Returns how files are read."""
    data = config.data
    return InputConfig(
        data.format,
        data.delimiter.replace("\\t", "\t"),
        data.unit,
        encoding=data.encoding,
        quoting=data.quoting,
        label_columns=get_task(config.task).label_columns,
    )


def _data_nodes(config: PipelineConfig, files: str, schema_file: str) -> tuple[tuple[Node, ...], Channel, Channel]:
    """Returns the nodes up to ExampleValidator, and the channels of Examples and Schema."""
    task, data = get_task(config.task), config.data
    source = raw_files(files)
    example_gen = ExampleGen(
        files=source,
        columns=config.file_columns,
        input_config=input_config(config),
        split_config=SplitConfig(
            data.eval_share, data.test_share, data.seed, data.split_key, data.overlap == "drop_from_train"
        ),
        max_reject_share=data.max_reject_share,
        slice_columns=data.slice_columns,
    )
    examples = example_gen.outputs["examples"]
    statistics_gen = StatisticsGen(examples=examples, label_columns=task.label_columns)
    statistics = statistics_gen.outputs["statistics"]
    if schema_file:
        schema_source = raw_files(schema_file, SchemaFile)
        schema_nodes = (schema_source.node, ImportSchemaGen(file=schema_source))
    else:
        schema_nodes = (SchemaGen(statistics=statistics, label_columns=task.label_columns),)
    schema = schema_nodes[-1].outputs["schema"]
    # Nothing reads its output: an error in the data stops the run here, before the expensive components.
    example_validator = ExampleValidator(statistics=statistics, schema=schema, overlap=data.overlap)
    return (source.node, example_gen, statistics_gen, *schema_nodes, example_validator), examples, schema


def _start_nodes(
    tokenizer: str, warm_start: str, pretrained: Pretrained | None
) -> tuple[tuple[Node, ...], Channel | None, Channel | None]:
    """Returns the nodes of what a run starts from, and the channels of a tokenizer and of a base model, if any."""
    if pretrained:
        files = raw_files(f"{glob.escape(str(pretrained.folder))}/*", PretrainedFiles)
        importer = ModelImporter(files=files, source=pretrained.source, licence=pretrained.licence)
        return (files.node, importer), importer.outputs["tokenizer"], importer.outputs["model"]
    tokenizer_files = raw_files(tokenizer, TokenizerFiles) if tokenizer else None
    model_files = raw_files(warm_start, ModelFiles) if warm_start else None
    return tuple(files.node for files in (tokenizer_files, model_files) if files), tokenizer_files, model_files


def _transform_node(config: PipelineConfig, examples: Channel, schema: Channel, tokenizer: Channel | None) -> Node:
    """Returns the node that turns text into ids, with a tokenizer that it learns, or with that of the channel."""
    task, data = get_task(config.task), config.data
    preprocessing = Preprocessing(
        columns=task.text_columns,
        max_length=0 if MAX_LENGTH in config.automatic else data.max_length,
        label_columns=task.label_columns,
        too_long=data.too_long,
        placeholders=config.tokenizer.placeholders,
        longest_limit=config.longest_limit,
    )
    inputs = {"examples": examples, "schema": schema, "preprocessing": preprocessing}
    if not tokenizer:
        size = 0 if VOCABULARY in config.automatic else config.tokenizer.vocab_size
        return Transform(tokenizer_config=dataclasses.replace(config.tokenizer, vocab_size=size), **inputs)
    return TransformByTokenizer(files=tokenizer, **inputs)
