"""How well a checkpoint or a running service speaks: word errors, speaker similarity, MOS, endings, speed."""
