"""The SLO classes of a mesh: those that HEADRACE_CLASSES_FILE describes, else the built-in ones."""

import tomllib
from pathlib import Path

from headrace.core.slo import BUILT_IN, BadClasses, Classes, classes_of
from headrace.mesh.errors import BadSetup


def read_classes(path: str) -> Classes:
    """path empty: the built-in ones. Raises BadSetup: no such file, no TOML, or classes that make no sense."""
    if not path:
        return BUILT_IN
    try:
        return classes_of(tomllib.loads(Path(path).expanduser().read_text()))
    except OSError as error:
        raise BadSetup(f"HEADRACE_CLASSES_FILE={path!r}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, BadClasses) as error:
        raise BadSetup(f"HEADRACE_CLASSES_FILE={path!r}: {error}") from error
