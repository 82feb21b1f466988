"""Dataflow, without Google's machines: the jobs that its runner would submit, and the files that it stages for workers.

A job with a template location is built and staged like any other, and then written to a file instead of submitted.
"""

import contextlib
import json
import pathlib

import pytest

from seq2serve.components.base.component import Context
from seq2serve.components.storage.beam_runner import beam_pipeline

dataflow_runner = pytest.importorskip("apache_beam.runners.dataflow.dataflow_runner")
pytest.importorskip("google.cloud.dataflow_v1beta3", reason="needs the extra gcp: make test-dataflow")

IMAGE = "example.org/seq2serve:1"
# Where each component runs its Beam pipelines.
MODULES = ("example_gen.shard_job", "statistics_gen.executor", "transform.executor", "bulk_inferrer.executor")
# Some steps of each job, in the order of the jobs.
STEPS = [
    {"WriteShards", "HashHeldOut", "ShareShards", "WriteJsonLines"},
    {"ParDo(CountShard)", "CombinePerKey(MergeCounts)", "ParDo(WriteStatistics)", "Reshuffle"},
    {"ParDo(CountLabels)", "WriteJsonLines", "Reshuffle"},
    {
        "LearnTokenizers/ParDo(CountWords)",
        "LearnTokenizers/CombinePerKey(add_counters)",
        "LearnTokenizers/ParDo(LearnTokenizer)",
        "ParDo(WriteIds)",
        "WriteJsonLines",
        "Reshuffle",
    },
    {"InferShards", "InferShards/RunInference", "InferShards/ParDo(WriteResults)", "WriteJsonLines"},
]


@pytest.fixture
def jobs(run_components, wheel, store, monkeypatch):
    """Each Beam pipeline, on an object store, as a Dataflow job: (job, its graph, URL of the graph, staged files)."""
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.portability.api import beam_runner_api_pb2

    jobs = []

    def build(pipeline) -> None:
        folder = f"gs://bucket/job-{len(jobs)}"
        flags = [
            "--project=a-project",
            "--region=europe-west1",
            "--job_name=seq2serve",
            f"--temp_location={folder}",
            f"--staging_location={folder}",
            f"--template_location={folder}/job.json",
            "--dataflow_endpoint=http://localhost:1",  # no server, and no requests
            "--machine_type=n2-standard-4",
            "--max_num_workers=20",
            f"--sdk_container_image={IMAGE}",
            f"--extra_package={wheel}",
        ]
        dataflow_runner.DataflowRunner().run_pipeline(pipeline, PipelineOptions(flags))
        files = store.under(folder)
        (name,) = [name for name in files if name.endswith("/pipeline.pb")]
        graph = beam_runner_api_pb2.Pipeline.FromString(files[name])
        jobs.append((json.loads(files["job.json"]), graph, f"{folder}/{name}", files))

    @contextlib.contextmanager
    def run_and_build(context: Context):
        with beam_pipeline(context) as pipeline:
            yield pipeline
        build(pipeline)

    for name in MODULES:
        monkeypatch.setattr(f"seq2serve.components.{name}.beam_pipeline", run_and_build)
    run_components(url="gs://bucket/runs")
    return jobs


def test_every_beam_component_is_a_valid_dataflow_job(jobs, wheel: pathlib.Path):
    assert len(jobs) == len(STEPS)
    for (job, graph, url, files), steps in zip(jobs, STEPS, strict=True):
        names = {transform.unique_name for transform in graph.components.transforms.values()}
        assert steps <= names, names
        environment = job["environment"]
        (pool,) = environment["workerPools"]
        assert pool["machineType"] == "n2-standard-4"
        assert pool["autoscalingSettings"]["maxNumWorkers"] == 20
        assert [image["containerImage"] for image in pool["sdkHarnessContainerImages"]] == [IMAGE]
        assert environment["sdkPipelineOptions"]["options"]["pipelineUrl"] == url
        staged = {package["name"] for package in pool["packages"]}
        assert wheel.name in staged
        assert files[f"{url.split('/')[-2]}/{wheel.name}"] == wheel.read_bytes()
        (urn,) = {environment.urn for environment in graph.components.environments.values()}
        assert urn == "beam:env:docker:v1"
