"""ExampleGen: the user's files to Examples."""
