"""Challenges, and conditions of theirs, that tests run and score by."""

from msgspec.structs import replace

from evaluation import challenges
from evaluation.conditions import usual

FLARE23, FLARE24 = challenges.load("flare23"), challenges.load("flare24")
CONDITIONS = usual(FLARE24)
# One channel, as the shipped model takes it.
ONE_SOCKET = replace(challenges.load("autopet").contract, input_sockets=("ct",))
GRAND_CHALLENGE = usual(replace(FLARE24, contract=ONE_SOCKET))
