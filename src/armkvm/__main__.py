"""``python -m armkvm``: the command line without an installed script."""

import sys

from armkvm.cli.main import main

sys.exit(main())
