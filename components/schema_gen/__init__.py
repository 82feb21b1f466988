"""SchemaGen: ExampleStatistics to a Schema; ImportSchemaGen: a schema that the user maintains."""
