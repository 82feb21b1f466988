"""Checks before anything runs: Beam's options, and the folder to which the model will be pushed."""

from seq2serve.components.base.errors import UserError
from seq2serve.components.base.uris import absolute_uri, is_remote
from seq2serve.components.example_gen.corpora import parse_data


def checked_beam_options(
    options: list[str] | None, file: str, pipeline_root: str, serving_dir: str = ""
) -> tuple[str, ...]:
    """Refuses an argument that is not an option, and local paths that Dataflow's workers cannot reach.

    Args:
        options: the arguments after the bare --, or without one, those that the parser could not assign.
        file: path, pattern or URL of the text, or several with their roles.
        pipeline_root: a path or a URL.
        serving_dir: a path or a URL; empty if nothing is pushed.
    Returns:
        The options, unchanged.
    Raises:
        UserError: the first one is not an option, or Dataflow's workers cannot reach one of the paths.
    """
    if options and not options[0].startswith("-"):
        raise UserError(
            f"unexpected argument {options[0]!r}: pass several files as one quoted pattern, such as 'data/*.tsv'; Beam "
            f"options follow a bare -- and begin with a dash",
            code="beam-option-malformed",
            argument=options[0],
        )
    if any("dataflow" in option.lower() for option in options or () if "runner" in option.lower()):
        _check_reachable("the pipeline root", pipeline_root)
        _check_reachable("the text", *(role.pattern for role in parse_data(file)))
        _check_reachable("the serving folder", *filter(None, [serving_dir]))
    return tuple(options or ())


def check_serving_dir(serving_dir: str, task: str) -> None:
    """Checks that models of a task can be pushed to a folder; what a URL contains is left to Pusher.

    Raises:
        UserError: the folder cannot be read or written, or holds something other than models of the task.
    """
    # Imported here because it loads portalocker, which `seq2serve --help` does not need.
    from seq2serve.components.pusher.store import open_store
    from seq2serve.components.pusher.versions import check_destination

    if is_remote(serving_dir):
        open_store(serving_dir)  # its content is checked by Pusher, which has the credentials in Beam's options
        return
    try:
        check_destination(absolute_uri(serving_dir), task)
    except OSError as error:
        raise UserError(
            f"cannot push to {serving_dir}: {error.strerror}; name another folder with --serving-dir",
            code="serving-dir-unreadable",
            path=serving_dir,
        ) from error


def _check_reachable(subject: str, *paths: str) -> None:
    for path in paths:
        if not is_remote(path):
            raise UserError(
                f"Dataflow's workers reach only object stores, but {subject} is local: {path}; use a URL such as "
                f"gs://bucket/runs, or a runner whose workers mount the path, such as --runner=FlinkRunner",
                code="path-unreachable",
                path=path,
            )
