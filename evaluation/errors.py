"""The one exception that evaluation shows to a person."""

from volumes.errors import UserError


class EvaluationError(UserError):
    """Something a person can act on; the text is one line that says what and where."""
