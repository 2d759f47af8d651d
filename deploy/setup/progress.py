"""Turns pip's output into one line per package, and shows everything when pip fails.

Reads standard input to its end; a line starts with the seconds since the start.
"""

import sys
import time


def main() -> int:
    started_s, failed = time.monotonic(), False
    for line in sys.stdin:
        text = line.strip()
        failed = failed or text.startswith("ERROR")
        if failed or text.startswith(("Downloading ", "Building wheel", "Installing ", "Successfully")):
            shown = text if failed else text.split(" (")[0].rsplit("/", 1)[-1][:100]
            print(f"  {time.monotonic() - started_s:5.1f} s  {shown}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
