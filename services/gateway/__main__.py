"""A gateway process: `python -m services.gateway --id gateway-0`, settings from HEADRACE_*."""
