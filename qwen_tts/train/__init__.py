"""Training and fine-tuning: data sets, the codec, the talker with its code predictor."""
