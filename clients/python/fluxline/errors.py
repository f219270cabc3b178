"""What the appliance answers when it cannot do what it was asked."""

from __future__ import annotations


class FluxlineError(Exception):
    """An answer that is no success: its HTTP status, a short name for programs, and the appliance's sentence."""

    def __init__(self, status: int, code: str, message: str, allowed_states: tuple[str, ...] = ()) -> None:
        super().__init__(f"{message} ({status} {code})")
        self.status = status
        self.code = code
        self.message = message
        self.allowed_states = allowed_states


class NotYet(FluxlineError):
    """It does not exist yet: asking again later helps."""
