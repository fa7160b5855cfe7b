"""File formats of scans and masks. Imports none of the other rooms; all of them may import it.

``VERSION`` is that of the whole project; the package's metadata (pyproject.toml) reads it here.
"""

VERSION = "0.4.0"
