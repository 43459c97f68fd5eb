"""The business case: what one way of running a model costs and gives against another. Knows records alone."""
