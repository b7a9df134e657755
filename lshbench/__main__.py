"""``python -m lshbench`` is the ``lshbench`` command."""

from lshbench.cli import main

if __name__ == "__main__":
    main()
