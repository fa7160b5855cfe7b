"""What a user is told."""

from volumes.text import one_line


class UserError(Exception):
    """What a user can mend: file, finding and remedy in one line, or several of such lines.

    It may hold words of a file's own; what a terminal would act on is replaced.
    """

    def __init__(self, *messages: str) -> None:
        super().__init__(*map(one_line, messages))

    def __str__(self) -> str:
        return "\n".join(self.args)


class VolumeError(UserError):
    """What is wrong with a file and the remedy, without the file's name."""
