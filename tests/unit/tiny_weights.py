"""Random extractors of the kinds that the registry takes by path, small enough to run in tests."""

import json
from pathlib import Path

import open_clip
import torch
from moviegen_eval.metrics.extractors import InceptionFid
from torchvision.models import alexnet, vgg16
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


class I3d(torch.nn.Module):
    """The signature of StyleGAN-V's file."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(3, 4)

    def forward(
        self, x: torch.Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False
    ) -> torch.Tensor:
        return self.net(x.flatten(3).std(3).mean(2) / 255 + x.mean([2, 3, 4]) / 255)


class Face(torch.nn.Module):
    """float [N, 3, 112, 112] to [N, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(3 * 16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(torch.nn.functional.adaptive_avg_pool2d(x, 4).flatten(1))


class Viclip(torch.nn.Module):
    """float [N, 8, 3, 224, 224] and int64 [N, L] to [N, 6]."""

    context_length: int

    def __init__(self) -> None:
        super().__init__()
        self.context_length = 16
        self.see, self.read = torch.nn.Linear(8 * 3 * 4, 6), torch.nn.Embedding(49408, 6)

    @torch.jit.export
    def video(self, x: torch.Tensor) -> torch.Tensor:
        return self.see(torch.nn.functional.adaptive_avg_pool2d(x.flatten(1, 2), 2).flatten(1))

    @torch.jit.export
    def text(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.read(tokens).mean(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.video(x)


class Ear(torch.nn.Module):
    """float [N, L] to [N, 4], a second at 8 kHz."""

    sample_rate_hz: int
    window_seconds: float

    def __init__(self) -> None:
        super().__init__()
        self.sample_rate_hz, self.window_seconds = 8000, 1.0
        self.net = torch.nn.Linear(80, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x.reshape(x.shape[0], 80, -1).abs().mean(2))


class Bind(torch.nn.Module):
    """Two embeddings of 4 numbers, at 8 kHz."""

    sample_rate_hz: int

    def __init__(self) -> None:
        super().__init__()
        self.sample_rate_hz = 8000
        self.heard, self.seen = torch.nn.Linear(1, 4), torch.nn.Linear(3, 4)

    @torch.jit.export
    def sound(self, x: torch.Tensor) -> torch.Tensor:
        return self.heard(x.abs().mean(1, keepdim=True))

    @torch.jit.export
    def pictures(self, x: torch.Tensor) -> torch.Tensor:
        return self.seen(x.float().mean(0).mean(0).mean(0)[None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.sound(x)


def write_clap(folder: Path) -> str:
    """A tiny CLAP with its processor, as transformers saves them; the words are single characters."""
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, ClapProcessor, RobertaTokenizer

    characters = [chr(code) for code in (*range(33, 127), 0x0120)]  # the last is byte-level for a blank
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    folder.mkdir()
    (folder / "vocab.json").write_text(
        json.dumps({word: n for n, word in enumerate([*special, *characters])})
    )
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = RobertaTokenizer.from_pretrained(folder)
    text = {"vocab_size": 128, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    audio = {
        "patch_embeds_hidden_size": 8,
        "hidden_size": 16,
        "depths": [1, 1],
        "num_attention_heads": [1, 1],
    }
    config = ClapConfig(
        text_config=text | {"intermediate_size": 8, "projection_dim": 4, "pad_token_id": 1},
        audio_config=audio | {"projection_dim": 4},
        projection_dim=4,
    )
    model = ClapModel(config)
    for parameter in model.parameters():  # some of its own are left as memory was
        torch.nn.init.normal_(parameter, std=0.05)
    model.save_pretrained(folder)
    ClapProcessor(ClapFeatureExtractor(truncation="rand_trunc"), tokenizer).save_pretrained(folder)
    return str(folder)


def write_tiny_weights(folder: Path) -> dict[str, str]:
    """Every weight of the registry -> path of a random stand-in."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    paths = {
        name: str(folder / f"{name}.pt") for name in ("i3d_fvd", "face_embedder", "audio_embedder", "viclip")
    }
    scripts = (("i3d_fvd", I3d()), ("face_embedder", Face()), ("audio_embedder", Ear()), ("viclip", Viclip()))
    for name, module in scripts:
        torch.jit.script(module).save(paths[name])
    paths["imagebind"] = str(folder / "imagebind.pt")
    torch.jit.script(Bind()).save(paths["imagebind"])
    paths["audio_classifier"] = str(folder / "audio_classifier.pt")
    torch.jit.script(Ear()).save(paths["audio_classifier"])
    paths["clap"] = write_clap(folder / "clap")
    for name, net in (("alexnet", alexnet(weights=None)), ("vgg16", vgg16(weights=None))):
        features = {key: value for key, value in net.state_dict().items() if key.startswith("features.")}
        paths[name] = str(folder / f"{name}.pth")
        torch.save(features, paths[name])
    paths["inception_fid"] = str(folder / "inception.pth")
    inception = InceptionFid(None).net
    inception.fc = torch.nn.Linear(2048, 1008)
    torch.save(inception.state_dict(), paths["inception_fid"])
    return paths | {
        "open_clip": write_clip(folder / "clip"),
        "pickscore": write_pickscore(folder / "pickscore"),
    }


def write_pickscore(folder: Path) -> str:
    """A tiny CLIP as transformers saves one."""
    torch.manual_seed(2)
    small = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
    vision = CLIPVisionConfig(**small, image_size=32, patch_size=16)
    text = CLIPTextConfig(**small, vocab_size=49408, max_position_embeddings=24)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(folder)
    return str(folder)


def write_clip(folder: Path) -> str:
    """A tiny CLIP as open-clip saves one."""
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CLIP, "preprocess_cfg": {}}))
    torch.manual_seed(1)
    net = open_clip.CLIP(**{key: CLIP[key] for key in ("embed_dim", "vision_cfg", "text_cfg")})
    torch.save(net.state_dict(), folder / "open_clip_pytorch_model.bin")
    return str(folder)
