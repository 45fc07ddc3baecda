"""Deep networks to decompose: residual MLPs, VGG-16, ResNet-1001."""
