"""The subcommands of ``lshbench``, one a module."""
