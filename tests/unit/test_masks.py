"""The finder of named things (`SamMasks`) on local folders of a Grounding DINO and a SAM 2 with tiny random weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from media_samples import moving
from moviegen_data.masks import SamMasks
from transformers import (
    BertConfig,
    BertTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    Sam2HieraDetConfig,
    Sam2ImageProcessor,
    Sam2VideoConfig,
    Sam2VideoModel,
    Sam2VideoProcessor,
    Sam2VideoVideoProcessor,
    Sam2VisionConfig,
    SwinConfig,
)
from transformers.models.sam2_video.configuration_sam2_video import (
    Sam2VideoMaskDecoderConfig,
    Sam2VideoPromptEncoderConfig,
)

SIDE = 128  # pixels that the tiny SAM 2 sees
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "a", "red", "cat", "star"]


def write_detector(folder: Path) -> str:
    """A Grounding DINO with random weights, as transformers saves it."""
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    swin = SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1, 1], num_heads=[1, 1, 1], window_size=4, out_indices=[2, 3]
    )
    words = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    config = GroundingDinoConfig(
        backbone_config=swin,
        text_config=words,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        num_queries=5,
        num_feature_levels=2,
        max_text_len=16,
        disable_custom_kernels=True,
    )
    torch.manual_seed(0)
    GroundingDinoForObjectDetection(config).save_pretrained(folder)
    pictures = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    GroundingDinoProcessor(pictures, BertTokenizer(str(folder / "vocab.txt"))).save_pretrained(folder)
    return str(folder)


def write_segmenter(folder: Path) -> str:
    """A SAM 2 for video with random weights, as transformers saves it."""
    width, sizes = 128, [[SIDE // 4] * 2, [SIDE // 8] * 2, [SIDE // 16] * 2]
    eye = Sam2HieraDetConfig(
        hidden_size=8,
        image_size=[SIDE, SIDE],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 24, 32],
        num_attention_heads_per_stage=[1, 1, 1, 1],
        window_size_per_stage=[4, 4, 4, 4],
        global_attention_blocks=[3],
    )
    vision = Sam2VisionConfig(
        backbone_config=eye,
        backbone_channel_list=[32, 24, 16, 8],
        backbone_feature_sizes=sizes,
        fpn_hidden_size=width,
    )
    config = Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config=Sam2VideoPromptEncoderConfig(
            hidden_size=width, image_size=SIDE, mask_input_channels=4
        ),
        mask_decoder_config=Sam2VideoMaskDecoderConfig(
            hidden_size=width, mlp_dim=16, num_attention_heads=2, iou_head_hidden_dim=16
        ),
        image_size=SIDE,
        memory_attention_hidden_size=width,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=16,
        memory_attention_rope_feat_sizes=sizes[-1],
        memory_encoder_hidden_size=width,
        memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=width,
        memory_fuser_num_layers=1,
        memory_fuser_embed_dim=width,
        memory_fuser_intermediate_dim=16,
    )
    torch.manual_seed(0)
    Sam2VideoModel(config).save_pretrained(folder)
    size = {"height": SIDE, "width": SIDE}
    pictures, videos = Sam2ImageProcessor(size=size), Sam2VideoVideoProcessor(size=size)
    Sam2VideoProcessor(pictures, videos).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("masks")
    return write_detector(folder / "detector"), write_segmenter(folder / "segmenter")


def test_local_folders_give_a_mask_of_every_frame_and_none_of_what_is_not_seen(
    folders: tuple[str, str],
) -> None:
    frames = moving(4, 40, 56)
    found = SamMasks(*folders, threshold=0.0).find(frames, "a red cat")
    assert found is not None and found.dtype == bool and found.shape == (4, 40, 56)
    again = SamMasks(*folders, threshold=0.0).find(frames, "a red cat")
    assert again is not None
    np.testing.assert_array_equal(again, found)
    assert SamMasks(*folders, threshold=1.0).find(frames, "a red cat") is None


def test_the_box_lies_where_the_detector_saw_it_and_leads_the_segmenter(
    folders: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    finder, frames = SamMasks(*folders, threshold=0.0), moving(3, 40, 56)
    box = finder._box(frames[0], "a red cat")
    assert box is not None and len(box) == 4 and max(box) <= 2 * 56
    masks = []
    for given in ([2.0, 2.0, 12.0, 12.0], [30.0, 20.0, 54.0, 38.0]):
        monkeypatch.setattr(finder, "_box", lambda *_, given=given: given)
        seen: list[torch.Tensor] = []
        real = finder.video.post_process_masks
        monkeypatch.setattr(
            finder.video,
            "post_process_masks",
            lambda m, real=real, seen=seen, **k: (seen.append(m[0]), real(m, **k))[1],
        )
        finder.find(frames, "a red cat")
        monkeypatch.setattr(finder.video, "post_process_masks", real)
        assert len(seen) == 3
        masks.append(seen[0])
    assert not torch.allclose(*masks)


def test_folders_that_hold_no_such_model_are_refused(folders: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no config\.json; give a local folder of a transformers model"):
        SamMasks(folders[0], str(tmp_path))
    with pytest.raises(ValueError, match=r"is no SAM 2 for video"):
        SamMasks(folders[0], folders[0])
    with pytest.raises(ValueError, match=r"is no detector that takes words"):
        SamMasks(folders[1], folders[1])
