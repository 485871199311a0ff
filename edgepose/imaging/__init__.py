"""Image processing: cropping, scaling, drawing."""
