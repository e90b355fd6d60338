"""What needs a second look in labelled images, found by their features; one file for each kind of finding."""
