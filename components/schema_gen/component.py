"""SchemaGen: ExampleStatistics to a Schema; ImportSchemaGen: a schema that the user maintains."""

from seq2serve.components.base.artifact import ExampleStatistics, Schema, SchemaFile
from seq2serve.components.base.component import Input, Output, component


@component
def SchemaGen(
    statistics: Input[ExampleStatistics], schema: Output[Schema], label_columns: tuple[str, ...] = ()
) -> None:
    """Infers a schema from the train split (TFX: SchemaGen).

    Each column has the type BYTES and one value per row. A column may be missing in at most the same share of rows as
    in the train split, usually none. The range of text lengths, in words, is wider than in the train split, because
    other splits usually have slightly longer or shorter texts. The only valid labels are those of the train split.

    Args:
        statistics: statistics of all splits; only those of the train split are read.
        schema: the inferred schema.
        label_columns: names of the columns that contain labels.
    Raises:
        UserError: a label column has too many distinct values.
    """
    from seq2serve.components.schema_gen.executor import infer_schema

    infer_schema(statistics, schema, label_columns)


@component
def ImportSchemaGen(file: Input[SchemaFile], schema: Output[Schema]) -> None:
    """Imports a schema that the user maintains, usually an edited output of SchemaGen (TFX: ImportSchemaGen).

    Args:
        file: one schema.pbtxt.
        schema: a copy of that schema.
    Raises:
        UserError: there is more than one file, or the file is not a schema.
    """
    from seq2serve.components.schema_gen.executor import import_schema

    import_schema(file, schema)
