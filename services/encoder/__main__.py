"""An encoder process: `python -m services.encoder --id encoder-0`, settings from HEADRACE_*."""

from services.encoder.service import serve

if __name__ == "__main__":
    serve()
