"""An encoder: the worker shell with the encode stage, unless --stages says otherwise."""

from headrace.worker.process import main


def serve() -> None:
    main("encode")
