"""Formats the lineage of an artifact as text, also behind a model or a tokenizer that was brought from elsewhere."""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from typing import Any

from seq2serve.components.base.artifact import SPLITS, Artifact
from seq2serve.components.storage.data_records import DATA_RECORD, read_record
from seq2serve.pipeline.commands.history_text import aligned
from seq2serve.pipeline.metadata.store import Ancestry, MetadataStore

# Type of files that were brought -> files in the folder of the model or the tokenizer.
_BROUGHT = {"ModelFiles": ("model.weights.h5",), "TokenizerFiles": ("tokenizer.json", ".model")}


def lineage_text(store: MetadataStore, name: str) -> str:
    """Returns the lineage of an artifact, back to the raw files and forward to everything made from it.

    An input of which only some splits were read is followed by these. A base model or a tokenizer that was made in the
    same store is followed there. The record beside it tells the data behind it wherever it is.

    Args:
        store: the store to search.
        name: the artifact's id or a path, see `MetadataStore.find_artifact`.
    Raises:
        UserError: there is no such artifact.
    """
    artifact = store.find_artifact(name)
    backward = _with_brought(store, store.lineage(artifact.id, "backward"))
    forward, prior = store.lineage(artifact.id, "forward"), store.prior(artifact.id)
    itself = [row for row in backward if row.artifact.id == artifact.id]
    parts = {
        "Artifact": itself,
        "Made from": [row for row in backward if row not in itself],
        **({"Compared with results of earlier runs": prior} if prior else {}),
        "Used to make": [row for row in forward if row.artifact.id != artifact.id],
    }
    sections = [f"{title}\n{_ancestry_table(rows)}" for title, rows in parts.items()]
    return "\n\n".join([*sections, *_data_sections(backward)])


def _with_brought(store: MetadataStore, rows: list[Ancestry]) -> list[Ancestry]:
    """Adds the lineage of the artifacts of this store that files were taken from."""
    known = {row.artifact.id: row for row in rows}
    pending = list(rows)
    while pending:
        row = pending.pop()
        if row.type not in _BROUGHT:
            continue
        maker = store.made_at(_folder(row))
        if maker is None or maker.id in row.sources:
            continue
        known[row.artifact.id] = dataclasses.replace(row, sources=(*row.sources, maker.id))
        added = [other for other in store.lineage(maker.id, "backward") if other.artifact.id not in known]
        known |= {other.artifact.id: other for other in added}
        pending += added
    return sorted(known.values(), key=lambda row: row.artifact.id)


def _data_sections(rows: list[Ancestry]) -> Iterator[str]:
    """Yields a section on the data behind each model and tokenizer that was brought."""
    for row in rows:
        if row.type in _BROUGHT:
            folder, kind = _folder(row), "base model" if row.type == "ModelFiles" else "tokenizer"
            # One tokenizer per column: the record is in the folder around them.
            record = read_record(folder) or (read_record(os.path.dirname(folder)) if kind == "tokenizer" else None)
            yield f"Data behind the {kind} {folder} (ID {row.artifact.id})\n{_record_text(record, folder)}"


def _record_text(record: Mapping[str, Any] | None, folder: str) -> str:
    if record is None:
        return f"not recorded: {os.path.join(folder, DATA_RECORD)} not found; only runs of this version write it"
    rows = [("FILE", "BYTES", "SHA-256")]
    rows += [(file["name"], f"{file['bytes']:,}", file.get("sha256", "")) for file in record["files_read"]]
    lines = [aligned(rows)]
    if "num_rows" in record:
        counts = record["num_examples"]
        splits = ", ".join(f"{counts[split]:,} {split}" for split in SPLITS if split in counts)
        lines.append(f"{record['num_rows']:,} rows: {splits}")
    if "base_model" in record:
        base = record["base_model"]
        lines.append("which had itself a base model, with the data")
        lines.append(_record_text(base, "the earlier base model") if base else "not recorded")
    return "\n".join(lines)


def _folder(row: Ancestry) -> str:
    """Returns the folder of a model or a tokenizer that was brought."""
    paths = [file["path"] for file in row.artifact.properties["files"]]
    return os.path.dirname(next((path for path in paths if path.endswith(_BROUGHT[row.type])), paths[0]))


def _ancestry_table(ancestries: list[Ancestry]) -> str:
    rows = [("ID", "TYPE", "MADE BY", "INPUTS", "URI")]
    for ancestry in ancestries:
        maker = f"{ancestry.component}, run {ancestry.run_id}" if ancestry.component else "user"
        splits = {source: f" ({', '.join(names)})" for source, names in ancestry.splits.items()}
        sources = ", ".join(f"{source}{splits.get(source, '')}" for source in ancestry.sources)
        artifact: Artifact = ancestry.artifact
        rows.append((str(artifact.id), ancestry.type, maker, sources, artifact.uri))
    return aligned(rows) if ancestries else "none"
