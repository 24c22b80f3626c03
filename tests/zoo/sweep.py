"""``python -m tests.zoo.sweep [name ...]``: the zoo's check, of architectures that are not in the zoo."""

import sys

from tests.zoo.__main__ import main
from tests.zoo.unseen_models import unseen_names

if __name__ == "__main__":
    sys.exit(main(unseen_names(), "python -m tests.zoo.sweep"))
