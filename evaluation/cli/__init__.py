"""The sub-commands, a file each: what `python -m evaluation NAME` takes, and what it does.

A file is imported when its command is called, and what does the work when `run` is: no command
waits for, or needs, what only another one uses, and --help waits for nothing. Each file has
`add_arguments(parser)` and `run(given)`, which returns the exit code.
"""
