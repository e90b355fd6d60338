"""What every step needs and no step owns: errors, options, plug-ins, generators, files, progress."""
