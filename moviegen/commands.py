"""The table of subcommands that the console program `moviegen` dispatches; imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """One subcommand: where its function lives, which conf/<config>.yaml it composes, what it does."""

    function: str  # "module:function", called with the composed, validated config
    config: str | None  # None: the function takes no config
    summary: str
    examples: tuple[str, ...] = ()
    bare: str | None = None  # the setting that a first word without `key=` gives


COMMANDS = {
    "train": Command(
        "moviegen.train:train",
        "train",
        "Train a model, or go on with a run whose folder exists.",
        (
            "experiments=toy/t2v",
            "experiments=toy/t2v optimizer.lr=3e-4",
            "-m experiments=toy/t2v seed=0,1",
            "experiments=toy/t2v trainer=gpu trainer.devices=8 nodes=8 launcher=slurm",
        ),
    ),
    "encode": Command(
        "moviegen.encode:encode", "encode", "Cache latents and text features of shards into new shards."
    ),
    "generate": Command(
        "moviegen.generate:generate", "generate", "Turn prompts into marked mp4 files with a trained model."
    ),
    "extend": Command(
        "moviegen.extend:extend",
        "extend",
        "Make a video longer than a model makes at once, going on from its end.",
        ("prompt='a red star moves left' seconds=16 out=star.mp4",),
    ),
    "upscale": Command(
        "moviegen.upscale:upscale",
        "upscale",
        "Make a video larger with a spatial upsampler, in windows, streamed.",
        (
            "film.mp4 factor=2 out=large.mp4",
            "film.mp4 size=[1080,1920]",
            "film.mp4 factor=2 size=[1080,1920]",
        ),
        bare="video",
    ),
    "upscale clips": Command(
        "moviegen.upscale_clips:upscale_clips",
        "upscale_clips",
        "Make held-out clips larger, losslessly, to be judged.",
        ("clips=runs/upscale_set run_dir=runs/upscaled model=runs/toy/upsample/model",),
    ),
    "film": Command(
        "moviegen.film:film",
        "film",
        "From a prompt to a film with sound, marked as generated; goes on where it was broken off.",
        (
            "prompt='a red star moves left' seconds=16 out=film.mp4",
            "-m prompts=prompts.txt part=1/4,2/4,3/4,4/4 launcher=slurm",
        ),
    ),
    "sound": Command(
        "moviegen.sound:sound",
        "sound",
        "Make sound for a video of any length, or for a text.",
        (
            "video=in.mp4 prompt='a ball bounces on a wooden floor' out=out.mp4",
            "video=in.mp4 music='calm piano' out=out.mp4 wav=out.wav",
            "video=in.mp4 'keep=[[0.0,2.0]]' out=filled.mp4",
            "prompt='rain on a roof' seconds=10 out=rain.wav",
        ),
    ),
    "sound shards": Command(
        "moviegen.sound_shards:sound_shards",
        "sound_shards",
        "Make sound for the clips of shards, alone or joined to longer ones, to be judged.",
        (
            "shards=runs/toy/sound_shards",
            "shards=runs/toy/sound_shards join=15 sampler.method=segments sampler.hop=75",
        ),
    ),
    "personalize": Command(
        "moviegen.personalize:personalize",
        "personalize",
        "Turn pictures of a person and prompts into videos of that person; needs a consent record.",
        ("checkpoint=runs/p/model reference=face.png prompt='a person laughs' consent=anna",),
    ),
    "consent add": Command(
        "moviegen.consent:add",
        "consent_add",
        "Add a consent record of one person or one recording.",
        (
            "id=anna name=Anna files=[anna.png] evidence=form.pdf expires=2027-12-31 purpose='a birthday film'",
        ),
    ),
    "consent list": Command("moviegen.consent:list_records", "consent_list", "List the consent records."),
    "consent revoke": Command(
        "moviegen.consent:revoke",
        "consent_revoke",
        "Revoke a consent record; lists the checkpoints trained on it.",
        ("id=anna reason='asked on 3 May'",),
    ),
    "edit": Command(
        "moviegen.edit:edit",
        "edit",
        "Change a video or a picture as an instruction says; frames, rate and sound stay.",
        (
            "video=in.mp4 instruction='make the red star blue'",
            "image=in.png instruction='remove the red star' checkpoint=runs/edit/model",
            "edits=edits.jsonl run_dir=runs/sdedit checkpoint=runs/t2v/model baseline=sdedit",
        ),
    ),
    "backtranslate": Command(
        "moviegen.backtranslate:backtranslate",
        "backtranslate",
        "Edit clips and filter the results, to train on the way back (stage III of editing).",
        (
            "latents=runs/latents checkpoint=runs/edit/stage2/model",
            "latents=runs/latents checkpoint=runs/edit/stage2/model max_clips=500",
        ),
    ),
    "rewrite": Command(
        "moviegen.rewrite:rewrite",
        "rewrite",
        "Rewrite prompts like training captions, by rules or with a local language model.",
        (
            "prompt='a star'",
            "prompts=bench.txt out=runs/prompts.jsonl rewriter=teacher rewriter.path=my_model",
        ),
    ),
    "rewrite data": Command(
        "moviegen.rewrite:rewrite_data",
        "rewrite_data",
        "Write pairs of prompts and a teacher's rewritings, to finetune a student on.",
    ),
    "runs compare": Command(
        "moviegen_eval.runs:compare",
        "runs_compare",
        "Say how the runs of a sweep differ and what became of them: a table of overrides and final figures.",
        ("runs/sweep", "runs/sweep figures=[val/*] wandb=null"),
        bare="folder",
    ),
    "average": Command(
        "moviegen.average:average",
        "average",
        "Average the weights of several finetuned models; writes each one's held-out loss and the average's.",
        ("'models=[runs/sft/0/model,runs/sft/1/model]' paths.latents=runs/demo/latents",),
    ),
    "reconstruct": Command(
        "moviegen.reconstruct:reconstruct",
        "reconstruct",
        "Pass held-out clips, or a video file of any length, through an autoencoder.",
        ("shards=runs/demo/shards", "video=film.mp4", "video=film.mp4 codec=runs/tae/model tiling.size=256"),
    ),
    "export": Command(
        "moviegen.export:export", "export", "Write a checkpoint as safetensors weights and a json config."
    ),
    "verify": Command(
        "moviegen.provenance.verify:verify",
        "verify",
        "Say whether a file, or each of a folder, was made by a model, and whether that can be trusted.",
        ("film.mp4", "runs/generate", "copy.mp4 sidecars=runs/generate out=findings.json"),
        bare="file",
    ),
    "info": Command(
        "moviegen.provenance.verify:info",
        "info",
        "Print how a generated file was made.",
        ("film.mp4",),
        bare="file",
    ),
    "plan": Command(
        "moviegen.plan.command:plan_command",
        "plan",
        "Say what a recipe costs on some hardware: bytes, traffic, step time, days; ranks the layouts that fit.",
        (
            "experiments=t2v/paper/stage3 hardware=h100 gpus=6144",
            "experiments=t2v/paper/stage2 hardware=a100 gpus=512 checkpointing=full hardware.dollars_per_hour=1.1",
        ),
    ),
    "data build": Command(
        "moviegen_data.build:build", "data_build", "Write toyworld clips or your own videos to shards."
    ),
    "data identities": Command(
        "moviegen_data.identities:identities",
        "data_identities",
        "Find the clips of one person and write them with reference pictures, to train personalization on.",
        (
            "shards=runs/x/shards out=runs/x/identities",
            "videos=[/my/videos] licence='custom:my recordings' consent=me out=runs/x/faces",
        ),
    ),
    "eval prompts": Command(
        "moviegen_eval.prompts:prompts", "prompts", "Write held-out toyworld prompts, and the specs of clips."
    ),
    "eval judge": Command(
        "moviegen_eval.judge:judge",
        "judge",
        "Measure generated and reconstructed clips; writes numbers.json.",
    ),
    "eval sound": Command(
        "moviegen_eval.sound:sound",
        "sound_eval",
        "Judge generated sounds of toyworld clips: synchrony, timbre, seams.",
        ("sounds=runs/sounds shards=runs/toy/sound_shards out=runs/judged_sound",),
    ),
    "eval identity": Command(
        "moviegen_eval.identity:identity",
        "identity",
        "Judge clips of given people: likeness, copying, text; with baselines and floors. Writes numbers.json.",
        ("out=runs/judged +arms.ours=runs/personalize +arms.text_only=runs/generate faces=toyworld",),
    ),
    "eval edit_set": Command(
        "moviegen_eval.edit_set:edit_set",
        "edit_set",
        "Write toyworld sources and instructions, or those of TGVE and TGVE+, for `edit edits=`.",
        ("out=runs/edit_set per_kind=64", "out=runs/tgve suite=tgve_plus:tgve.csv videos=tgve/videos"),
    ),
    "eval edits": Command(
        "moviegen_eval.edits:edits",
        "edits",
        "Judge edited toyworld clips: is the change there, is the rest as it was. Writes numbers.json.",
        ("out=runs/judged set=runs/edit_set +arms.ours=runs/edit +arms.copy=runs/copy",),
    ),
    "eval upscale_set": Command(
        "moviegen_eval.upscale_set:upscale_set",
        "upscale_set",
        "Write held-out clips, and the same at half their size, for `upscale clips`.",
        ("out=runs/upscale_set real=16 toyworld=4",),
    ),
    "eval upscale": Command(
        "moviegen_eval.upscaled:upscaled",
        "upscale_eval",
        "Judge upscaled clips against interpolation: PSNR, ST-LPIPS, VMAF, flicker, seams. Writes numbers.json.",
        ("out=runs/judged set=runs/upscale_set upscaled=runs/upscaled",),
    ),
    "eval codec": Command(
        "moviegen_eval.codec:codec",
        "codec_eval",
        "Score autoencoders, ours and public ones, on the same images and videos; writes numbers.json.",
        (
            "out=runs/codecs codecs.ours=experiments/toy/weights/tae",
            "out=runs/codecs +codecs.ours=experiments/toy/weights/tae +codec@codecs.wan=wan codecs.wan.path=wan",
        ),
    ),
    "eval generate": Command(
        "moviegen_eval.generate:generate",
        "suite_generate",
        "Generate a prompt suite's clips with a model: an arm for score and study.",
        (
            "out=runs/ours suite=own model=runs/t2v/model",
            "out=runs/ours \"suite='toyworld:num=64'\" model=m seeds=[0,1] +settings={sampler:{num_steps:25}}",
        ),
    ),
    "eval score": Command(
        "moviegen_eval.score:score",
        "score",
        "Automatic metrics of arms on a prompt suite, with intervals and manifests.",
        ("out=runs/scores suite=own +arms.ours=runs/ours +arms.sora=videos/sora metrics=[free]",),
    ),
    "eval external": Command(
        "moviegen_eval.adapters.run:external",
        "external",
        "VBench, VBench-2.0, av-benchmark or VideoScore on arms, in their own environment, through files.",
        ("out=runs/vbench benchmark=vbench suite=own +arms.ours=runs/ours external.repository=../VBench",),
    ),
    "eval study draft": Command(
        "moviegen_eval.study_draft:draft",
        "study_draft",
        "Write a study file: the first arm against each of the others on a prompt suite.",
        ("out=study.yaml suite=own +arms.ours=runs/ours +arms.sora=videos/sora",),
    ),
    "eval report": Command(
        "moviegen_eval.report:report",
        "report",
        "Write one self-contained report.html from a judged run or a study; --check compares instead.",
        (
            "judged=runs/x/judged",
            "study=study.yaml votes=votes.jsonl scores=runs/scores",
            "study=study.yaml votes=votes.jsonl --check",
        ),
    ),
    "eval study build": Command(
        "moviegen_eval.study.build:build",
        "study_build",
        "Bring the videos of a study to equal form under opaque names; drafts the study file.",
        (
            "study=s/study.yaml out=s/built arms.ours=runs/x/generated arms.sora=sora",
            "study=s/study.yaml out=s/built",
        ),
    ),
    "eval study serve": Command(
        "moviegen_eval.study.serve:serve",
        "study_serve",
        "Serve the rating page and the admin page of a study; writes votes.jsonl.",
        (
            "study=s/study.yaml built=s/built out=s/votes raters=12",
            "study=s/study.yaml built=s/built out=s/votes external=PROLIFIC_PID completion=C0FFEE host=0.0.0.0",
        ),
    ),
    "eval study analyse": Command(
        "moviegen_eval.study.commands:analyse",
        "study_analyse",
        "Turn votes into win rates with intervals, tests, ranks, slices and a table of raters.",
        ("study=s/study.yaml votes=s/votes/votes.jsonl out=s/analysis",),
    ),
    "eval study power": Command(
        "moviegen_eval.study.commands:plan",
        "study_power",
        "Say how many prompts an effect needs, and what effects a number of prompts can show.",
        ("net=5", "net=8 ties=[0.3] num_tests=7 prompts=[381,1003]"),
    ),
    "eval study import": Command(
        "moviegen_eval.study.commands:import_votes",
        "study_import",
        "Add votes from csv, jsonl, Mechanical Turk, Prolific or VideoGen-RewardBench to a log.",
        (
            "study=s/study.yaml votes=s/votes.jsonl file=theirs.csv",
            "study=s/study.yaml votes=s/votes.jsonl file=Batch_results.csv format=mturk",
        ),
    ),
    "eval study export": Command(
        "moviegen_eval.study.commands:export",
        "study_export",
        "Write votes as csv or jsonl, or the tasks of a study as a batch for Mechanical Turk or Prolific.",
        (
            "study=s/study.yaml votes=s/votes.jsonl out=votes.csv",
            "study=s/study.yaml format=mturk out=s/batch built=s/built \"url='https://host/{video}'\"",
        ),
    ),
    "eval study simulate": Command(
        "moviegen_eval.study.commands:simulate",
        "study_simulate",
        "Write votes of simulated raters with known preferences, labelled as such.",
        ("study=s/study.yaml votes=s/simulated.jsonl +strengths.ours=0.5 careless=2",),
    ),
    "eval study check": Command(
        "moviegen_eval.study.commands:check",
        "study_check",
        "Name missing, extra, unreadable and unlike videos of a study.",
        ("study=s/study.yaml",),
    ),
    "doctor": Command("moviegen.doctor:doctor", None, "Say what is present and what is missing."),
    "demo": Command(
        "moviegen.demo:demo", "demo", "Run the main job: data, training, generation, judging, report."
    ),
}
