"""Errors as OpenAI's clients read them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException as AnyHTTPException

logger = logging.getLogger(__name__)

BUSY = 503
_TYPES = {401: "authentication_error", 403: "permission_error"}


class RequestError(HTTPException):
    """Why a request is not answered.

    Arguments
    ---------
    status : int
        Of HTTP.
    message : str
        For the one who asked.
    param : str, optional
        Which part of the request it is about.
    code : str, optional
        For programs.
    headers : dict, optional
        Of the answer.

    Example
    -------
    >>> RequestError(400, "too long", "input").body()["error"]["param"]
    'input'
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(status, message, dict(headers or {}))
        self.param = param
        self.code = code

    def body(self) -> dict[str, Any]:
        """Return it in OpenAI's form."""
        kind = "server_error" if self.status_code >= 500 else ""
        kind = kind or _TYPES.get(self.status_code, "invalid_request_error")
        return {
            "error": {
                "message": _speakable(str(self.detail)),
                "type": kind,
                "param": self.param and _speakable(self.param),
                "code": self.code,
            }
        }

    def response(self) -> JSONResponse:
        """Return it as an answer."""
        return JSONResponse(self.body(), self.status_code, self.headers)


def _speakable(text: str) -> str:
    """Return a text that UTF-8 has bytes for; JSON can hold others."""
    return text.encode("utf-8", "backslashreplace").decode()


def busy(message: str, code: str) -> RequestError:
    """Return what is answered when something else has to end first."""
    return RequestError(BUSY, message, None, code, {"Retry-After": "1"})


def refused(error: Exception, param: str | None = None) -> RequestError:
    """Return what is answered where the package cannot use something."""
    return RequestError(400, str(error), param, "invalid_value")


def of_validation(
    error: RequestValidationError | ValidationError,
) -> RequestError:
    """Return what is answered to a form that is filled in wrongly.

    What stands in the form is not repeated.
    """
    first = error.errors()[0]
    place = [str(p) for p in first["loc"] if p not in ("body", "query")]
    name = ".".join(place) or None
    if first["type"] == "extra_forbidden":
        message, code = f"{name} is not supported here", "unsupported_parameter"
    elif "UploadFile" in first["msg"]:
        message = f"{name} is no file: give its bytes, not its name"
        code = "invalid_value"
    elif first["type"] == "json_invalid":
        return RequestError(400, "the body is no JSON", None, "invalid_json")
    else:
        message = f"{name}: {first['msg']}" if name else str(first["msg"])
        code = "invalid_value"
    return RequestError(400, message, name, code)


def answer_errors(app: FastAPI) -> None:
    """Let an app answer with errors in OpenAI's form."""

    @app.exception_handler(AnyHTTPException)
    async def http(request: Request, error: AnyHTTPException) -> JSONResponse:
        if not isinstance(error, RequestError):
            error = RequestError(
                error.status_code, str(error.detail), headers=error.headers
            )
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def form(
        request: Request, error: RequestValidationError
    ) -> JSONResponse:
        return of_validation(error).response()

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> JSONResponse:
        message = "the server has failed; its log says more"
        return RequestError(500, message, code="fault").response()
