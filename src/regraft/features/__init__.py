"""From a network and images to stored features: backbones, weights, the cut, the trunk, the store."""
