"""`make gpu-check` for a machine with a GPU that reaches no package registry, as one archive."""
