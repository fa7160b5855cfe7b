"""Many submissions on many GPUs: what `python -m evaluation batch` does.

`batch.py` is the whole evening; `board.py` decides what runs where next, and touches nothing;
`cluster.py` is all that knows dask; `slot.py` is what one worker does with one case; `machine.py`
keeps the workers of one machine out of each other's way.
"""
