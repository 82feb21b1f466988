"""Through Beam's portable job service, with workers apart from what starts the job: the same bytes as in one process.

Staging and pickling are those of a cluster, so that their faults show without one.
"""

import sys

import apache_beam as beam
import pytest

from components.beam_runner import beam_pipeline
from components.component import Context
from components.transform import Preprocessing
from components.transform_beam import WriteIds

JOB_SERVICE = ("--runner=PortableRunner", "--job_endpoint=embed")
WORKER = f"{sys.executable} -m apache_beam.runners.worker.sdk_worker_main"


def test_the_same_bytes_come_of_workers_behind_the_job_service_and_on_an_object_store(run_components, blobs):
    files, properties = run_components()
    assert len(files) > 30
    assert run_components(*JOB_SERVICE, "--environment_type=LOOPBACK") == (files, properties)
    assert run_components("--direct_runner_bundle_repeat=1") == (files, properties), "work that is done twice"
    assert run_components(url="memory://bucket/runs") == (files, properties)
    written = {name.split("/")[-2] for name in blobs}
    assert {"Tokenizer", "rejects", "Split-train", "variables", "InferenceResult"} <= written


@pytest.mark.runners
def test_workers_in_processes_of_their_own_write_the_same_bytes(run_components):
    worker = ("--environment_type=beam:env:harness_subprocess_python:v1", f"--environment_config={WORKER}")
    assert run_components(*JOB_SERVICE, *worker) == run_components()


@pytest.mark.parametrize("options", [(), (*JOB_SERVICE, "--environment_type=LOOPBACK")])
def test_a_missing_tokenizer_fails_before_any_row_is_read(tmp_path, options):
    shards = [("train", f"{tmp_path}/rows-{number}", f"{tmp_path}/ids-{number}") for number in range(3)]
    write = WriteIds(Preprocessing(("source",), 50), {}, f"{tmp_path}/tokenizer")
    with pytest.raises(RuntimeError, match=r"tokenizer.json"), beam_pipeline(Context(options)) as pipeline:
        pipeline | beam.Create(shards) | beam.ParDo(write)
    assert not list(tmp_path.iterdir()), "no shard was begun"
