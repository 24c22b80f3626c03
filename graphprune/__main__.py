"""``python -m graphprune`` is the ``graphprune`` command."""

import sys

from graphprune.cli.main import main

sys.exit(main())
