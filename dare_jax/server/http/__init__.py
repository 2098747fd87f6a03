"""What answers over HTTP: routes, their description, who may enter."""
