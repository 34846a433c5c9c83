"""The command line; `main` is the entry point of the script `ad-service`."""

from ad_service.cli.command_line import main

__all__ = ["main"]
