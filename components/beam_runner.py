"""Beam, started the way the user asked for: options verbatim, the local runner by default, quiet.

Comes in: Context.beam_options. Goes out: a Beam pipeline that runs on leaving the `with`, and small results of it.
Read next: example_gen.py for a component that uses it, example_gen_beam.py for what runs on the workers.
"""

import contextlib
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

from components.component import Context
from components.errors import UserError

logging.disable(logging.WARNING)  # Beam's import warns of Google Cloud clients nobody asked for
try:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
    from apache_beam.portability.api import beam_provision_api_pb2
    from apache_beam.runners.job.utils import dict_to_struct
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo
    from apache_beam.runners.runner import PipelineRunner
    from apache_beam.utils import interactive_utils

    from components.remote_files import remove_file, write_file
finally:
    logging.disable(logging.NOTSET)


@contextlib.contextmanager
def beam_pipeline(context: Context) -> Iterator[beam.Pipeline]:
    """Makes a Beam pipeline, to be filled inside the `with`, and runs it to the end when that is left.

    Without `--runner` it is the FnApiRunner, in this process or, with `--direct_num_workers=N
    --direct_running_mode=multi_processing`, in N others. Beam's DirectRunner would first look for Prism, a binary
    that it downloads.

    Args:
        context: its `beam_options` are Beam's own, see https://beam.apache.org/documentation/runners/direct.
    Yields:
        The pipeline.
    Raises:
        UserError: Beam does not know an option, or cannot read its value.
        RuntimeError: a worker failed; the message is the failure itself without Beam's frames around it.
    """
    options = _options(context.beam_options)
    runner = options.view_as(StandardOptions).runner or _local_runner()
    beam_logger = logging.getLogger("apache_beam")
    level = beam_logger.level
    beam_logger.setLevel(logging.INFO if context.verbose else logging.CRITICAL)
    try:
        with _outside_of_cells(), beam.Pipeline(runner=runner, options=options) as pipeline:
            yield pipeline
    except RuntimeError as error:
        raise RuntimeError(str(error).strip().splitlines()[-1].removeprefix("RuntimeError: ")) from error
    finally:
        beam_logger.setLevel(level)


class WriteJsonLines(beam.PTransform):
    """Writes a few JSON values to one file, for `read_json_lines` once the pipeline has run.

    By one name from the start: of a worker that is killed Beam's own sink would leave a temporary folder among the
    files of an artifact, where this one's is written anew.

    Args:
        path: on a file system that workers and the caller both reach.
    """

    def __init__(self, path: str):
        super().__init__()
        self._path = path

    def expand(self, values: beam.PCollection) -> beam.PCollection:
        """Returns None, once, when the file is there."""
        return values | beam.Map(json.dumps) | beam.combiners.ToList() | beam.Map(_write_lines, self._path)


def _write_lines(lines: list[str], path: str) -> None:
    write_file(path, "".join(f"{line}\n" for line in lines).encode())


def read_json_lines(path: str) -> list[Any]:
    """Returns the values that `WriteJsonLines` wrote, in no particular order, and removes the file."""
    with beam.io.filesystems.FileSystems.open(path) as file:
        values = [json.loads(line) for line in io.TextIOWrapper(file, encoding="utf-8")]
    remove_file(path)
    return values


@contextlib.contextmanager
def _outside_of_cells() -> Iterator[None]:
    """Lets Beam work in a notebook as elsewhere: there it would name transforms by cells, by way of pandas."""
    modules = (interactive_utils, beam.pipeline)
    before = [module.is_in_ipython for module in modules]
    for module in modules:
        module.is_in_ipython = lambda: False
    try:
        yield
    finally:
        for module, function in zip(modules, before, strict=True):
            module.is_in_ipython = function


def _options(flags: tuple[str, ...]) -> PipelineOptions:
    options = PipelineOptions(list(flags))
    with contextlib.redirect_stderr(io.StringIO()) as complaint:
        try:
            known = options.get_all_options()
        except SystemExit as error:
            reason = complaint.getvalue().strip().rpartition("error: ")[2]
            raise UserError(f"Beam cannot read its options: {reason}") from error
    # A job server may add options of its own, so only the local runner's can be told right from wrong here.
    if not known["runner"]:
        unknown = set(options.get_all_options(retain_unknown_options=True)) - set(known)
        if unknown:
            names = ", ".join(f"--{name}" for name in sorted(unknown))
            raise UserError(f"Beam has no option {names}; its options are what stands after the bare --")
    return options


def _local_runner() -> PipelineRunner:
    settings = dict_to_struct({"default_sdk_harness_log_level": "WARNING"})
    provision = beam_provision_api_pb2.ProvisionInfo(pipeline_options=settings)
    return FnApiRunner(provision_info=ExtendedProvisionInfo(provision))
