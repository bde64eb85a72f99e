"""Errors that name what was seen, what is allowed and what to do about it."""


class HymirecError(Exception):
    """Any error this project raises on purpose; the command line prints it as one line."""


class InputError(HymirecError, ValueError):
    """A value handed to the model library is outside what it accepts."""


def require(condition: bool, message: str) -> None:
    """Raise :class:`InputError` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise InputError(message)
