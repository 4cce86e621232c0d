"""Parts of the case `certainty`."""
