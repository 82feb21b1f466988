"""Beam pipelines with the user's options, on the local runner by default and without Beam's log output.

Workers run the `workers.py` modules of the components.
"""

import contextlib
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

from seq2serve.components.base.component import Context
from seq2serve.components.base.errors import UserError

logging.disable(logging.WARNING)  # importing Beam logs warnings about missing Google Cloud clients
try:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
    from apache_beam.portability.api import beam_provision_api_pb2
    from apache_beam.runners.job.utils import dict_to_struct
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo
    from apache_beam.runners.runner import PipelineRunner
    from apache_beam.utils import interactive_utils

    from seq2serve.components.storage.beam_files import write_file
    from seq2serve.components.storage.files import local_file, remove_file
finally:
    logging.disable(logging.NOTSET)


@contextlib.contextmanager
def beam_pipeline(context: Context) -> Iterator[beam.Pipeline]:
    """Yields a Beam pipeline to add transforms to; runs it to completion when the `with` block ends.

    Without `--runner` it uses the FnApiRunner: in this process, or in N worker processes with `--direct_num_workers=N
    --direct_running_mode=multi_processing`. Beam's DirectRunner would first try Prism, a binary that it downloads.

    Args:
        context: its `beam_options` are Beam's own, see https://beam.apache.org/documentation/runners/direct.
    Yields:
        The pipeline.
    Raises:
        UserError: an option or its value is not valid for Beam.
        RuntimeError: a worker failed; the message is the worker's error without Beam's stack traces.
    """
    options = _options(context.beam_options)
    runner = options.view_as(StandardOptions).runner or _local_runner()
    beam_logger = logging.getLogger("apache_beam")
    level = beam_logger.level
    beam_logger.setLevel(logging.INFO if context.verbose else logging.CRITICAL)
    try:
        with _without_notebook_support(), beam.Pipeline(runner=runner, options=options) as pipeline:
            yield pipeline
    except RuntimeError as error:
        raise RuntimeError(str(error).strip().splitlines()[-1].removeprefix("RuntimeError: ")) from error
    finally:
        beam_logger.setLevel(level)


class WriteJsonLines(beam.PTransform):
    """Writes a small number of JSON values to one file, for `read_json_lines` to read after the pipeline has run.

    The file has its final name from the start. If a worker is killed, a retry overwrites it, whereas Beam's own sink
    would leave a temporary folder among the files of an artifact.

    Args:
        path: on a file system that the workers and the caller can reach.
    """

    def __init__(self, path: str):
        super().__init__()
        self._path = path

    def expand(self, values: beam.PCollection) -> beam.PCollection:
        """Returns a PCollection with a single None when the file is complete."""
        return values | beam.Map(json.dumps) | beam.combiners.ToList() | beam.Map(_write_lines, self._path)


def _write_lines(lines: list[str], path: str) -> None:
    write_file(path, "".join(f"{line}\n" for line in lines).encode())


def read_json_lines(path: str) -> list[Any]:
    """Returns the values that `WriteJsonLines` wrote, in no particular order, and removes the file."""
    with local_file(path) as file, open(file, encoding="utf-8") as lines:
        values = [json.loads(line) for line in lines]
    remove_file(path)
    return values


@contextlib.contextmanager
def _without_notebook_support() -> Iterator[None]:
    """Disables Beam's detection of notebooks, which names transforms by their cells and imports pandas to do so."""
    modules = (interactive_utils, beam.pipeline)
    originals = [module.is_in_ipython for module in modules]
    for module in modules:
        module.is_in_ipython = lambda: False
    try:
        yield
    finally:
        for module, original in zip(modules, originals, strict=True):
            module.is_in_ipython = original


def _options(flags: tuple[str, ...]) -> PipelineOptions:
    options = PipelineOptions(list(flags))
    with contextlib.redirect_stderr(io.StringIO()) as parser_output:
        try:
            known = options.get_all_options()
        except SystemExit as error:
            reason = parser_output.getvalue().strip().rpartition("error: ")[2]
            raise UserError(
                f"invalid Beam option: {reason}; Beam's options are those after the bare --", code="beam-option-invalid"
            ) from error
    # A job server may add its own options, so only the local runner's options can be checked here.
    if not known["runner"]:
        unknown = set(options.get_all_options(retain_unknown_options=True)) - set(known)
        if unknown:
            names = [f"--{name}" for name in sorted(unknown)]
            raise UserError(
                f"unknown Beam option {', '.join(names)}; Beam's options are those after the bare --",
                code="beam-option-unknown",
                options=names,
            )
    return options


def _local_runner() -> PipelineRunner:
    settings = dict_to_struct({"default_sdk_harness_log_level": "WARNING"})
    provision = beam_provision_api_pb2.ProvisionInfo(pipeline_options=settings)
    return FnApiRunner(provision_info=ExtendedProvisionInfo(provision))
