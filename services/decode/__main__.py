"""A decode worker process: `python -m services.decode --id decode-0`, settings from HEADRACE_*."""

from services.decode.service import serve

if __name__ == "__main__":
    serve()
