"""The one exception that evaluation shows to a person."""


class EvaluationError(Exception):
    """Something a person can act on; the text is one line that says what and where."""
