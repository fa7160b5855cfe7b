"""The demonstration, and the scans that it fetches."""

from volumes import command

command.prepare(__name__)
