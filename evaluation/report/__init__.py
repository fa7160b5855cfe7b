"""The one HTML file that says how everybody did: `python -m evaluation report`.

parts.py packs what a run left of each team so that a browser opens only what is looked at,
standings.py adds what `rank` wrote, document.py puts it all into one file. assets/ is what the
browser runs: main.js first.
"""
