"""What this room says to its users."""


class TrainingError(Exception):
    """One line for the user: file, finding, remedy."""
