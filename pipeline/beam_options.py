"""What stands after a bare --, looked at before anything runs.

Comes in: words of the command line, and the places that it names. Goes out: Beam's options, verbatim.
Read next: components/beam_runner.py, which starts Beam with them.
"""

from components.artifact import is_remote
from components.errors import UserError
from components.file_formats import parse_roles


def checked_beam_options(
    options: list[str] | None, file: str, pipeline_root: str, serving_dir: str = ""
) -> tuple[str, ...]:
    """Catches a stray word, which the parser cannot tell from Beam's without a bare --, and what no worker can reach.

    Args:
        options: the words.
        file: of text: a path, pattern or URL, or several with their roles.
        pipeline_root: a path or a URL.
        serving_dir: likewise; empty where nothing is pushed.
    Returns:
        The options.
    Raises:
        UserError: the first is none, or Dataflow is to work on files of this machine.
    """
    if options and not options[0].startswith("-"):
        raise UserError(
            f"unexpected argument {options[0]!r}. Several files are one quoted pattern, such as 'data/*.tsv'; Beam "
            f"options stand after a bare -- and begin with a dash"
        )
    if any("dataflow" in option.lower() for option in options or () if "runner" in option.lower()):
        _refuse_paths("the pipeline root is a folder", pipeline_root)
        _refuse_paths("the text is a file", *(role.pattern for role in parse_roles(file)))
        _refuse_paths("--serving-dir is a folder", *filter(None, [serving_dir]))
    return tuple(options or ())


def _refuse_paths(words: str, *places: str) -> None:
    for place in places:
        if not is_remote(place):
            raise UserError(
                f"Dataflow's workers reach nothing but object stores, and {words}, {place}; name a URL, such as "
                f"gs://bucket/runs, or a runner whose workers mount it, such as --runner=FlinkRunner"
            )
