"""Published recipes, one YAML file each; see :mod:`numbanet.train.recipe`."""
