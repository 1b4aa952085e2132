"""Serve the demonstration: `python tests/xnat_server --port 8080`."""

import os
import sys

if not __package__:  # Python was given the folder: it looks for modules inside, not beside it
    sys.path[0] = os.path.dirname(sys.path[0] or os.getcwd())

from xnat_server.program import main

if __name__ == "__main__":
    sys.exit(main())
