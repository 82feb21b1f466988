"""Dataflow, everything but Google's machines: the jobs that its runner would send, and what it stages for the workers.

A job with a template location is built and staged as any other, then written down instead of being sent.
"""

import contextlib
import json
import pathlib

import pytest

from components import beam_runner
from components.component import Context

dataflow_runner = pytest.importorskip("apache_beam.runners.dataflow.dataflow_runner")
pytest.importorskip("google.cloud.dataflow_v1beta3", reason="needs the extra gcp: make test-dataflow")

IMAGE = "example.org/seq2serve:1"
STEPS = [
    {"ParDo(ScanSegment)", "ParDo(WriteShard)", "ShareSegments", "ShareShards", "WriteJsonLines"},
    {"ParDo(CountShard)", "CombinePerKey(MergeCounts)", "ParDo(WriteStatistics)", "Reshuffle"},
    {"ParDo(CountLabels)", "WriteJsonLines", "Reshuffle"},
    {
        "LearnTokenizers/ParDo(CountWords)",
        "LearnTokenizers/CombinePerKey(AddCounters)",
        "LearnTokenizers/ParDo(LearnTokenizer)",
        "ParDo(WriteIds)",
        "WriteJsonLines",
        "Reshuffle",
    },
    {"InferShards", "InferShards/RunInference", "InferShards/ParDo(WriteResults)", "WriteJsonLines"},
]


@pytest.fixture
def jobs(run_components, wheel, store, monkeypatch):
    """Each Beam pipeline, on an object store, as a Dataflow job: (job, its graph, the graph's URL, what is staged)."""
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.portability.api import beam_runner_api_pb2

    run_here, found = beam_runner.beam_pipeline, []

    def build(pipeline) -> None:
        folder = f"gs://bucket/job-{len(found)}"
        flags = [
            "--project=a-project",
            "--region=europe-west1",
            "--job_name=seq2serve",
            f"--temp_location={folder}",
            f"--staging_location={folder}",
            f"--template_location={folder}/job.json",
            "--dataflow_endpoint=http://localhost:1",  # nothing is there, and nothing is asked
            "--machine_type=n2-standard-4",
            "--max_num_workers=20",
            f"--sdk_container_image={IMAGE}",
            f"--extra_package={wheel}",
        ]
        dataflow_runner.DataflowRunner().run_pipeline(pipeline, PipelineOptions(flags))
        files = store.under(folder)
        (place,) = [name for name in files if name.endswith("/pipeline.pb")]
        graph = beam_runner_api_pb2.Pipeline.FromString(files[place])
        found.append((json.loads(files["job.json"]), graph, f"{folder}/{place}", files))

    @contextlib.contextmanager
    def here_then_there(context: Context):
        with run_here(context) as pipeline:
            yield pipeline
        build(pipeline)

    monkeypatch.setattr(beam_runner, "beam_pipeline", here_then_there)
    run_components(url="gs://bucket/runs")
    return found


def test_every_beam_component_is_a_job_that_dataflow_would_take(jobs, wheel: pathlib.Path):
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
        (place,) = {environment.urn for environment in graph.components.environments.values()}
        assert place == "beam:env:docker:v1"
