"""Recipes for nnU-Net's own trainer, and the export of what it trained."""

from volumes import command

command.prepare(__name__)
