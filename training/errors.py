"""What this room says to its users."""

from volumes.errors import UserError


class TrainingError(UserError):
    """One line for the user: file, finding, remedy."""
