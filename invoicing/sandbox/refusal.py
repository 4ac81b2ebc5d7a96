"""How Stripe says no."""

from __future__ import annotations


class RefusedError(Exception):
    """An answer other than 200, in the shape of Stripe's error object."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        kind: str = "invalid_request_error",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"type": kind, "message": message, "code": code, "param": param}}


def missing(what: str, object_id: str, param: str = "id", status: int = 404) -> RefusedError:
    """Nothing of that id exists in this Stripe account."""
    return RefusedError(status, f"No such {what}: '{object_id}'", code="resource_missing", param=param)


def not_here(what: str) -> RefusedError:
    """Stripe knows this, the sandbox does not: better a loud no than an answer that means nothing."""
    return RefusedError(501, f"The sandbox does not know {what} yet.", kind="api_error")


def invalid(message: str, param: str | None = None, code: str | None = None) -> RefusedError:
    """The request makes no sense to Stripe."""
    return RefusedError(400, message, code=code, param=param)
