"""The command ``graphprune``: one file for each subcommand, none of which is imported by the rest of the package."""
