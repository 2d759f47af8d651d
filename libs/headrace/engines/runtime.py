"""ONNX Runtime sessions: the one place that imports it, because it must be told two things first.

Its release builds report usage to their maker unless the environment says no before the import; and its
threads spin while they wait, which starves the other workers of a machine.
"""

import os
from pathlib import Path
from typing import Any

from headrace.core.errors import Unavailable

_PROVIDERS = ["CPUExecutionProvider"]


def open_session(model: Path | bytes, threads: int) -> Any:
    """An InferenceSession on the CPU, from a file or from a model's bytes.

    Raises:
        Unavailable: onnxruntime is not installed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise Unavailable("the onnx engine needs onnxruntime: pip install 'headrace[serve]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # shapes change with every step
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    source = model if isinstance(model, bytes) else str(model)
    session = onnxruntime.InferenceSession(source, options, providers=_PROVIDERS)
    assert session.get_providers() == _PROVIDERS, f"asked for {_PROVIDERS}, got {session.get_providers()}"
    return session
