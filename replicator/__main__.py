"""``python -m replicator`` is the ``replicator`` command."""

import sys

from replicator.cli import main

if __name__ == "__main__":
    sys.exit(main())
