"""Memory of this process, as Linux counts it."""
from pathlib import Path


def _status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))


def resident():
    """Bytes resident now."""
    return _status("VmRSS")


def peak_beyond(before):
    """The most bytes that were resident, less `before`: what Python itself takes is not the engine's."""
    return _status("VmHWM") - before
