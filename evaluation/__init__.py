"""The harness: runs a submission's container once a case, measures it, and scores its masks."""

from volumes import command

command.prepare(__name__)
