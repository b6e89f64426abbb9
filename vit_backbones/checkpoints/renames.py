"""Rename tables: keys of other projects' ViTs and timm's for them. Data only.

Each table holds regular expressions and replacements, applied to every key in their order; a key
that becomes empty is dropped. The facts are those of the projects named in `layouts.py`.
"""

Renames = tuple[tuple[str, str], ...]

# Modules of an `nn.MultiheadAttention`, whatever its own name was
_FUSED = (
    (r'\.attn\.in_proj_(weight|bias)$', r'.attn.qkv.\1'),
    (r'\.attn\.out_proj\.', '.attn.proj.'),
)

TRANSFORMERS: Renames = (
    (r'^embeddings\.(cls_token)$', r'\1'),
    (r'^embeddings\.distillation_token$', 'dist_token'),
    (r'^embeddings\.register_tokens$', 'reg_token'),
    (r'^embeddings\.position_embeddings$', 'pos_embed'),
    (r'^embeddings\.patch_embeddings\.(projection\.)?', 'patch_embed.proj.'),
    (r'^(embeddings\.mask_token|(pooler|classifier|decoder)\..*)$', ''),
    (r'^(encoder\.|model\.)?layers?\.', 'blocks.'),
    # version 4 spells query, key and value out, version 5 does not
    (r'\.attention\.(?:attention\.)?(q|k|v)(?:uery|ey|alue|_proj)\.', r'.attn.\1.'),
    (r'\.attention\.(output\.dense|o_proj)\.', '.attn.proj.'),
    (r'\.(layernorm_before|norm1)\.', '.norm1.'),
    (r'\.(layernorm_after|norm2)\.', '.norm2.'),
    (r'\.(intermediate\.dense|mlp\.weights_in)\.', '.mlp.fc1.'),
    (r'\.(output\.dense|mlp\.weights_out|mlp\.down_proj)\.', '.mlp.fc2.'),
    (r'\.mlp\.gate_proj\.', '.mlp.fc1_g.'),
    (r'\.mlp\.up_proj\.', '.mlp.fc1_x.'),
    (r'\.(?:layer_scale([12])\.lambda1)$', r'.ls\1.gamma'),
    (r'\.lambda_([12])$', r'.ls\1.gamma'),
    (r'^layernorm\.', 'norm.'),
)
TRANSFORMERS_BEIT: Renames = (
    (r'^(encoder\.relative|shared)_position_bias\.', 'rel_pos_bias.'),
    (r'(\.attention\.attention)?\.relative_position_bias\.', '.attn.'),
    *TRANSFORMERS,
)
TRANSFORMERS_CLIP: Renames = (
    (r'^embeddings\.class_embedding$', 'cls_token'),
    (r'^embeddings\.patch_embedding\.', 'patch_embed.proj.'),
    (r'^embeddings\.position_embedding\.weight$', 'pos_embed'),
    (r'^embeddings\.position_ids$', ''),
    (r'^pre_layrnorm\.', 'norm_pre.'),
    (r'^post_layernorm\.', 'norm.'),
    (r'^encoder\.layers\.', 'blocks.'),
    (r'\.self_attn\.([qkv])_proj\.', r'.attn.\1.'),
    (r'\.self_attn\.out_proj\.', '.attn.proj.'),
    (r'\.layer_norm([12])\.', r'.norm\1.'),
)
SAM: Renames = ((r'\.mlp\.lin([12])\.', r'.mlp.fc\1.'),)
TRANSFORMERS_SAM: Renames = (
    (r'^patch_embed\.projection\.', 'patch_embed.proj.'),
    (r'^layers\.', 'blocks.'),
    (r'^neck\.conv1\.', 'neck.0.'),
    (r'^neck\.layer_norm1\.', 'neck.1.'),
    (r'^neck\.conv2\.', 'neck.2.'),
    (r'^neck\.layer_norm2\.', 'neck.3.'),
    (r'\.layer_norm([12])\.', r'.norm\1.'),
    *SAM,
)
# Tensors beside timm's that only pre-training needs
BEIT: Renames = ((r'^(mask_token$|lm_head\.|cls_pt_layers\.).*', ''),)
META_DINOV2: Renames = (
    (r'^blocks\.\d+\.(\d+)\.', r'blocks.\1.'),  # chunks hold blocks under their place in the model
    (r'^register_tokens$', 'reg_token'),
    (r'^mask_token$', ''),
    (r'\.mlp\.w12\.', '.mlp.fc1.'),
    (r'\.mlp\.w3\.', '.mlp.fc2.'),
)
META_DINOV3: Renames = (
    (r'^storage_tokens$', 'reg_token'),
    # rotary periods are the same in all of these models; the rest is for pre-training
    (r'^(mask_token$|(rope_embed|local_cls_norm|projectors)\.).*', ''),
    (r'\.mlp\.w1\.', '.mlp.fc1_g.'),
    (r'\.mlp\.w2\.', '.mlp.fc1_x.'),
    (r'\.mlp\.w3\.', '.mlp.fc2.'),
)
EVA: Renames = (
    # rotations are computed, the rest is for pre-training
    (r'^(.*rope\.freqs_(cos|sin)$|mask_token$|lm_head\..*)', ''),
    (r'\.attn\.inner_attn_ln\.', '.attn.norm.'),
    (r'\.mlp\.ffn_ln\.', '.mlp.norm.'),
    (r'\.mlp\.w12\.', '.mlp.fc1.'),
    (r'\.mlp\.w1\.', '.mlp.fc1_g.'),
    (r'\.mlp\.w2\.', '.mlp.fc1_x.'),
    (r'\.mlp\.w3\.', '.mlp.fc2.'),
)
OPENMMLAB: Renames = (
    (r'^patch_embed\.projection\.', 'patch_embed.proj.'),
    (r'^layers\.', 'blocks.'),
    (r'\.ln([12])\.', r'.norm\1.'),
    (r'\.attn\.attn\.', '.attn.'),
    *_FUSED,
    (r'\.(?:attn\.gamma|ffn\.gamma)([12])\.weight$', r'.ls\1.gamma'),
    (r'\.gamma_([12])$', r'.ls\1.gamma'),
    (r'\.ffn\.(layers\.0\.0|w12)\.', '.mlp.fc1.'),
    (r'\.ffn\.(layers\.1|w3)\.', '.mlp.fc2.'),
    (r'^(pre_norm|ln_pre)\.', 'norm_pre.'),
    (r'^ln1\.', 'norm.'),
    (r'^ln2\.', 'fc_norm.'),
)
OPENMMLAB_SAM: Renames = ((r'^channel_reduction\.', 'neck.'), *OPENMMLAB)
TORCHVISION: Renames = (
    (r'^class_token$', 'cls_token'),
    (r'^conv_proj\.', 'patch_embed.proj.'),
    (r'^encoder\.pos_embedding$', 'pos_embed'),
    (r'^encoder\.layers\.encoder_layer_(\d+)\.', r'blocks.\1.'),
    (r'^encoder\.ln\.', 'norm.'),
    (r'^(heads\..*|mask_token)$', ''),
    (r'\.ln_([12])\.', r'.norm\1.'),
    (r'\.self_attention\.', '.attn.'),
    *_FUSED,
    (r'\.mlp\.(0|linear_1)\.', '.mlp.fc1.'),
    (r'\.mlp\.(3|linear_2)\.', '.mlp.fc2.'),
)
OPENCLIP: Renames = (
    (r'^class_embedding$', 'cls_token'),
    (r'^conv1\.', 'patch_embed.proj.'),
    (r'^positional_embedding$', 'pos_embed'),
    (r'^ln_pre\.', 'norm_pre.'),
    (r'^ln_post\.', 'norm.'),
    (r'^proj$', ''),
    (r'^transformer\.resblocks\.', 'blocks.'),
    (r'\.ln_([12])\.', r'.norm\1.'),
    (r'\.ls_([12])\.gamma$', r'.ls\1.gamma'),
    *_FUSED,
    (r'\.mlp\.c_fc\.', '.mlp.fc1.'),
    (r'\.mlp\.c_proj\.', '.mlp.fc2.'),
)
FLAX: Renames = (
    (r'^cls$', 'cls_token'),
    (r'^(Transformer\.)?(posembed_input\.)?pos_embedding$', 'pos_embed'),
    (r'^embedding\.', 'patch_embed.proj.'),
    (r'^(head|pre_logits|MAPHead_0)\..*', ''),
    (r'^Transformer\.encoderblock_(\d+)\.', r'blocks.\1.'),
    (r'^Transformer\.encoder_norm\.', 'norm.'),
    # sub-modules are counted within their kind, or in old files over all kinds
    (r'\.LayerNorm_0\.', '.norm1.'),
    (r'\.LayerNorm_[12]\.', '.norm2.'),
    (r'\.MultiHeadDotProductAttention_\d\.(q|k|v)(?:uery|ey|alue)\.', r'.attn.\1.'),
    (r'\.MultiHeadDotProductAttention_\d\.out\.', '.attn.proj.'),
    (r'\.MlpBlock_\d\.Dense_0\.', '.mlp.fc1.'),
    (r'\.MlpBlock_\d\.Dense_1\.', '.mlp.fc2.'),
    (r'\.(kernel|scale)$', '.weight'),
)
