"""Many submissions on many GPUs: what `python -m evaluation batch` does.

`batch.py` is the whole batch: `survey.py` finds what there is to do, `board.py` decides what runs
where next and touches nothing, `dispatch.py` keeps workers at it through `cluster.py`, which is all
that knows dask's client. On each machine `worker.py` keeps workers running, and `slot.py` is what
one of them does with a case; `archives.py` and `inspection.py` are about its team's image, and
`machine.py` keeps the workers of one machine out of each other's way.
"""
