"""ExampleValidator: ExampleStatistics and a Schema to ExampleAnomalies."""
