"""Names and shapes of every tensor of the released safetensors files, as a table.

Source: state dicts of the reference implementation (PyPI qwen-tts 0.1.1) built from the released config.json files;
tensor counts and file sizes agree with the headers of the released files. Weights of models are stored as BF16, those
of the codec as F32.

In a name, {a,b} stands for either and {0..3} for each number; in a shape, H is the talker's width, I the width of its
MLP.
"""

import itertools
import re

Shapes = dict[str, tuple[int, ...]]

_TALKER = """
talker.model.text_embedding.weight                                              151936 2048
talker.text_projection.linear_fc1.weight                                        2048 2048
talker.text_projection.linear_fc1.bias                                          2048
talker.text_projection.linear_fc2.weight                                        H 2048
talker.text_projection.linear_fc2.bias                                          H
talker.{codec_head,model.codec_embedding}.weight                                3072 H
talker.model.norm.weight                                                        H
talker.model.layers.{0..27}.{input_layernorm,post_attention_layernorm}.weight   H
talker.model.layers.{0..27}.self_attn.q_proj.weight                             2048 H
talker.model.layers.{0..27}.self_attn.{k_proj,v_proj}.weight                    1024 H
talker.model.layers.{0..27}.self_attn.o_proj.weight                             H 2048
talker.model.layers.{0..27}.self_attn.{q_norm,k_norm}.weight                    128
talker.model.layers.{0..27}.mlp.{gate_proj,up_proj}.weight                      I H
talker.model.layers.{0..27}.mlp.down_proj.weight                                H I
talker.code_predictor.lm_head.{0..14}.weight                                    2048 1024
talker.code_predictor.model.codec_embedding.{0..14}.weight                      2048 H
talker.code_predictor.model.norm.weight                                         1024
talker.code_predictor.model.layers.{0..4}.{input_layernorm,post_attention_layernorm}.weight  1024
talker.code_predictor.model.layers.{0..4}.self_attn.q_proj.weight               2048 1024
talker.code_predictor.model.layers.{0..4}.self_attn.{k_proj,v_proj}.weight      1024 1024
talker.code_predictor.model.layers.{0..4}.self_attn.o_proj.weight               1024 2048
talker.code_predictor.model.layers.{0..4}.self_attn.{q_norm,k_norm}.weight      128
talker.code_predictor.model.layers.{0..4}.mlp.{gate_proj,up_proj}.weight        3072 1024
talker.code_predictor.model.layers.{0..4}.mlp.down_proj.weight                  1024 3072
"""

_PROJECTION = """
talker.code_predictor.small_to_mtp_projection.weight                            1024 H
talker.code_predictor.small_to_mtp_projection.bias                              1024
"""

_SPEAKER_ENCODER = """
speaker_encoder.blocks.0.conv.weight                                            512 128 5
speaker_encoder.blocks.{1..3}.{tdnn1,tdnn2}.conv.weight                         512 512 1
speaker_encoder.blocks.0.conv.bias                                              512
speaker_encoder.blocks.{1..3}.{tdnn1,tdnn2}.conv.bias                           512
speaker_encoder.blocks.{1..3}.res2net_block.blocks.{0..6}.conv.weight           64 64 3
speaker_encoder.blocks.{1..3}.res2net_block.blocks.{0..6}.conv.bias             64
speaker_encoder.blocks.{1..3}.se_block.conv1.weight                             128 512 1
speaker_encoder.blocks.{1..3}.se_block.conv1.bias                               128
speaker_encoder.blocks.{1..3}.se_block.conv2.weight                             512 128 1
speaker_encoder.blocks.{1..3}.se_block.conv2.bias                               512
speaker_encoder.mfa.conv.weight                                                 1536 1536 1
speaker_encoder.{mfa,asp}.conv.bias                                             1536
speaker_encoder.asp.conv.weight                                                 1536 128 1
speaker_encoder.asp.tdnn.conv.weight                                            128 4608 1
speaker_encoder.asp.tdnn.conv.bias                                              128
speaker_encoder.fc.weight                                                       H 3072 1
speaker_encoder.fc.bias                                                         H
"""

_CODEC_DECODER = """
decoder.quantizer.rvq_{first,rest}.input_proj.weight                            256 512 1
decoder.quantizer.rvq_{first,rest}.output_proj.weight                           512 256 1
decoder.quantizer.rvq_first.vq.layers.0._codebook.cluster_usage                 2048
decoder.quantizer.rvq_first.vq.layers.0._codebook.embedding_sum                 2048 256
decoder.quantizer.rvq_rest.vq.layers.{0..14}._codebook.cluster_usage            2048
decoder.quantizer.rvq_rest.vq.layers.{0..14}._codebook.embedding_sum            2048 256
decoder.pre_conv.conv.weight                                                    1024 512 3
decoder.pre_conv.conv.bias                                                      1024
decoder.pre_transformer.input_proj.weight                                       512 1024
decoder.pre_transformer.input_proj.bias                                         512
decoder.pre_transformer.output_proj.weight                                      1024 512
decoder.pre_transformer.output_proj.bias                                        1024
decoder.pre_transformer.norm.weight                                             512
decoder.pre_transformer.layers.{0..7}.{input_layernorm,post_attention_layernorm}.weight  512
decoder.pre_transformer.layers.{0..7}.{self_attn,mlp}_layer_scale.scale         512
decoder.pre_transformer.layers.{0..7}.self_attn.{q,k,v}_proj.weight             1024 512
decoder.pre_transformer.layers.{0..7}.self_attn.o_proj.weight                   512 1024
decoder.pre_transformer.layers.{0..7}.mlp.{gate,up}_proj.weight                 1024 512
decoder.pre_transformer.layers.{0..7}.mlp.down_proj.weight                      512 1024
decoder.upsample.{0,1}.0.conv.weight                                            1024 1024 2
decoder.upsample.{0,1}.{0,1.dwconv}.conv.bias                                   1024
decoder.upsample.{0,1}.1.{gamma,norm.weight,norm.bias,pwconv2.bias}             1024
decoder.upsample.{0,1}.1.dwconv.conv.weight                                     1024 1 7
decoder.upsample.{0,1}.1.pwconv1.weight                                         4096 1024
decoder.upsample.{0,1}.1.pwconv1.bias                                           4096
decoder.upsample.{0,1}.1.pwconv2.weight                                         1024 4096
decoder.decoder.0.conv.weight                                                   1536 1024 7
decoder.decoder.0.conv.bias                                                     1536
decoder.decoder.5.{alpha,beta}                                                  96
decoder.decoder.6.conv.weight                                                   1 96 7
decoder.decoder.6.conv.bias                                                     1
"""

# One of the four blocks; W its input width, U half of it, K its kernel.
_CODEC_DECODER_BLOCK = """
decoder.decoder.B.block.0.{alpha,beta}                                          W
decoder.decoder.B.block.1.conv.weight                                           W U K
decoder.decoder.B.block.1.conv.bias                                             U
decoder.decoder.B.block.{2..4}.{act1,act2}.{alpha,beta}                         U
decoder.decoder.B.block.{2..4}.conv1.conv.weight                                U U 7
decoder.decoder.B.block.{2..4}.conv2.conv.weight                                U U 1
decoder.decoder.B.block.{2..4}.{conv1,conv2}.conv.bias                          U
"""
_BLOCKS = ((1, 1536, 16), (2, 768, 10), (3, 384, 8), (4, 192, 6))

_CODEC_ENCODER = """
encoder.encoder.layers.0.conv.weight                                            64 1 7
encoder.encoder.layers.1.block.1.conv.weight                                    32 64 3
encoder.encoder.layers.1.block.1.conv.bias                                      32
encoder.encoder.layers.1.block.3.conv.weight                                    64 32 1
encoder.encoder.layers.{0,1.block.3,4.block.1}.conv.bias                        64
encoder.encoder.layers.3.conv.weight                                            128 64 8
encoder.encoder.layers.4.block.1.conv.weight                                    64 128 3
encoder.encoder.layers.4.block.3.conv.weight                                    128 64 1
encoder.encoder.layers.{3,4.block.3,7.block.1}.conv.bias                        128
encoder.encoder.layers.6.conv.weight                                            256 128 10
encoder.encoder.layers.7.block.1.conv.weight                                    128 256 3
encoder.encoder.layers.7.block.3.conv.weight                                    256 128 1
encoder.encoder.layers.{6,7.block.3,10.block.1}.conv.bias                       256
encoder.encoder.layers.9.conv.weight                                            512 256 12
encoder.encoder.layers.10.block.1.conv.weight                                   256 512 3
encoder.encoder.layers.10.block.3.conv.weight                                   512 256 1
encoder.encoder.layers.{9,10.block.3,14}.conv.bias                              512
encoder.encoder.layers.12.conv.weight                                           1024 512 16
encoder.encoder.layers.12.conv.bias                                             1024
encoder.encoder.layers.14.conv.weight                                           512 1024 3
encoder.downsample.conv.weight                                                  512 512 4
encoder.encoder_transformer.layers.{0..7}.{input,post_attention}_layernorm.{weight,bias}  512
encoder.encoder_transformer.layers.{0..7}.{self_attn,mlp}_layer_scale.scale     512
encoder.encoder_transformer.layers.{0..7}.self_attn.{q,k,v,o}_proj.weight       512 512
encoder.encoder_transformer.layers.{0..7}.mlp.fc1.weight                        2048 512
encoder.encoder_transformer.layers.{0..7}.mlp.fc2.weight                        512 2048
encoder.quantizer.{semantic,acoustic}_residual_vector_quantizer.input_proj.weight   256 512 1
encoder.quantizer.{semantic,acoustic}_residual_vector_quantizer.output_proj.weight  512 256 1
encoder.quantizer.semantic_residual_vector_quantizer.layers.0.codebook.cluster_usage       2048
encoder.quantizer.semantic_residual_vector_quantizer.layers.0.codebook.embed_sum           2048 256
encoder.quantizer.semantic_residual_vector_quantizer.layers.0.codebook.initialized         1
encoder.quantizer.acoustic_residual_vector_quantizer.layers.{0..30}.codebook.cluster_usage 2048
encoder.quantizer.acoustic_residual_vector_quantizer.layers.{0..30}.codebook.embed_sum     2048 256
encoder.quantizer.acoustic_residual_vector_quantizer.layers.{0..30}.codebook.initialized   1
"""


def model_tensors(hidden: int, intermediate: int, *, speaker_encoder: bool) -> Shapes:
    """model.safetensors of a model of this talker width."""
    text = _TALKER + (_PROJECTION if hidden != 1024 else "") + (_SPEAKER_ENCODER if speaker_encoder else "")
    return _read(text, {"H": hidden, "I": intermediate})


def codec_tensors() -> Shapes:
    """speech_tokenizer/model.safetensors."""
    shapes = _read(_CODEC_DECODER + _CODEC_ENCODER, {})
    for block, width, kernel in _BLOCKS:
        text = _CODEC_DECODER_BLOCK.replace(".B.", f".{block}.")
        shapes |= _read(text, {"W": width, "U": width // 2, "K": kernel})
    return shapes


def _read(table: str, letters: dict[str, int]) -> Shapes:
    shapes: Shapes = {}
    for line in filter(None, table.splitlines()):
        pattern, *axes = line.split()
        shape = tuple(letters[axis] if axis in letters else int(axis) for axis in axes)
        for name in _expand(pattern):
            assert name not in shapes, f"{name} stands in the table twice"
            shapes[name] = shape
    return shapes


def _expand(pattern: str) -> list[str]:
    """Every name of a pattern: the product of its braces."""
    texts = re.split(r"\{.*?\}", pattern)
    choices = [_choices(brace) for brace in re.findall(r"\{(.*?)\}", pattern)]
    return ["".join(itertools.chain(*zip(texts, (*chosen, ""), strict=True))) for chosen in itertools.product(*choices)]


def _choices(brace: str) -> list[str]:
    first, dots, last = brace.partition("..")
    return [str(number) for number in range(int(first), int(last) + 1)] if dots else brace.split(",")
