"""Request bodies in JSON, read after the caller was admitted."""

from __future__ import annotations

from email.message import Message
from typing import Any, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError

from conpet.problem_details import ApiProblem
from conpet.serve.problems import invalid

Model = TypeVar("Model", bound=BaseModel)


def json_body(model: type[Model]) -> Any:
    """Return a dependency whose value is the body of the request, checked.

    Put `requires(role)` into the `dependencies` of the route: those run first, so that nobody else's body is read.
    """

    async def parsed(request: Request) -> Model:
        return await read_body(request, model)

    return Depends(parsed)


async def read_body(request: Request, model: type[Model]) -> Model:
    """Return the body of a request, checked.

    Raises:
        ApiProblem: It is not JSON, or does not fit the model.
    """
    if media_type_of(request) != "application/json":
        raise ApiProblem(415, "unsupported-media-type", "send the body as `Content-Type: application/json`")
    body = b"".join([part async for part in request.stream()])  # `request.body()` would keep it until the end
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _invalid(error) from None


def media_type_of(request: Request) -> str:
    """Return the content type of a request without its parameters, or ""."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def charset_of(request: Request) -> str | None:
    """Return the encoding that the content type of a request names, or None if it names none, or UTF-8."""
    header = Message()
    header["Content-Type"] = request.headers.get("content-type", "")
    named = header.get_content_charset()
    return None if named in ("utf-8", "utf8", "us-ascii") else named


def _invalid(error: ValidationError) -> ApiProblem:
    errors = error.errors(include_url=False, include_input=False, include_context=False)
    if errors[0]["type"] == "json_invalid":
        reason = errors[0]["msg"].removeprefix("Invalid JSON: ")
        return ApiProblem(400, "invalid-json", f"the body is not JSON: {reason}")
    return invalid(errors)


def body_of(model: type[BaseModel], **examples: Any) -> dict[str, Any]:
    """Return the part of a route's description (`openapi_extra`) that describes its body.

    Args:
        model: The model; `conpet.serve.app.BODIES` must list it.
        examples: Bodies by name.
    """
    content: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}
    if examples:
        content["examples"] = {name: {"value": value} for name, value in examples.items()}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}
