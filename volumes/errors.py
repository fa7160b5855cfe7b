"""What readers of this package raise."""


class VolumeError(Exception):
    """What is wrong with a file and the remedy, in one line, without the file's name."""
