"""StatisticsGen: Examples to ExampleStatistics."""
