"""Whether a large batch keeps its GPUs busy: `python -m benchmarks.scheduling --output DIR`."""
