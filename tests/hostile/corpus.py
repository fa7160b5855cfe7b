"""All hostile inputs."""

from tests.hostile.masks import masks
from tests.hostile.models import models
from tests.hostile.scans import scans

ENTRIES = (*scans(), *masks(), *models())
