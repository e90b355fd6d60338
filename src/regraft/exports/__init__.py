"""From a model to where it is used: a module of the whole, a file for each format, the certificate."""
