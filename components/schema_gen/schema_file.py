"""The schema file, schema.pbtxt: reading and writing."""

from pathlib import Path

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from seq2serve.components.base.artifact import Schema
from seq2serve.components.base.errors import UserError
from seq2serve.components.storage.files import local_file, write_file

# Evaluation counts rows whose label training has not seen as errors. If they are more, the split is not of this data.
MAX_UNKNOWN_LABEL_SHARE = 0.05


def label_domain(schema: schema_pb2.Schema, column: str) -> list[str]:
    """Returns the labels that a schema allows in a column; empty if the column has no domain."""
    feature = next((feature for feature in schema.feature if feature.name == column), None)
    if feature is None:
        return []
    domain = next((domain for domain in schema.string_domain if domain.name == feature.domain), feature.string_domain)
    return list(domain.value)


def read_schema(artifact: Schema) -> schema_pb2.Schema:
    """Reads a schema.

    Raises:
        UserError: the file is not a schema; the message contains line and column.
    """
    return parse_schema(artifact.path("schema.pbtxt"))


def parse_schema(path: str) -> schema_pb2.Schema:
    """Reads a schema from a path or URL; see `read_schema`."""
    with local_file(path) as local:
        try:
            return text_format.Parse(Path(local).read_bytes().decode(), schema_pb2.Schema())
        except (text_format.ParseError, UnicodeDecodeError) as error:
            line = error.GetLine() if isinstance(error, text_format.ParseError) else None
            raise UserError(
                f"{path} is not a schema; fix the file (line:column : reason): {error}",
                code="schema-invalid",
                path=path,
                line=line,
            ) from error


def write_schema(message: schema_pb2.Schema, schema: Schema) -> None:
    """Writes a schema into the folder of an artifact."""
    write_file(schema.path("schema.pbtxt"), text_format.MessageToString(message, as_utf8=True).encode())
