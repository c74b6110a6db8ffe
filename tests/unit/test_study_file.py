"""The study file: what it must hold, what its digest covers, and what is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
from moviegen_eval.study.axes import AXES
from moviegen_eval.study.study import Arm, Item, Study, load_study, save_study
from study_samples import small_study

TEXT = """
id: ours-against-sora
title: Ours against Sora
axes: [overall, {key: realness, raters: 5}, {key: sound_fit, question: Which sound fits better?, raters: 2}]
arms: [{name: ours, folder: ours}, {name: sora, folder: sora}]
items:
- {id: i1, prompt: a cat, arm_a: ours, arm_b: sora, video_a: ours/1.mp4, video_b: sora/1.mp4, tags: {motion: low}}
- {id: g1, prompt: a cat, arm_a: ours, arm_b: ours, video_a: ours/1.mp4, video_b: ours/1.mp4, gold: tie}
exclusion: {min_gold_accuracy: 0.7}
"""


def load(folder: Path, text: str) -> Study:
    (folder / "study.yaml").write_text(text, encoding="utf-8")
    return load_study(folder / "study.yaml")


def test_axes_of_the_paper_are_named_by_key_and_have_its_numbers_of_raters(tmp_path: Path) -> None:
    study = load(tmp_path, TEXT)
    assert [(axis.key, axis.raters) for axis in study.axes] == [
        ("overall", 3),
        ("realness", 5),
        ("sound_fit", 2),
    ]
    assert {key for key, axis in AXES.items() if axis.raters == 6} == {"realness", "aesthetics"}
    assert {"identity", "edit_text", "audio_quality"} <= AXES.keys()


def test_a_study_written_as_yaml_or_json_comes_back_with_its_digest(tmp_path: Path) -> None:
    study = load(tmp_path, TEXT)
    for name in ("copy.yaml", "copy.json"):
        save_study(study, tmp_path / name)
        assert load_study(tmp_path / name).digest == study.digest


def test_the_digest_changes_with_everything_declared_but_not_with_the_folder(tmp_path: Path) -> None:
    study = load(tmp_path, TEXT)
    (tmp_path / "elsewhere").mkdir()
    assert load(tmp_path / "elsewhere", TEXT).digest == study.digest
    changed = [
        replace(study, seed=1),
        replace(study, instructions="Look at the hands."),
        replace(study, axes=study.axes[:2]),
        replace(study, items=study.items[:1]),
        replace(study, exclusion=replace(study.exclusion, min_gold_accuracy=0.8)),
    ]
    assert len({study.digest, *(other.digest for other in changed)}) == 6


def test_a_reference_is_part_of_the_digest_and_a_study_without_one_says_nothing_of_it(tmp_path: Path) -> None:
    study = load(tmp_path, TEXT)
    assert '"reference"' not in study.canonical_json() and study.without_reference() == (None, [])
    shown = tuple(replace(item, reference="faces/1.png") for item in study.items[:1])
    held = replace(study, axes=(AXES["identity"], AXES["overall"]), items=(*shown, *study.items[1:]))
    assert held.canonical_json().count('"reference"') == 2
    assert held.without_reference() == (AXES["identity"], ["g1"])
    save_study(held, tmp_path / "held.yaml")
    again = load_study(tmp_path / "held.yaml")
    assert again.digest == held.digest and again.reference(again.items[0]) == tmp_path / "faces/1.png"


def test_items_may_stand_in_a_file_of_lines(tmp_path: Path) -> None:
    head, _, _ = TEXT.partition("items:\n")
    (tmp_path / "items.jsonl").write_text(
        '{"id": "i1", "prompt": "x", "arm_a": "ours", "arm_b": "sora", "video_a": "a", "video_b": "b"}\n'
    )
    assert [item.id for item in load(tmp_path, f"{head}items: items.jsonl\n").items] == ["i1"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("title: Ours", "titel: Ours", "unknown key 'titel'; did you mean 'title'"),
        ("id: i1", "id: 1", "items[0]: key 'id' is 1; expected str"),
        ("id: g1", "id: i1", "item 'i1' is given twice"),
        ("arm_b: sora", "arm_b: sorra", "arm 'sorra' is none of ours, sora"),
        ("gold: tie", "gold: same", "key 'gold' is 'same'"),
        (", gold: tie", "", "both arms are 'ours'; only a gold item"),
        ("axes: [overall, ", "axes: [overal, ", "'overal' has no question and is none of overall"),
        ("raters: 5", "raters: 0", "raters is 0; expected 1 or more"),
        ("min_gold_accuracy: 0.7", "min_gold_accuracy: 70", "min_gold_accuracy is 70; expected 0 to 1"),
        ("min_gold_accuracy: 0.7", "min_gold_acuracy: 0.7", "did you mean 'min_gold_accuracy'"),
        ("title: Ours", "id: twice\ntitle: Ours", "key 'id' twice"),
        ("name: sora", "name: so/ra", "arm 'so/ra': a name has"),
        ("title: Ours", "root: x\ntitle: Ours", "unknown key 'root'"),
        ("arms: [", "arms: [[", "is not yaml"),
    ],
)
def test_a_wrong_study_is_refused_in_one_line_with_the_file_and_the_key(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(ValueError) as caught:
        load(tmp_path, TEXT.replace(old, new, 1))
    text = str(caught.value)
    assert message in text
    assert text.startswith(str(tmp_path / "study.yaml"))
    assert "\n" not in text


def test_pairs_come_in_the_order_of_arms_whatever_the_items_say() -> None:
    study = small_study(2, ("ours", "sora", "kling"))
    turned = [Item(i.id, i.prompt, i.arm_b, i.arm_a, i.video_b, i.video_a) for i in study.items]
    expected = (("ours", "sora"), ("ours", "kling"), ("sora", "kling"))
    assert study.pairs() == replace(study, items=tuple(turned)).pairs() == expected
    assert study.arms[0] == Arm("ours")


def test_items_of_the_same_prompt_are_one_cluster_whatever_their_blanks() -> None:
    clusters = {Item(n, text, "a", "b", "", "").cluster for n, text in (("1", "a  cat "), ("2", "a cat"))}
    assert clusters == {"a cat"}
    assert Item("3", " ", "a", "b", "", "").cluster == "item 3"
