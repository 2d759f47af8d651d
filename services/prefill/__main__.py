"""A prefill worker process: `python -m services.prefill --id prefill-0`, settings from HEADRACE_*."""

from services.prefill.service import serve

if __name__ == "__main__":
    serve()
