"""How costs grow with batch, depth, image size, number of images and number of devices."""
