"""READ FIRST: the pipeline, its components joined in the order in which data meets them.

Comes in: a config and the user's files. Goes out: a Pipeline for the Runner.
Read next: any component you see named here; runner.py for how they are run.
"""

from components.artifact import ModelFiles, SchemaFile, TokenizerFiles
from components.bulk_inferrer import BulkInferrer
from components.component import Channel, Node, raw_files
from components.evaluator import Evaluator
from components.example_gen import ExampleGen, Splitting
from components.example_validator import ExampleValidator
from components.file_formats import Reading
from components.infra_validator import InfraValidator
from components.pusher import Pusher
from components.schema_gen import ImportSchemaGen, SchemaGen
from components.serving_store import whole_name
from components.statistics_gen import StatisticsGen
from components.task import Recipe
from components.tasks import get_task
from components.trainer import Trainer
from components.transform import Preprocessing, Transform, TransformByTokenizer
from pipeline.config import PipelineConfig
from pipeline.runner import Pipeline

NUM_SAMPLES = 64  # rows of a shard of the test split that the pushed model answers, to be looked at


def make_pipeline(
    config: PipelineConfig,
    files: str,
    pipeline_root: str,
    serving_dir: str,
    schema_file: str = "",
    tokenizer: str = "",
    warm_start: str = "",
) -> Pipeline:
    """Joins the ten components (TFX: a pipeline's `create_pipeline`).

    Args:
        config: every setting.
        files: path or pattern of the user's files, or several with their roles (components/file_formats.py).
        pipeline_root: where artifacts and metadata are kept, a path or a URL.
        serving_dir: where model versions are pushed, a path or a URL.
        schema_file: a schema that the user keeps; empty to infer one.
        tokenizer: pattern of the files of a tokenizer that the user brings; empty to learn one.
        warm_start: pattern of the files of an earlier model whose weights training starts from; empty for none.
    Returns:
        A Pipeline, its channels checked.
    """
    task = get_task(config.task)
    data_nodes, examples, schema = _data_nodes(config, files, schema_file)
    text_nodes = _text_nodes(config, examples, schema, tokenizer)
    transform = text_nodes[-1]
    base_model = raw_files(warm_start, ModelFiles) if warm_start else None
    trainer = Trainer(
        transformed_examples=transform.outputs["transformed_examples"],
        tokenizer=transform.outputs["tokenizer"],
        task=task.name,
        recipe=Recipe(config.model, config.training, config.decoding),
        base_model=base_model,
    )
    model = trainer.outputs["model"]
    # The last blessed model, which it compares with, is no input: it looks among its earlier outputs (TFX: a Resolver).
    evaluator = Evaluator(
        examples=examples,
        model=model,
        task=task.name,
        min_over_baseline=config.evaluation.min_over_baseline,
        num_examples=config.evaluation.num_examples,
    )
    infra_validator = InfraValidator(model=model, examples=examples)
    pusher = Pusher(
        model=model,
        model_blessing=evaluator.outputs["blessing"],
        infra_blessing=infra_validator.outputs["blessing"],
        destination=whole_name(serving_dir),
        task=task.name,
    )
    bulk_inferrer = BulkInferrer(
        examples=examples,
        pushed_model=pusher.outputs["pushed_model"],
        task=task.name,
        split="test",
        num_examples=NUM_SAMPLES,
    )
    given = (base_model.node,) if base_model else ()
    nodes = (*data_nodes, *text_nodes, *given, trainer, evaluator, infra_validator, pusher, bulk_inferrer)
    return Pipeline(task.name, whole_name(pipeline_root), nodes)


def make_validation_pipeline(config: PipelineConfig, files: str, pipeline_root: str, schema_file: str = "") -> Pipeline:
    """Joins the components that look at the data, with which `make_pipeline` begins; see there for the arguments."""
    return Pipeline(config.task, whole_name(pipeline_root), _data_nodes(config, files, schema_file)[0])


def _data_nodes(config: PipelineConfig, files: str, schema_file: str) -> tuple[tuple[Node, ...], Channel, Channel]:
    """Returns the nodes up to ExampleValidator, and the channels of Examples and Schema."""
    task, data = get_task(config.task), config.data
    source = raw_files(files)
    example_gen = ExampleGen(
        files=source,
        columns={column: getattr(data, column) for column in task.columns},
        reading=Reading(data.format, data.delimiter.replace("\\t", "\t"), data.unit),
        splitting=Splitting(data.eval_share, data.test_share, data.seed),
        max_reject_share=data.max_reject_share,
        slice_columns=data.slice_columns,
    )
    examples = example_gen.outputs["examples"]
    statistics_gen = StatisticsGen(examples=examples, label_columns=task.label_columns)
    statistics = statistics_gen.outputs["statistics"]
    if schema_file:
        kept = raw_files(schema_file, SchemaFile)
        schema_nodes = (kept.node, ImportSchemaGen(file=kept))
    else:
        schema_nodes = (SchemaGen(statistics=statistics, label_columns=task.label_columns),)
    schema = schema_nodes[-1].outputs["schema"]
    # Feeds nobody: an error in the data ends the run here, before what stands behind it.
    example_validator = ExampleValidator(statistics=statistics, schema=schema)
    return (source.node, example_gen, statistics_gen, *schema_nodes, example_validator), examples, schema


def _text_nodes(config: PipelineConfig, examples: Channel, schema: Channel, tokenizer: str) -> tuple[Node, ...]:
    """Returns the nodes that turn text into ids, the last of them Transform or what stands in its place."""
    task, data = get_task(config.task), config.data
    preprocessing = Preprocessing(task.text_columns, data.max_length, task.label_columns, data.too_long)
    shared = {"examples": examples, "schema": schema, "preprocessing": preprocessing}
    if not tokenizer:
        return (Transform(tokenizer_config=config.tokenizer, **shared),)
    brought = raw_files(tokenizer, TokenizerFiles)
    return brought.node, TransformByTokenizer(files=brought, **shared)
