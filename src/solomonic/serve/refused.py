"""The error of a request."""

from typing import Any


class Refused(Exception):
    """status: of HTTP. field: the one at fault, of the request. code: a word for programs, as OpenAI's errors have."""

    def __init__(self, message: str, status: int = 400, field: str | None = None, code: str | None = None):
        super().__init__(message)
        self.message, self.status, self.field, self.code = message, status, field, code

    def shape(self) -> dict[str, Any]:
        """As OpenAI writes it."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.field, "code": self.code}}


__all__ = ["Refused"]
