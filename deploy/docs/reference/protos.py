"""gRPC: services, messages and enums with their comments, from the protos."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto

from reference.words import cell, code, table

_PACKAGE = "headrace.v1"
# Field numbers of descriptor.proto: a comment's place is a path of them.
_MESSAGE, _ENUM, _SERVICE, _FIELD, _NESTED, _VALUE, _METHOD = 4, 5, 6, 2, 3, 2, 2
_FIRST = ("gateway", "queue", "governor", "encoder", "prefill", "decode", "transfer")
Comments = dict[tuple[int, ...], str]
_SCALARS = {number: name.removeprefix("TYPE_").lower() for name, number in FieldDescriptorProto.Type.items()}


def page(root: Path) -> str:
    files = _described(root / "protos")
    order = {name: at for at, name in enumerate(_FIRST)}
    files.sort(key=lambda file: (order.get(Path(file.name).stem, len(order)), file.name))
    parts = [
        "# gRPC\n",
        "Package `headrace.v1`. Clients need the gateway's service alone; the others are how operators and services "
        "ask one another. Every service has `grpc.health.v1` and server reflection.\n",
    ]
    return "\n".join([*parts, *(part for file in files for part in _file(file))])


def _described(protos: Path) -> list[FileDescriptorProto]:
    names = sorted(path.relative_to(protos).as_posix() for path in (protos / "headrace/v1").glob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "protos.pb")
        command = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(protos), "--include_source_info"]
        subprocess.run([*command, f"--descriptor_set_out={out}", *names], check=True, timeout=60)
        return list(descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file)


def _file(file: FileDescriptorProto) -> Iterator[str]:
    comments: Comments = {
        tuple(place.path): " ".join((place.leading_comments + place.trailing_comments).split())
        for place in file.source_code_info.location
    }
    said = [
        " ".join(each.split()) for place in file.source_code_info.location for each in place.leading_detached_comments
    ]
    about = comments.get((12,), "") or (said[0] if said else "")  # 12: what stands above `syntax`
    yield f"## {Path(file.name).name}\n\n{about}\n"
    for at, service in enumerate(file.service):
        rows = [
            (
                code(method.name),
                _flow(method.client_streaming, method.input_type),
                _flow(method.server_streaming, method.output_type),
                cell(comments.get((_SERVICE, at, _METHOD, number), "")),
            )
            for number, method in enumerate(service.method)
        ]
        yield f"### {service.name}\n\n{comments.get((_SERVICE, at), '')}\n"
        yield table(("Method", "Takes", "Gives", "Meaning"), rows)
    for at, message in enumerate(file.message_type):
        yield from _message(message, (_MESSAGE, at), comments, "")
    for at, enum in enumerate(file.enum_type):
        rows = [
            (code(value.name), str(value.number), cell(comments.get((_ENUM, at, _VALUE, number), "")))
            for number, value in enumerate(enum.value)
        ]
        yield f"### {enum.name}\n\n{comments.get((_ENUM, at), '')}\n\n{table(('Value', 'Number', 'Meaning'), rows)}"


def _message(message: DescriptorProto, place: tuple[int, ...], comments: Comments, within: str) -> Iterator[str]:
    if message.options.map_entry:
        return
    maps = {each.name: each for each in message.nested_type if each.options.map_entry}
    name = f"{within}{message.name}"
    rows = [
        (code(field.name), str(field.number), _type(field, maps), cell(comments.get((*place, _FIELD, number), "")))
        for number, field in enumerate(message.field)
    ]
    yield f"### {name}\n\n{comments.get(place, '')}\n"
    yield table(("Field", "Number", "Type", "Meaning"), rows) if rows else "No fields.\n"
    for at, nested in enumerate(message.nested_type):
        yield from _message(nested, (*place, _NESTED, at), comments, f"{name}.")


def _flow(streamed: bool, name: str) -> str:
    return f"{'stream of ' if streamed else ''}{_link(name)}"


def _type(field: FieldDescriptorProto, maps: dict[str, DescriptorProto]) -> str:
    pair = maps.get(field.type_name.rpartition(".")[2])
    if pair is not None:
        return f"map of {_type(pair.field[0], {})} to {_type(pair.field[1], {})}"
    kind = _link(field.type_name) if field.type_name else _SCALARS[field.type]
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {kind}"
    return f"optional {kind}" if field.proto3_optional else kind


def _link(name: str) -> str:
    short = name.removeprefix(f".{_PACKAGE}.")
    return f"[{short}](#{short.lower().replace('.', '')})" if not short.startswith(".") else code(short[1:])
