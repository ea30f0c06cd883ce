"""Puts the two files of flowexp/data/fashion10k into place from a folder with Fashion-MNIST.

    python scripts/make_fashion10k.py /usr/share/datasets/fashion-mnist

The folder is that of Debian's package ``dataset-fashion-mnist``. The files are copied unchanged
after their sha256 was compared, so that the package always carries the same bytes.
"""

import argparse
import hashlib
import shutil
import sys
from pathlib import Path

TARGET = Path(__file__).resolve().parents[1] / "flowexp" / "data" / "fashion10k"
SHA256 = {
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}


def main() -> int:
    """Copy both files, or say which one is not the right one and copy none."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder that holds the four gzipped idx files")
    folder = parser.parse_args().folder
    for name, expected in SHA256.items():
        file = folder / name
        found = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "no such file"
        if found != expected:
            print(f"{file}: {found}, but sha256 {expected} is expected", file=sys.stderr)
            return 2
    TARGET.mkdir(parents=True, exist_ok=True)
    for name in SHA256:
        shutil.copyfile(folder / name, TARGET / name)
        print(TARGET / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
