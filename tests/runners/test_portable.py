"""Beam's portable job service, with workers separate from the program that starts the job: the same bytes.

Staging and pickling work as on a cluster, so that errors in them are found without one.
"""

import sys

import apache_beam as beam
import pytest

from seq2serve.components.base.component import Context
from seq2serve.components.storage.beam_runner import beam_pipeline
from seq2serve.components.transform.preprocessing import Preprocessing
from seq2serve.components.transform.workers import WriteIds

JOB_SERVICE = ("--runner=PortableRunner", "--job_endpoint=embed")
WORKER = f"{sys.executable} -m apache_beam.runners.worker.sdk_worker_main"


def test_workers_of_the_job_service_and_an_object_store_have_the_same_bytes(run_components, blobs):
    files, properties = run_components()
    assert len(files) > 30
    assert run_components(*JOB_SERVICE, "--environment_type=LOOPBACK") == (files, properties)
    assert run_components("--direct_runner_bundle_repeat=1") == (files, properties), "a repeated bundle changed it"
    assert run_components(url="memory://bucket/runs") == (files, properties)
    folders = {name.split("/")[-2] for name in blobs}
    assert {"Tokenizer", "rejects", "Split-train", "variables", "InferenceResult"} <= folders


@pytest.mark.runners
def test_workers_in_separate_processes_write_the_same_bytes(run_components):
    worker = ("--environment_type=beam:env:harness_subprocess_python:v1", f"--environment_config={WORKER}")
    assert run_components(*JOB_SERVICE, *worker) == run_components()


@pytest.mark.parametrize("options", [(), (*JOB_SERVICE, "--environment_type=LOOPBACK")])
def test_a_missing_tokenizer_fails_before_any_row_is_read(tmp_path, options):
    shards = [("train", f"{tmp_path}/rows-{number}", f"{tmp_path}/ids-{number}") for number in range(3)]
    write = WriteIds(Preprocessing(("source",), 50), {}, f"{tmp_path}/tokenizer")
    with pytest.raises(RuntimeError, match=r"tokenizer.json"), beam_pipeline(Context(options)) as pipeline:
        pipeline | beam.Create(shards) | beam.ParDo(write)
    assert not list(tmp_path.iterdir()), "a shard was started"
