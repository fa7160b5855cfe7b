"""What runs inside the container."""

import signal

from volumes import command

command.prepare(heeded=[signal.SIGTERM])  # the first process of a container ignores it else
