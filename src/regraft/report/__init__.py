"""What people look at: plots, grids of images, and HTML pages."""
