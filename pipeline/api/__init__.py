"""seq2serve: raw text in, a served Transformer out.

    run = seq2serve.run("pairs.tsv", source="english", target="german")
    translate = seq2serve.load(run)
    translate("Good morning")

Names are imported when they are first used, so that `import seq2serve` costs nothing. They are listed here as strings,
because fingerprints follow import statements: a facade of imports would make every component depend on all of this.
"""

import importlib

_BASE = "seq2serve.components.base"
_EXPORTS = {
    "run": "seq2serve._run",
    "Run": "seq2serve._run",
    "evaluate": "seq2serve._evaluate",
    "Evaluation": "seq2serve.pipeline.commands.evaluation_result",
    "load": "seq2serve._load",
    "LoadedModel": "seq2serve._load",
    "Task": "seq2serve.components.tasks.task",
    "Artifact": f"{_BASE}.artifact",
    "component": f"{_BASE}.component",
    "Input": f"{_BASE}.component",
    "Output": f"{_BASE}.component",
    "Context": f"{_BASE}.component",
    "raw_files": f"{_BASE}.component",
    "Pipeline": "seq2serve.pipeline.running.pipeline",
    "Runner": "seq2serve.pipeline.running.runner",
    "Seq2ServeError": f"{_BASE}.errors",
    "UserError": f"{_BASE}.errors",
    "ComponentError": f"{_BASE}.errors",
}
__all__ = list(_EXPORTS)


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
