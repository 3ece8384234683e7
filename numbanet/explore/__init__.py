"""The explorer: a page in the browser on which a picture flows through a network. Needs the extra `explore`."""
