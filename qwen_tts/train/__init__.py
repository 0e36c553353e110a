"""Training and fine-tuning: data sets of clips, the codec, and the talker with its code predictor.

What a trained model needs to speak belongs in `models`, `codec` and `engine`. The recipe of the embedded checkpoints is
in demo/.
"""
