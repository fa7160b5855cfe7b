"""The sub-commands, a file each: what `python -m evaluation NAME` takes, and what it does.

A file is imported when its command is called, so that none waits for, or needs, what only another
one uses. Each has `add_arguments(parser)` and `run(given)`, which returns the exit code.
"""
