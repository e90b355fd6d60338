"""A folder of photographs becomes a tested image classifier, by transfer learning, on an ordinary computer."""
