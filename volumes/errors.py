"""What readers of this package raise."""


class VolumeError(Exception):
    """What is wrong with a file and the remedy, in one line, without the file's name.

    It may hold words of the file's own; what a terminal would act on is replaced.
    """

    def __init__(self, message: str) -> None:
        shown = (c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in message)
        super().__init__("".join(shown))
