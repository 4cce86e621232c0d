"""Hot loops, one folder per operation: ``api.py`` validates and dispatches, ``impl/`` computes."""
