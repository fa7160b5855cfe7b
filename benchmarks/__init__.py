"""What the tables in docs/results are made with."""

from volumes import command

command.prepare(__name__)
