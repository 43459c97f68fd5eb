"""The container image that measures: pinned by digest, from a registry that is allowed, with known versions."""
