"""Text generation with cached decoder state: one loop, several search strategies, scoring and attention maps."""
