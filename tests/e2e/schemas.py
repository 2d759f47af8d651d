"""Random JSON schemas, and whether a value keeps to one: the reference of the tests.

All of them bound their answers. A plain number does not: a weak model goes on with its decimals for ever.
"""

import random
from typing import Any

WORDS = ("city", "name", "count", "tags", "kind", "size", "where", "open", "price", "notes")


def random_schema(rng: random.Random, depth: int = 2) -> dict[str, Any]:
    """An object of two to four members."""
    names = rng.sample(WORDS, rng.randint(2, 4))
    properties = {name: _value(rng, depth - 1) for name in names}
    required = [name for name in names if rng.random() < 0.8] or names[:1]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _value(rng: random.Random, depth: int) -> dict[str, Any]:
    kinds = ["string", "integer", "boolean", "enum", "const"] + (["array", "object"] * 2 if depth else [])
    match rng.choice(kinds):
        case "string":
            return {"type": "string", "maxLength": rng.randint(1, 16)}
        case "integer":
            low = rng.randint(-50, 50)
            return {"type": "integer", "minimum": low, "maximum": low + rng.randint(0, 1000)}
        case "boolean":
            return {"type": "boolean"}
        case "enum":
            return {"enum": rng.sample(["red", "größer", 'a "quote"', 3, None, True], 3)}
        case "const":
            return {"const": rng.choice(["é", 7, [1, 2]])}
        case "array":
            return {"type": "array", "items": _value(rng, depth - 1), "minItems": rng.randint(0, 2), "maxItems": 3}
        case _:
            return random_schema(rng, depth)


def keeps_to(value: Any, schema: dict[str, Any]) -> bool:
    if "enum" in schema:
        return any(value == one and type(value) is type(one) for one in schema["enum"])
    if "const" in schema:
        return bool(value == schema["const"])
    match schema["type"]:
        case "object":
            known = isinstance(value, dict) and set(schema["required"]) <= set(value) <= set(schema["properties"])
            return known and all(keeps_to(one, schema["properties"][name]) for name, one in value.items())
        case "array":
            fits = isinstance(value, list) and schema["minItems"] <= len(value) <= schema["maxItems"]
            return fits and all(keeps_to(one, schema["items"]) for one in value)
        case "string":
            return isinstance(value, str) and len(value) <= schema["maxLength"]
        case "boolean":
            return isinstance(value, bool)
        case _:
            whole = isinstance(value, int) and not isinstance(value, bool)
            return whole and schema["minimum"] <= value <= schema["maximum"]
