"""Tuner: the settings of model and training that the user does not set (TFX: Tuner)."""

from seq2serve.components.base.artifact import (
    BaseModel,
    HyperParameters,
    Tokenizer,
    TransformedExamples,
    TunerResults,
)
from seq2serve.components.base.component import Context, Input, Output, component
from seq2serve.components.tasks.task import Task
from seq2serve.components.tuner.config import TunerConfig
from seq2serve.models.config import Recipe


@component
def Tuner(
    transformed_examples: Input[TransformedExamples],
    tokenizer: Input[Tokenizer],
    best_hyperparameters: Output[HyperParameters],
    tuner_results: Output[TunerResults],
    task: Task,
    recipe: Recipe,
    automatic: tuple[str, ...],
    searched: tuple[str, ...],
    tuner_config: TunerConfig,
    context: Context,
    base_model: Input[BaseModel] | None = None,
    corpus_weights: dict[str, float] | None = None,
    fine_tunes: bool = False,
) -> None:
    """Chooses settings by the rules of tasks/sizing.py, and by a search if `tuner_config` asks for one.

    By rule, the same data give the same settings on every machine. A search trains with settings from the table in
    space.py and compares their models on the eval split. The first trial has the settings by rule, so the result is
    never worse on that split. A search that was killed resumes, and one with more trials continues an earlier one;
    unless it ends by `minutes`, its result is that of an uninterrupted search.

    Args:
        transformed_examples: splits `train` and `eval`; it has no test split.
        tokenizer: of the ids.
        best_hyperparameters: see artifact.HyperParameters.
        tuner_results: see artifact.TunerResults.
        task: the application.
        recipe: the user's settings; those that are chosen are overwritten.
        automatic: the names of the settings to choose by rule, of `[model]` and `[training]`.
        searched: the names of the settings that the search may change; see space.searchable.
        tuner_config: number of trials and time; without them there is no search.
        context: `scratch` holds the trials of a search.
        base_model: the earlier model whose weights each trial starts from.
        corpus_weights: as for Trainer.
        fine_tunes: whether training starts from a pretrained model, for which other rules hold.
    Raises:
        UserError: all trials failed.
    Source: https://www.tensorflow.org/tfx/guide/tuner
    """
    from seq2serve.components.tuner.executor import Problem, tune

    problem = Problem(transformed_examples, tokenizer, base_model, task, recipe, searched, corpus_weights, fine_tunes)
    tune(problem, automatic, tuner_config, best_hyperparameters, tuner_results, context)
