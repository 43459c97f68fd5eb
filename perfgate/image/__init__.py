"""The container image that measures: pinned by digest, from an allowed registry, with known versions."""
