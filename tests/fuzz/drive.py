"""One target under atheris (libFuzzer): `python -m tests.fuzz.drive TARGET SECONDS FOLDER`; run.py starts it.

An input that breaks the target is kept as FOLDER/crash-<hash>, and the process ends with a status other than 0.
"""

import hashlib
import sys
from pathlib import Path

import atheris

INPUT_BYTES_MAX = 65_536
INPUT_S_MAX = 10  # of one input: more is a finding too
MEMORY_MB_MAX = 2_048
OURS = ("services.gateway", "headrace.wire", "headrace.modalities", "headrace.mesh.keyfile", "headrace.mesh.nats_wire")


def main(name: str, seconds: int, folder: Path) -> None:
    with atheris.instrument_imports(include=list(OURS)):
        from tests.fuzz.targets import TARGETS, seeds
    corpus = folder / name
    corpus.mkdir(parents=True, exist_ok=True)
    for data in seeds(name):
        (corpus / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    options = {
        "max_total_time": seconds,
        "max_len": INPUT_BYTES_MAX,
        "timeout": INPUT_S_MAX,
        "rss_limit_mb": MEMORY_MB_MAX,
        "artifact_prefix": f"{folder}/{name}-",
        "print_final_stats": 1,
        "verbosity": 0,
    }
    atheris.Setup([sys.argv[0], *(f"-{key}={value}" for key, value in options.items()), str(corpus)], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
