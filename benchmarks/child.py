"""Measures one row in a process of its own: ``python -m benchmarks.child KEY CORES QUICK``."""

import sys

from .cores import pin


def main(key: str, cores: int, quick: bool) -> None:
    if cores:  # before anything else: threads inherit it
        pin(cores)

    import json
    import platform
    from importlib import metadata

    from .rows import ROWS

    versions = {"Python": platform.python_version()}
    for package in ("recyclepool", "psutil", "prometheus-client", "cronsim"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    row = next(row for row in ROWS if row.key == key)
    print(json.dumps({"versions": versions, "samples": row.measure(quick)}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), bool(int(sys.argv[3])))
