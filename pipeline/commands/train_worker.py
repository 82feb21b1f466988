"""The command of the machines that train for another one: train-worker."""

import os

from seq2serve.pipeline.commands.exits import explained
from seq2serve.pipeline.commands.logs import set_up_logs
from seq2serve.pipeline.commands.options import RootOption, VerboseOption


def train_worker(pipeline_root: RootOption = "runs", verbose: VerboseOption = False) -> None:
    """Trains on this machine for a run on another one, the chief, and ends when training does.

    The environment variable TF_CONFIG names the machines, and which of them this one is.

    On the chief, run [bold]seq2serve run[/bold] with the same pipeline root. It chooses data and settings.

    Example:

    seq2serve train-worker --pipeline-root /mnt/shared/runs
    """
    with explained(verbose):
        set_up_logs(verbose)
        # Imported here because it loads portalocker, which `seq2serve --help` does not need.
        from seq2serve.pipeline.running.machines.worker import work, worker_cluster

        print(work(worker_cluster(os.environ), pipeline_root))
