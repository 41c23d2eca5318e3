"""What computing takes: images on a device, augmentation, optimizers, inference, devices and threads."""
