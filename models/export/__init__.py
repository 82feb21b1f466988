"""Models as SavedModels: signatures over strings, warm-up requests and the graph without duplicate nodes."""
