"""Items' features on a device, and the coordinates in which they are seen."""
