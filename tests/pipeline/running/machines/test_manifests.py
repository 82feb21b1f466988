"""The manifests for Kubernetes and Vertex AI: clusters, commands and pipeline roots fit together."""

import pathlib

import pytest
import typer.testing
import yaml

from seq2serve.components.base.errors import NotBlessedError, UserError
from seq2serve.pipeline.commands import app, train_worker
from seq2serve.pipeline.commands import run as run_command
from seq2serve.pipeline.running.machines import cluster
from seq2serve.pipeline.running.machines.cluster import read_cluster

FOLDER = pathlib.Path(cluster.__file__).parent


def read(name):
    """Returns a manifest; a key that is twice in a mapping is an error."""

    class Loader(yaml.SafeLoader):
        pass

    def mapping(loader, node, deep=False):
        keys = [loader.construct_object(key, deep) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"{node.start_mark}: a key is repeated"
        return yaml.SafeLoader.construct_mapping(loader, node, deep)

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    return yaml.load((FOLDER / name).read_text(), Loader)


@pytest.fixture
def root_of(monkeypatch):
    """Returns a function that parses the arguments of `seq2serve` and returns the pipeline root; nothing runs."""
    roots = []
    monkeypatch.setattr(run_command, "_run", lambda _chosen, _folder, execution, _beam: roots.append(execution))
    monkeypatch.setattr(train_worker, "set_up_logs", lambda _: None)

    def root_of(arguments):
        if arguments[0] == "train-worker":
            ((name, root),) = [argument.split("=") for argument in arguments[1:]]
            assert name == "--pipeline-root"
            return root
        result = typer.testing.CliRunner().invoke(app.app, arguments)
        assert result.exit_code == 0, result.output
        return roots.pop().pipeline_root

    return root_of


def expanded(environment, index):
    """Returns a container's environment as Kubernetes sets it: references to earlier variables are replaced."""
    values = {}
    for variable in environment:
        value = variable.get("value")
        if value is None:
            assert variable["valueFrom"]["fieldRef"]["fieldPath"].endswith(
                "['batch.kubernetes.io/job-completion-index']"
            )
            value = str(index)
        for name, known in values.items():
            value = value.replace(f"$({name})", known)
        values[variable["name"]] = value
    return values


def test_every_pod_of_the_jobset_is_the_machine_at_its_own_address(root_of):
    manifest = read("jobset.yaml")
    spec, name = manifest["spec"], manifest["metadata"]["name"]
    assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert spec["network"]["enableDNSHostnames"]
    assert spec["successPolicy"]["targetReplicatedJobs"] == ["chief"]
    (rule,) = spec["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    addresses, roots = [], set()
    for job in spec["replicatedJobs"]:
        template = job["template"]["spec"]
        assert template["parallelism"] == template["completions"]
        assert template["backoffLimit"] == 0, "a machine that starts again alone would be refused"
        (policy,) = template["podFailurePolicy"]["rules"]
        assert policy["onExitCodes"]["values"] == [UserError.exit_code, NotBlessedError.exit_code]
        pod = template["template"]["spec"]
        assert pod["restartPolicy"] == "Never", "which a podFailurePolicy needs"
        (container,) = pod["containers"]
        assert [mount["name"] for mount in container["volumeMounts"]] == [volume["name"] for volume in pod["volumes"]]
        assert container["command"] == ["seq2serve"]
        roots.add(root_of(container["args"]))
        for index in range(template["completions"]):
            machines = read_cluster(expanded(container["env"], index))
            host = f"{name}-{job['name']}-0-{index}.{spec['network']['subdomain']}"
            assert machines.addresses[machines.index] == f"{host}:2222"
            assert machines.is_chief == (container["args"][0] == "run")
            addresses.append(machines.addresses[machines.index])
    assert machines.addresses == tuple(addresses)
    assert len(roots) == 1


def test_the_first_pool_of_the_custom_job_is_the_chief_and_all_have_its_root(root_of):
    pools = read("vertex.yaml")["workerPoolSpecs"]
    assert [pool["containerSpec"]["args"][0] for pool in pools] == ["run", "train-worker"]
    assert pools[0]["replicaCount"] == 1
    (root,) = {root_of(pool["containerSpec"]["args"]) for pool in pools}
    for pool in pools:
        (mount,) = pool["nfsMounts"]
        assert root.startswith(f"/mnt/nfs/{mount['mountPoint']}/")
        assert pool["containerSpec"]["command"] == ["seq2serve"]
        assert set(pool) == {"replicaCount", "machineSpec", "nfsMounts", "containerSpec"}
