"""What `run` and `evaluate` read: rows in memory, written to a file like any other, and the columns of rows."""

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from seq2serve.components.base.errors import UserError
from seq2serve.components.storage.files import sha256_of
from seq2serve.pipeline.run_config import SHORT_COLUMNS, named_columns
from seq2serve.pipeline.running.state_folder import state_folder

FOLDER = "inputs"  # in the pipeline root: lineage leads here


def columns_of(options: Mapping[str, Any]) -> dict[str, str]:
    """Returns column of the task -> column of the rows, from the option `columns` and its short forms.

    Raises:
        UserError: `columns` is not a dict, or a column has two names or an empty one.
    """
    columns = options.get("columns", {})
    if not isinstance(columns, Mapping):
        raise UserError(f"columns must be a dict of names, got {columns!r}", code="settings-invalid", option="columns")
    short = [(column, options[column]) for column in SHORT_COLUMNS if column in options]
    return named_columns((column, str(name)) for column, name in [*columns.items(), *short])


def write_rows(rows: Any, pipeline_root: str) -> str:
    """Writes rows to a file named after their content, unless it exists.

    Args:
        rows: dicts of JSON values, or a table with the Arrow C stream interface: pandas, Polars, pyarrow.
        pipeline_root: the file is in its local folder.
    Returns:
        The path, absolute; JSON lines for dicts, Parquet for a table.
    Raises:
        UserError: there are no rows, or one is not a dict of JSON values.
    """
    folder = state_folder(pipeline_root) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    is_table = hasattr(rows, "__arrow_c_stream__")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        staged = Path(scratch, "rows")
        number = _write_parquet(rows, staged) if is_table else _write_json_lines(rows, staged)
        if not number:
            raise UserError("there are no rows; pass at least some for every split", code="rows-empty")
        path = folder / f"{sha256_of(staged)[:16]}.{'parquet' if is_table else 'jsonl'}"
        os.replace(staged, path)
    return str(path)


def _write_parquet(table: Any, path: Path) -> int:
    # Without pandas' metadata, which differs between equal tables.
    plain = pyarrow.table(table).replace_schema_metadata(None)
    parquet.write_table(plain, path)
    return plain.num_rows


def _write_json_lines(rows: Iterable[Mapping[str, Any]], path: Path) -> int:
    number = 0
    with path.open("w", encoding="utf-8") as file:
        for number, row in enumerate(rows, 1):
            if not isinstance(row, Mapping):
                raise UserError(
                    f"row {number} is of type {type(row).__name__}; rows must be dicts of column -> text",
                    code="row-invalid",
                    row=number,
                )
            try:
                file.write(json.dumps(dict(row), ensure_ascii=False, allow_nan=False) + "\n")
            except (TypeError, ValueError) as error:
                raise UserError(
                    f"row {number} cannot be written as JSON: {error}", code="row-invalid", row=number
                ) from error
    return number
