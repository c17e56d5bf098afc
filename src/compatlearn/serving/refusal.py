"""What a client is told when it does not get vectors, in the shape of OpenAI's errors."""

from typing import Any


class RefusalError(Exception):
    """An answer that is no vector.

    Attributes:
        status: of HTTP.
        message: the fact and the remedy; never the text or the key that was sent.
        code: for programs.
        param: the field of the request that it is about.
        retry_after: what the header of that name says, if anything.
    """

    def __init__(
        self, status: int, message: str, code: str, *, param: str | None = None, retry_after: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param, self.retry_after = status, message, code, param, retry_after

    def body(self) -> dict[str, Any]:
        """The answer's JSON."""
        kind = "invalid_request_error" if self.status < 500 and self.status != 429 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """The answer's own headers."""
        return {} if self.retry_after is None else {"retry-after": self.retry_after}
