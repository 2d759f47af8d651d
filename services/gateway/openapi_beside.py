"""What openapi.json says of files, batches, embeddings and the Open Inference Protocol."""

from typing import Any

from services.gateway import batch_records as records
from services.gateway import embeddings_route, oip_rest

JSON = "application/json"
ROOTS = (
    records.FileObject,
    records.FileList,
    records.FileDeleted,
    records.BatchRequest,
    records.BatchObject,
    records.BatchList,
    embeddings_route.EmbeddingsRequest,
    embeddings_route.EmbeddingsList,
    oip_rest.InferBody,
    oip_rest.GenerateBody,
)
_UPLOAD = {
    "type": "object",
    "properties": {
        "purpose": {"type": "string", "enum": ["batch"]},
        "file": {"type": "string", "contentMediaType": "application/octet-stream"},
    },
    "required": ["purpose", "file"],
}


def paths() -> dict[str, Any]:
    file_id, batch_id = _in("path", "file_id"), _in("path", "batch_id")
    page = [_in("query", "after"), _in("query", "limit", "integer")]
    return {
        "/v1/embeddings": {
            "post": _operation("Embed inputs", "EmbeddingsList", body={JSON: {"schema": ref("EmbeddingsRequest")}})
        },
        "/v1/files": {
            "get": _operation(
                "Files, newest first", "FileList", [*page, _in("query", "order"), _in("query", "purpose")]
            ),
            "post": _operation("Upload a file", "FileObject", body={"multipart/form-data": {"schema": _UPLOAD}}),
        },
        "/v1/files/{file_id}": {
            "get": _operation("One file", "FileObject", [file_id]),
            "delete": _operation("Delete a file", "FileDeleted", [file_id]),
        },
        "/v1/files/{file_id}/content": {"get": _operation("A file's content", "", [file_id])},
        "/v1/batches": {
            "get": _operation("Batches, newest first", "BatchList", page),
            "post": _operation("Begin a batch", "BatchObject", body={JSON: {"schema": ref("BatchRequest")}}),
        },
        "/v1/batches/{batch_id}": {"get": _operation("One batch", "BatchObject", [batch_id])},
        "/v1/batches/{batch_id}/cancel": {"post": _operation("Cancel a batch", "BatchObject", [batch_id])},
    }


def inference_paths() -> dict[str, Any]:
    model, infer, generate = _in("path", "model"), ref("InferBody"), ref("GenerateBody")
    found: dict[str, Any] = {
        "/v2": {"get": _plain("The server's name, version and extensions")},
        "/v2/health/live": {"get": _plain("Whether this process answers")},
        "/v2/health/ready": {"get": _plain("Whether it takes requests")},
    }
    for path, named in (("/v2/models/{model}", [model]), ("/v2/models/{model}/versions/{version}", None)):
        parameters = named or [model, _in("path", "version")]
        found[path] = {"get": _plain("A model's tensors", parameters)}
        found[f"{path}/ready"] = {"get": _plain("Whether a model can be asked", parameters)}
        found[f"{path}/infer"] = {"post": _plain("Tensors in, tensors out", parameters, infer)}
        found[f"{path}/generate"] = {"post": _plain("A text for a text", parameters, generate)}
        found[f"{path}/generate_stream"] = {"post": _plain("The same as it comes", parameters, generate)}
    return found


def _plain(
    summary: str, parameters: list[dict[str, Any]] | None = None, body: dict[str, str] | None = None
) -> dict[str, Any]:
    """An operation of a protocol that describes its own replies."""
    operation: dict[str, Any] = {
        "summary": summary,
        "parameters": parameters or [],
        "responses": {"200": {"description": "OK"}, "default": {"description": 'Error: {"error": "..."}'}},
    }
    return operation | ({"requestBody": {"required": True, "content": {JSON: {"schema": body}}}} if body else {})


def ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _in(place: str, name: str, kind: str = "string") -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": {"type": kind}}


def _operation(
    summary: str, reply: str, parameters: list[dict[str, Any]] | None = None, body: dict[str, Any] | None = None
) -> dict[str, Any]:
    """reply empty: bytes."""
    content: dict[str, Any] = {JSON: {"schema": ref(reply)}} if reply else {"application/octet-stream": {"schema": {}}}
    error = {"description": "Error", "content": {JSON: {"schema": ref("ErrorReply")}}}
    operation: dict[str, Any] = {
        "summary": summary,
        "parameters": parameters or [],
        "responses": {"200": {"description": "OK", "content": content}, "default": error},
    }
    return operation | ({"requestBody": {"required": True, "content": body}} if body else {})
