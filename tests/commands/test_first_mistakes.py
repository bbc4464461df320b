"""The commands that a new user gets wrong most. Each answer fits on five lines and says what to type."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest
from running import Clipbert

COLUMNS, LINES = 80, 5

# The command, what the answer says, and the word in it that leads on.
MISTAKES = [
    # Words in another place.
    ("--json doctor", "no such option: --json", "clipbert doctor --json"),
    ("--run runs/qa infer --split test", "no such option: --run", "clipbert infer --split test --run runs/qa"),
    ("infer runs/qa test", "--run is missing", "clipbert infer --run runs/qa --split test"),
    ("assets download msrvtt_qa", "no such command 'download'", "clipbert download msrvtt_qa"),
    ("store pack videos new", "no such command 'pack'", "clipbert pack videos new"),
    ("recipes explain demo_qa", "no setting or section", "clipbert recipes show demo_qa"),
    ("pack new videos", "SRC is new, which does not exist", "exchange them: clipbert pack videos new"),
    ("preview --run runs/qa --split test", "no such option: --run", "clipbert preview --recipe runs/qa --split test"),
    # Another name of a command, a recipe without its option, a setting as an option.
    ("train -r demo_qa", "no such command 'train'", "called finetune: clipbert finetune -r demo_qa"),
    ("evaluate preds.jsonl", "no such command 'evaluate'", "called eval: clipbert eval preds.jsonl"),
    ("predict --run runs/qa --split test", "no such command", "clipbert infer --run runs/qa --split test"),
    ("fit --recipe demo_qa --resume", "no such command", "clipbert finetune --recipe demo_qa --resume"),
    ("score preds.jsonl --run runs/qa", "no such command", "clipbert eval preds.jsonl --run runs/qa"),
    ("finetune demo_qa", "demo_qa: one word too many", "clipbert finetune --recipe demo_qa"),
    ("finetune", "--recipe is missing", "name a recipe"),
    (
        "finetune -r demo_qa --batch-size 8",
        "no such option: --batch-size",
        "clipbert finetune -r demo_qa --set train.batch_size=8",
    ),
    ("finetune -r demo_qa --epochs 3", "no such option: --epochs", "clipbert finetune -r demo_qa --set train.epochs=3"),
    ("help finetune", "no such command 'help'", "clipbert finetune --help"),
    ("finetune --config demo_qa", "no such option: --config", "clipbert finetune --recipe demo_qa"),
    ("finetune -r demo_qa --output_dir new", "no such option: --output_dir", "clipbert finetune -r demo_qa --run new"),
    ("finetune -r demo_qa --dry_run", "no such option: --dry_run", "--dry-run"),
    ("finetune -r demo_qa --gpus 2", "no such option: --gpus", "clipbert finetune -r demo_qa --nproc-per-node 2"),
    (
        "finetune -r demo_qa --lr 1e-4",
        "no such option: --lr",
        "clipbert finetune -r demo_qa --set train.learning_rate=1e-4",
    ),
    (
        "finetune -r demo_qa --num-workers 2",
        "no such option: --num-workers",
        "clipbert finetune -r demo_qa --set data.workers=2",
    ),
    (
        "finetune -r demo_qa --nproc_per_node 2",
        "no such option: --nproc_per_node",
        "clipbert finetune -r demo_qa --nproc-per-node 2",
    ),
    ("report preds.jsonl --out new.html", "no such option: --out", "clipbert report preds.jsonl --output new.html"),
    (
        "infer --run runs/qa --split test --batch-size 3",
        "no such option: --batch-size",
        "clipbert infer --run runs/qa --split test --set infer.batch_size=3",
    ),
    ("infer --run runs/qa --split test --epochs 3", "no such option: --epochs", "clipbert infer --help"),
    (
        "search videos 'a dog' --run runs/search --top many",
        "--top is many, but must be",
        "clipbert search",
    ),
    ("finetune -r demo_qa --set train.lr=1e-4", "train.lr: unknown key", "did you mean train.learning_rate"),
    ("finetune --resume runs/qa", "runs/qa: one word too many", "clipbert finetune --resume --run runs/qa"),
    (
        "infer --run runs/qa --video a.mp4",
        "no such option: --video",
        "clipbert infer --help explains every argument and option",
    ),
    ("infer --ckpt runs/qa --split test", "no such option: --ckpt", "clipbert infer --run runs/qa --split test"),
    (
        "ask --run runs/qa --video a.mp4 --question what?",
        "no such option: --question",
        "clipbert ask 'what?' --run runs/qa --video a.mp4",
    ),
    ("ask --run runs/qa -v a.mp4 what?", "no such option: -v", "clipbert ask 'what?' --run runs/qa --video a.mp4"),
    ("recipes explain train.lr", "is called 'train.lr'", "did you mean train.learning_rate"),
    ("finetune -r demo_qa --set batch_size=8", "batch_size: unknown key", "did you mean train.batch_size"),
    ("finetune -r demo_qa --set train.batch_size 8", "8: one word too many", "--set train.batch_size=8"),
    ("finetune -r demo_qa --set train.batch_size = 8", "= 8: 2 words too many", "--set train.batch_size=8"),
    ("finetune -r demo_qa --set train.batch_size= 8", "8: one word too many", "--set train.batch_size=8"),
    ("finetune -r demo_qa --set train.batch_size =8", "=8: one word too many", "--set train.batch_size=8"),
    ("finetune -r demo_qa --set train.batch_size", "expected KEY=VALUE", "recipes explain KEY"),
    # Habits from other programs.
    (
        "resume runs/qa",
        "no such command 'resume'",
        "here it is called finetune --resume: clipbert finetune --resume --run runs/qa",
    ),
    ("index videos --run runs/search", "no such command 'index'", "here it is called search"),
    ("export runs/qa new", "no such command 'export'", "runs export: clipbert runs export runs/qa new"),
    ("show vis_db", "no such command 'show'", "here it is called store show or recipes show"),
    ("list", "no such command 'list'", "here it is called assets ls or store ls or runs ls or recipes ls"),
    ("runs list", "no such command 'list'", "clipbert runs ls --help"),
    ("store info vis_db", "no such command 'info'", "clipbert store has the commands verify, scan, ls, show"),
    ("version", "no such command 'version'", "clipbert --version"),
    ("finetune -r demo_qa -o new", "no such option: -o", "clipbert finetune -r demo_qa --run new"),
    (
        "pretrain -r demo_pretrain --output new",
        "no such option: --output",
        "clipbert pretrain -r demo_pretrain --run new",
    ),
    (
        "infer --run runs/qa --split test --output_dir new",
        "no such option: --output_dir",
        "clipbert infer --run runs/qa --split test --output new",
    ),
    ("download msrvtt_qa --output new", "no such option: --output", "clipbert download msrvtt_qa --to new"),
    ("pack videos -o new", "no such option: -o", "clipbert pack videos new"),
    ("demo --output new", "no such option: --output", "clipbert demo new"),
    (
        "ask --run runs/qa --video a.mp4 -o new what?",
        "no such option: -o",
        "clipbert ask --help explains every argument and option",
    ),
    ("infer --model runs/qa --split test", "no such option: --model", "clipbert infer --run runs/qa --split test"),
    (
        "finetune -r demo_qa --model w.pt",
        "no such option: --model",
        "clipbert finetune -r demo_qa --set model.weights.checkpoint=w.pt",
    ),
    (
        "finetune -r demo_qa --pretrained w.pt",
        "no such option: --pretrained",
        "clipbert finetune -r demo_qa --set model.weights.checkpoint=w.pt",
    ),
    (
        "finetune -r demo_qa --num_train_epochs 2",
        "no such option: --num_train_epochs",
        "clipbert finetune -r demo_qa --set train.epochs=2",
    ),
    (
        "finetune -r demo_qa --max_epochs 2",
        "no such option: --max_epochs",
        "clipbert finetune -r demo_qa --set train.epochs=2",
    ),
    ("finetune -r demo_qa --fp16", "no such option: --fp16", "--set train.precision=VALUE"),
    ("finetune -r demo_qa --wandb", "no such option: --wandb", "--set train.trackers=VALUE"),
    ("finetune -r demo_qa --devices 2", "no such option: --devices", "clipbert finetune -r demo_qa --nproc-per-node 2"),
    ("finetune -r demo_qa --cpu", "no such option: --cpu", "clipbert finetune -r demo_qa --device cpu"),
    (
        "finetune -r demo_qa --data_dir txt_db",
        "no such option: --data_dir",
        "clipbert finetune -r demo_qa --data-root txt_db",
    ),
    (
        "finetune -r demo_qa --train.batch_size 8",
        "no such option: --train.batch_size",
        "clipbert finetune -r demo_qa --set train.batch_size=8",
    ),
    (
        "infer --run runs/qa --split test --infer.top 2",
        "no such option: --infer.top",
        "clipbert infer --run runs/qa --split test --set infer.top=2",
    ),
    (
        "search videos 'a dog' --run runs/search -k 5",
        "no such option: -k",
        "clipbert search videos 'a dog' --run runs/search --top 5",
    ),
    ("finetune -r demo_qa --resume=runs/qa", "--resume takes no value", "clipbert finetune -r demo_qa --resume"),
    ("eval preds.jsonl --json=true", "--json takes no value", "clipbert eval preds.jsonl --json"),
    (
        "infer --run runs/qa --split test --overwrite=1",
        "--overwrite takes no value",
        "clipbert infer --run runs/qa --split test --overwrite",
    ),
    (
        "finetune -r demo_qa train.epochs=2",
        "train.epochs=2: one word too many: clipbert finetune takes no",
        "clipbert finetune -r demo_qa --set train.epochs=2",
    ),
    ("finetune -r demo_qa --set seed=1 train.epochs=2", "one word too many", "--set seed=1 --set train.epochs=2"),
    ("finetune demo_qa train.epochs=2 seed=1", "3 words", "--recipe demo_qa --set train.epochs=2 --set seed=1"),
    ("infer --run runs/qa --split test infer.top=2", "one word too many", "--split test --set infer.top=2"),
    ("eval preds.jsonl demo_qa test", "2 words", "clipbert eval preds.jsonl --recipe demo_qa --split test"),
    ("eval preds.jsonl other.jsonl", "one word too many", "eval preds.jsonl --against other.jsonl"),
    (
        "report preds.jsonl other.jsonl -o new.html",
        "other.jsonl: one word too many",
        "clipbert report preds.jsonl -o new.html --against other.jsonl",
    ),
    ("eval preds.jsonl test --recipe demo_qa", "one word too many", "eval preds.jsonl --recipe demo_qa --split test"),
    ("eval preds.jsonl txt_db/test.jsonl", "txt_db/test.jsonl: one word too many", "clipbert eval preds.jsonl"),
    ("eval preds.jsonl table.csv", "table.csv: one word too many", "clipbert eval preds.jsonl"),
    (
        "report preds.jsonl txt_db/answers.json -o new.html",
        "txt_db/answers.json: one word too many",
        "clipbert report preds.jsonl -o new.html",
    ),
    ("eval preds.jsonl runs/qa", "one word too many", "clipbert eval preds.jsonl --run runs/qa"),
    ("finetune --run runs/qa --resume train.epochs=5", "one word", "--run runs/qa --resume --set train.epochs=5"),
    # Arguments with options before them, options with one dash, options that no command needs.
    ("eval --preds preds.jsonl", "no such option: --preds", "clipbert eval preds.jsonl"),
    ("report --predictions preds.jsonl", "no such option: --predictions", "clipbert report preds.jsonl"),
    ("pack --input videos --output new", "no such options: --input, --output", "clipbert pack videos new"),
    (
        "search --query 'a dog' videos --run runs/search",
        "no such option: --query",
        "clipbert search videos 'a dog' --run runs/search",
    ),
    ("recipes show --recipe demo_qa", "no such option: --recipe", "clipbert recipes show demo_qa"),
    ("download --dataset msrvtt_qa", "no such option: --dataset", "clipbert download msrvtt_qa"),
    ("runs export --run runs/qa new", "no such option: --run", "clipbert runs export runs/qa new"),
    ("infer -run runs/qa --split test", "-run: an option of several letters has two dashes", "--run in its place"),
    ("finetune -recipe demo_qa", "-recipe: an option of several letters", "--recipe in its place"),
    ("ask --run runs/qa -video=a.mp4 what?", "-video=a.mp4: an option of several letters", "--video in its place"),
    ("finetune -r demo_qa --overwrite", "no such option: --overwrite", "a run is never replaced"),
    ("pretrain -r demo_pretrain --force", "no such option: --force", "continue it with --resume"),
    ("pack videos vis_db --overwrite", "no such option: --overwrite", "add to it with --add"),
    ("demo --overwrite", "no such option: --overwrite", "clipbert demo --force"),
    # Habits from the original program.
    (
        "finetune --train_txt_db txt_db",
        "no such option: --train_txt_db",
        "clipbert finetune --set data.splits.NAME.annotations=txt_db --recipe NAME",
    ),
    (
        "infer --run runs/qa --inference_split test",
        "no such option: --inference_split",
        "clipbert infer --run runs/qa --split test",
    ),
    (
        "infer --run runs/qa --inference_n_clips 3",
        "no such option: --inference_n_clips",
        "clipbert infer --run runs/qa --set infer.num_clips=3 --split test",
    ),
    (
        "infer --run runs/qa --ckpt best --split test",
        "no such option: --ckpt",
        "clipbert infer --run runs/qa --checkpoint best --split test",
    ),
    ("finetune -r demo_qa --set train.num_train_epochs=2", "unknown key", "did you mean train.epochs"),
    ("run_video_qa.py --config msrvtt_qa.json", "no such command 'run_video_qa.py'", "here it is called finetune"),
    ("run_pretrain.py --config a.json", "no such command 'run_pretrain.py'", "here it is called pretrain"),
    ("finetune -r configs/msrvtt_qa.json", "configs/msrvtt_qa.json: no such recipe file", "names have no ending"),
    # Words in another place.
    ("store vis_db", "no such command 'vis_db'", "clipbert store has the commands verify, scan, ls, show"),
    ("runs runs/qa", "no such command 'runs/qa'", "clipbert runs has the commands ls, export, push"),
    (
        "recipes demo_qa",
        "no such command 'demo_qa'",
        "clipbert recipes has the commands ls, show, explain, copy, answers, validate",
    ),
    ("finetune help", "help: one word too many", "clipbert finetune --help explains"),
    ("ask runs/qa a.mp4 'what is it?'", "--run is missing", "clipbert ask a.mp4 'what is it?' --run runs/qa"),
    ("search --split runs/search videos dog", "no such option: --split", "clipbert search"),
    ("search videos runs/search", "--run is missing", "clipbert search videos --run runs/search"),
    ("search --run runs/search 'a dog'", "TEXT is missing: clipbert search takes MEDIA TEXT", "clipbert search clips/"),
    ("store show vis_db", "MEDIA_ID is missing: clipbert store show takes STORE MEDIA_ID", "clipbert store show"),
    ("finetune --resume", "--run is missing: --resume continues a run", "--run runs/NAME --resume"),
    (
        "finetune -r demo_qa --resume --data-root .",
        "--run is missing: --resume continues a run",
        "--run runs/NAME --resume",
    ),
    ("finetune -r demo_mc --resume", "--run is missing: --resume continues a run", "--run runs/NAME --resume"),
    ("pretrain --resume", "--run is missing: --resume continues a run", "--run runs/NAME --resume"),
    ("infer --run runs/qa --split test -o out/", "out/ is a folder, but must be a file", "name a file in it"),
    ("report preds.jsonl --run runs/qa -o pages/", "pages/ is a folder, but must be a file", "name a file in it"),
    ("recipes copy demo_qa mine/", "mine/ is a folder, but must be a file", "name a file in it"),
    ("store show vis_db test0000 a.png", "--output is missing", "clipbert store show vis_db test0000 --output a.png"),
    ("store ls runs/qa", "STORE is runs/qa, a run", "check the name, or make a store: clipbert pack FOLDER STORE"),
    (
        "store show runs/qa/ test0000 -o a.png",
        "STORE is runs/qa/, a run",
        "check the name, or make a store: clipbert pack FOLDER STORE",
    ),
    (
        "infer --run runs/qa --split test -f json",
        "no such option: -f",
        "clipbert infer --run runs/qa --split test --format json",
    ),
    ("infer --run runs/qa --split test --limit 10", "no such option: --limit", "a shorter file with --set data.splits"),
    (
        "preview --recipe demo_qa --split val --limit 3",
        "no such option: --limit",
        "clipbert preview --recipe demo_qa --split val --examples 3",
    ),
    ("download msrvtt_qa --data-root data", "no such option: --data-root", "clipbert download msrvtt_qa --to data"),
    # Several unknown options, values that are options, words that a command does not take.
    ("finetune --config demo_qa --work-dir new", "no such options: --config, --work-dir", "--recipe demo_qa --run new"),
    ("finetune --cfg demo_qa --lr=1e-4", "options: --cfg, --lr", "--recipe demo_qa --set train.learning_rate=1e-4"),
    (
        "infer --model runs/qa --subset test -q",
        "no such options: --model, --subset, -q",
        "clipbert infer --help explains every argument and option",
    ),
    (
        "ask --ckpt runs/qa --clip a.mp4 what?",
        "no such options: --ckpt, --clip",
        "clipbert ask --help explains every argument and option",
    ),
    ("report preds.jsonl --out new.html --model runs/qa", "no such options", "--output new.html --run runs/qa"),
    ("download msrvtt_qa --to --pack", "--to is '--pack', which is an option", "is a variable unset?"),
    ("finetune --recipe demo_qa --data-root=", "--data-root is empty", "give a value (is a variable unset?)"),
    ("download msrvtt_qa --to= --pack", "--to is empty", "is a variable unset?"),
    ("runs ls --run=", "no such option: --run", "clipbert runs ls"),
    ("infer --run= --split test -o new.jsonl", "--run is empty", "give a value (is a variable unset?)"),
    ("infer --run runs/qa --split test -o=", "--output is empty", "give a value (is a variable unset?)"),
    ("download --recipe msrvtt_qa --to new", "no such option: --recipe", "clipbert download msrvtt_qa --to new"),
    (
        "infer --run --split test",
        "--run is '--split', which is an option",
        "give DIR after --run (is a variable unset?)",
    ),
    ("finetune -r --dry-run", "-r is '--dry-run', which is an option", "give NAME|FILE after -r"),
    ("finetune -r demo_qa --set --run=new", "--set is '--run=new', which is an option", "give KEY=VALUE after --set"),
    ("report --run runs/qa -o --help", "-o is '--help', which is an option", "give FILE after -o"),
    ("doctor runs/qa", "one word too many: clipbert doctor takes no arguments", "clipbert doctor"),
    ("doctor runs qa --json", "2 words too many: clipbert doctor takes no arguments", "clipbert doctor --json"),
    ("doctor --device cuda:0", "no such option: --device", "clipbert doctor"),
    ("recipes ls msrvtt", "clipbert recipes ls takes no arguments", "clipbert recipes ls"),
    (
        "finetune -r demo_qa val",
        "val: one word too many: clipbert finetune takes no arguments",
        "clipbert finetune -r demo_qa",
    ),
    (
        "demo retrieval --size tiny",
        "--size is 'tiny', but must be one of smallest, small, full",
        "demo retrieval --size smallest",
    ),
    (
        "demo --task=retrival --seed 3",
        "--task is 'retrival', but must be one of qa, retrieval, mc,",
        "clipbert demo --task=retrieval --seed 3",
    ),
    (
        "infer --run runs/qa --split val --weights em",
        "--weights is 'em', but must be one of auto, plain, ema",
        "--split val --weights ema",
    ),
    (
        "pack videos new --kind videos",
        "--kind is 'videos', but must be one of video, image",
        "clipbert pack videos new --kind video",
    ),
    # Values.
    (
        "finetune -r demo_qa --set train.precision=half",
        "it must be auto, bf16, fp16 or fp32",
        "explain train.precision",
    ),
    ("finetune -r demo_qa --set data.num_clips=0", "it must be", "clipbert recipes explain data.num_clips"),
    (
        "recipes validate demo_qa --set model.visual.depths=3",
        "it must be a list",
        "recipes explain model.visual.depths",
    ),
    (
        "finetune -r demo_qa --nproc-per-node 0",
        "--nproc-per-node is 0",
        "clipbert finetune --help explains every argument and option",
    ),
    (
        "infer --run runs/qa --split test --nproc-per-node two",
        "--nproc-per-node is two",
        "clipbert infer --help explains every argument and option",
    ),
    ("infer --run runs/qa --checkpoint 4 --split test", "no checkpoint '4'; it has step_2, step_4", "step_N"),
    # Something else than a recipe.
    ("finetune -r demo", "no shipped recipe is called 'demo'; did you mean demo_qa", "clipbert recipes ls"),
    ("finetune -r demo_qa.yaml", "demo_qa.yaml: no such recipe file", "names have no ending"),
    (
        "finetune -r https://example.com/mine.yaml",
        "--recipe is https://example.com/mine.yaml, an address",
        "download it first, for example: curl -LO https://example.com/mine.yaml",
    ),
    ("finetune -r nope.yaml", "nope.yaml: no such recipe file", "clipbert recipes ls"),
    ("finetune -r runs/qa", "--recipe is runs/qa, a run", "clipbert finetune -r runs/qa/recipe.yaml"),
    (
        "recipes show preds.jsonl",
        "NAME|FILE is preds.jsonl, a file of predictions",
        "clipbert recipes ls lists the shipped ones; your own begins with: clipbert recipes copy",
    ),
    (
        "eval alone.jsonl -r preds.jsonl --split test",
        "--recipe is preds.jsonl, a file of predictions",
        "clipbert recipes ls lists the shipped ones; your own begins with: clipbert recipes copy",
    ),
    ("recipes show runs/qa", "NAME|FILE is runs/qa, a run", "clipbert recipes show runs/qa/recipe.yaml"),
    (
        "eval preds.jsonl --recipe runs/qa --split test",
        "--recipe is runs/qa, a run",
        "clipbert eval preds.jsonl --recipe runs/qa/recipe.yaml --split test",
    ),
    (
        "preview --recipe runs/qa/ --split val -o a.html",
        "--recipe is runs/qa/, a run",
        "clipbert preview --recipe runs/qa/recipe.yaml --split val -o a.html",
    ),
    ("recipes validate ./runs/qa", "NAME|FILE is ./runs/qa, a run", "clipbert recipes validate ./runs/qa/recipe.yaml"),
    (
        "finetune -r txt_db/train.jsonl",
        "--recipe is txt_db/train.jsonl, a file of annotations",
        "clipbert recipes copy NAME mine.yaml",
    ),
    (
        "recipes answers videos/test0000.mp4",
        "NAME|FILE is videos/test0000.mp4, a media file",
        "clipbert recipes ls lists the shipped ones; your own begins with: clipbert recipes copy",
    ),
    (
        "recipes answers txt_db/answers.json",
        "none of its 13 keys is a setting",
        "recipes copy NAME mine.yaml",
    ),
    (
        "recipes validate table.csv",
        "NAME|FILE is table.csv, a file of annotations",
        "clipbert recipes copy NAME mine.yaml",
    ),
    ("recipes validate tabs.yaml", "tabs.yaml:2:1: not YAML: found character '\\t'", "recipes copy NAME"),
    (
        "finetune -r videos",
        "--recipe is videos, a folder of media files",
        "clipbert recipes ls lists the shipped ones; your own begins with: clipbert recipes copy",
    ),
    (
        "recipes validate vis_db",
        "NAME|FILE is vis_db, a store",
        "clipbert recipes ls lists the shipped ones; your own begins with: clipbert recipes copy",
    ),
    (
        "pretrain -r .",
        "--recipe is ., a folder with the runs runs/qa, runs/search",
        "clipbert pretrain -r runs/qa/recipe.yaml",
    ),
    # Data that are elsewhere.
    ("finetune -r msrvtt_qa", "the environment variable DATA is not set", "clipbert download msrvtt_qa --to DIR"),
    ("pretrain -r pretrain_coco_vg", "DATA is not set", "clipbert download pretrain_coco_vg --to DIR"),
    ("finetune -r msrvtt_qa --data-root empty", "nothing that the recipe names is in", "clipbert download msrvtt_qa"),
    ("finetune -r demo_qa --run new --data-root nowhere", "nothing that the recipe names", "with --data-root DIR"),
    ("pretrain -r demo_pretrain --run new --data-root videos", "/videos: txt_db/", "with --data-root DIR"),
    ("finetune -r demo_qa --run new --data-root runs --dry-run", "nothing that the recipe", "with --data-root DIR"),
    ("finetune -r demo_qa --run new --set data.answers=a.json", "a.json: no such answer vocabulary", "recipes answers"),
    (
        "finetune -r demo_qa --run new --set data.workers=200 --set data.splits.val.annotations=nope",
        "nope: no such annotation file",
        "check data.splits",
    ),
    ("finetune -r video_qa", "recipe video_qa names no data", "clipbert recipes copy video_qa mine.yaml"),
    ("finetune -r retrieval --data-root .", "recipe retrieval names no data", "clipbert recipes copy retrieval"),
    ("pretrain -r pretraining", "recipe pretraining names no data", "clipbert recipes copy pretraining mine.yaml"),
    (
        "finetune -r demo_qa --set data.splits.train=a.jsonl",
        "must be a section",
        "--set data.splits.train.annotations=",
    ),
    ("eval preds.jsonl -r demo_qa --split test --set data.splits.test=b", "section", "data.splits.test.annotations="),
    ("recipes validate demo_mc --set data.splits.val=true", "must be a section", "--set data.splits.val.media=FOLDER"),
    # A task that another command trains.
    (
        "pretrain -r demo_qa",
        "has task open_ended_qa, which clipbert pretrain",
        "clipbert finetune -r demo_qa; or give pretrain another recipe (clipbert recipes ls)",
    ),
    (
        "pretrain -r msrvtt_qa",
        "which clipbert pretrain does not train",
        "clipbert finetune -r msrvtt_qa; or give pretrain another recipe (clipbert recipes ls)",
    ),
    (
        "pretrain -r demo_mc --run new --json",
        "does not train",
        "clipbert finetune -r demo_mc --run new --json; or give pretrain another recipe",
    ),
    (
        "pretrain -r retrieval",
        "which clipbert pretrain does not train",
        "clipbert finetune -r retrieval; or give pretrain another recipe (clipbert recipes ls)",
    ),
    (
        "finetune -r demo_pretrain",
        "which clipbert finetune does not train",
        "clipbert pretrain -r demo_pretrain; or give finetune another recipe (clipbert recipes",
    ),
    (
        "finetune -r pretraining --dry-run",
        "does not train",
        "clipbert pretrain -r pretraining --dry-run; or give finetune another recipe (clipbert",
    ),
    ("finetune -r demo_qa --run new --set data.splits.train.media=nope", "nope does not exist", "clipbert pack"),
    ("finetune -r demo_qa --run new --set data.fields.question=q", "q is missing", "--set data.fields.question="),
    # Runs: one that is there, one that is not, one level too high or too low.
    ("finetune -r demo_qa --run runs/qa", "run folder runs/qa exists already", "--resume"),
    (
        "finetune -r demo_qa --run videos",
        "videos exists already and is a folder that is no run",
        "a new folder with --run",
    ),
    (
        "finetune --run runs/new --resume",
        "--run is runs/new, which does not exist",
        "runs ls FOLDER lists the runs in a folder; clipbert finetune makes one",
    ),
    ("infer --run qa --split test", "--run is qa, which does not exist", "clipbert infer --run runs/qa --split test"),
    (
        "infer --run runs/q --split test",
        "--run is runs/q, which does not exist",
        "clipbert infer --run runs/qa --split test",
    ),
    ("runs export serach new", "RUN is serach, which does not exist", "clipbert runs export runs/search new"),
    (
        "infer --run nothing --split test",
        "--run is nothing, which does not exist",
        "runs ls FOLDER lists the runs in a folder; clipbert finetune makes one",
    ),
    (
        "infer --run runs --split test",
        "--run is runs, a folder with the runs runs/qa, runs/search",
        "clipbert infer --run runs/qa --split test",
    ),
    (
        "infer --run . --split test",
        "--run is ., a folder with the runs runs/qa, runs/search",
        "clipbert infer --run runs/qa --split test",
    ),
    (
        "ask --run ../day --video a.mp4 what?",
        "--run is ../day, a folder with the runs ../day/runs/qa,",
        "clipbert ask --run ../day/runs/qa --video a.mp4 'what?'",
    ),
    ("runs export . new", "RUN is ., a folder with the runs runs/qa, runs/search", "clipbert runs export runs/qa new"),
    (
        "runs export runs/qa/checkpoints new",
        "RUN is runs/qa/checkpoints, a folder in the run runs/qa",
        "clipbert runs export runs/qa new",
    ),
    ("infer runs/qa --split test", "--run is missing", "clipbert infer --split test --run runs/qa"),
    ("infer --run runs/qa", "--split is missing", "--split test"),
    (
        "infer --run test --split runs/qa",
        "--run is test, which does not exist",
        "clipbert infer --run runs/qa --split test",
    ),
    (
        "infer --run videos --split runs/qa/best",
        "--run is videos, a folder of media files",
        "clipbert infer --run runs/qa/best --split videos",
    ),
    (
        "infer --run val --split runs/search/",
        "--run is val, which does not exist",
        "clipbert infer --run runs/search/ --split val",
    ),
    (
        "eval preds.jsonl --run test --split runs/qa",
        "--run is test, which does not exist",
        "clipbert eval preds.jsonl --run runs/qa --split test",
    ),
    (
        "report preds.jsonl --run test --split runs/qa -o new.html",
        "--run is test, which does not exist",
        "clipbert report preds.jsonl --run runs/qa --split test -o new.html",
    ),
    ("infer --run runs/qa --split runs/qa", "no split 'runs/qa'; it has train, val, test", "name another split"),
    ("infer --run runs/qa --split dev", "no split 'dev'; it has train, val, test", "or add data.splits.dev"),
    (
        "infer --run nothing --split test -o preds.jsonl",
        "--run is nothing, which does not exist",
        "runs ls FOLDER lists the runs in a folder; clipbert finetune makes one",
    ),
    ("infer --run runs/qa --split dev -o preds.jsonl", "no split 'dev'", "name another split"),
    ("infer --run runs/qa --split test -r demo_q -o preds.jsonl", "no shipped recipe is called", "demo_qa"),
    ("infer --run runs/qa --split val --set seed=3 -o preds.jsonl", "has no effect", "leave it out"),
    ("report preds.jsonl --run runs/qa --split dev -o page.html", "no split 'dev'", "name another split"),
    ("preview --recipe demo_qa --split dev -o page.html", "no split 'dev'", "name another split"),
    ("infer --run runs/qa --split test -o preds.jsonl", "preds.jsonl exists already", "--overwrite"),
    ("infer --run runs/qa --split test -o out/p.jsonl", "out is no folder", "mkdir -p out"),
    ("infer --run runs/qa --split test --set train.epochs=3", "has no effect", "leave it out"),
    ("runs ls nope", "FOLDER is nope, which does not exist", "name a folder that exists"),
    # Media, stores and the order of arguments.
    ("pack videos", "SRC is missing: clipbert pack takes SRC STORE", "clipbert pack videos/ vis_db/msrvtt"),
    ("pack vis_db videos", "SRC is vis_db, a store", "exchange them: clipbert pack videos vis_db"),
    ("pack videos vis_db", "vis_db exists", "--add"),
    ("pack --add vis_db a.mp4", "SRC is vis_db, a store", "clipbert pack --add a.mp4 vis_db"),
    ("pack vis_db videos new --add", "SRC is vis_db, a store", "name the folder that holds the media files"),
    ("pack --add a.mp4 ./vis_db/ videos", "SRC is ./vis_db/, a store", "clipbert pack --add a.mp4 videos ./vis_db/"),
    ("store verify .", "STORE is ., a folder with the runs runs/qa, runs/search", "clipbert store verify vis_db"),
    ("store ls ../day", "STORE is ../day, a folder with the runs ../day/runs/qa,", "clipbert store ls ../day/vis_db"),
    ("store scan ..", "STORE is .., a folder with the store ../day/vis_db", "clipbert store scan ../day/vis_db"),
    ("pack vis_db new", "SRC is vis_db, a store", "name the folder that holds the media files"),
    ("pack ./vis_db/ new", "SRC is ./vis_db/, a store", "name the folder that holds the media files"),
    ("pack nope new", "SRC is nope, which does not exist", "name the folder that holds the media files"),
    (
        "pack 'clips/*.mp4' new",
        "SRC is clips/*.mp4, which does not exist",
        "only without quotes, and where files match it: see ls clips/*.mp4",
    ),
    (
        "ask --run runs/qa --video '*.mov' what?",
        "--video is *.mov, which does not exist",
        "replaces *.mov only without quotes, and where files match it: see ls *.mov",
    ),
    (
        "search 'clips/*' 'a dog' --run runs/search",
        "MEDIA is clips/*, which does not exist",
        "clips/* only without quotes, and where files match it: see ls clips/*",
    ),
    (
        "store verify 'vis_*'",
        "STORE is vis_*, which does not exist",
        "replaces vis_* only without quotes, and where files match it: see ls vis_*",
    ),
    ("pack empty new", "SRC is empty, an empty folder", "name the folder that holds the media files"),
    ("pack txt_db new", "has the ending of a video or an image", "--kind"),
    ("pack https://example.com/a.mp4 new", "an address", "curl -LO https://example.com/a.mp4"),
    (
        "store ls videos",
        "STORE is videos, a folder of media files",
        "check the name, or make a store: clipbert pack FOLDER STORE",
    ),
    ("store show vis_db test0000", "--output is missing", "clipbert store show vis_db test0000 --output FILE"),
    ("store show vis_db test0000.mp4 -o a.png", "no video 'test0000.mp4'", "has no ending of a file"),
    (
        "preview -r demo_qa",
        "--split is missing",
        "name the split, for example: clipbert preview -r demo_qa --split train",
    ),
    (
        "preview -r demo_mc --data-root .",
        "--split is missing",
        "name the split, for example: clipbert preview -r demo_mc --data-root . --split train",
    ),
    ("preview -r runs/qa/recipe.yaml --seed 3", "--split is missing", "recipe.yaml --seed 3 --split train"),
    (
        "preview -r demo_qa --split val --data-root empty -o page.html",
        "nothing that the recipe names",
        "--data-root DIR",
    ),
    ("eval alone.jsonl -r demo_qa --split test --data-root empty", "nothing that the recipe names", "--data-root DIR"),
    ("infer --run runs/qa --split test --data-root empty", "nothing that the recipe names", "--data-root DIR"),
    ("report alone.jsonl -r demo_qa --split val --data-root empty -o page.html", "nothing that the", "--data-root DIR"),
    ("preview demo_qa", "MEDIA is demo_qa, a shipped recipe", "clipbert preview --recipe demo_qa"),
    (
        "preview train",
        "MEDIA is train, which does not exist",
        "name a folder of media files or a store, or a split: clipbert preview --recipe NAME",
    ),
    ("preview videos2/", "MEDIA is videos2/, which does not exist", "clipbert preview videos"),
    (
        "search vis 'a dog' --run runs/search",
        "MEDIA is vis, which does not exist",
        "clipbert search vis_db 'a dog' --run runs/search",
    ),
    (
        "preview 'vid*'",
        "MEDIA is vid*, which does not exist",
        "replaces vid* only without quotes, and where files match it: see ls vid*",
    ),
    (
        "preview runs/qa",
        "MEDIA is runs/qa, a run",
        "name a folder of media files or a store, or a split: clipbert preview --recipe NAME",
    ),
    (
        "search demo_retrieval 'a dog' --run runs/search",
        "MEDIA is demo_retrieval, a shipped recipe",
        "name the folder that holds the media files, or a store that clipbert pack made of it",
    ),
    (
        "search runs/qa 'a dog' --run runs/search",
        "MEDIA is runs/qa, a run",
        "name the folder that holds the media files, or a store that clipbert pack made of it",
    ),
    ("demo smallest", "FOLDER is smallest, a value of --size", "clipbert demo --size smallest"),
    ("demo full --task mc", "FOLDER is full, a value of --size", "clipbert demo --task mc --size full"),
    ("demo mc --seed 3 --json", "FOLDER is mc, a value of --task", "clipbert demo --seed 3 --json --task mc"),
    ("demo retrieval", "FOLDER is retrieval, a value of --task", "clipbert demo --task retrieval"),
    # Questions and searches.
    ("ask --run runs/qa --video a.mp4 what is this", "QUESTION is 3 words", "--video a.mp4 'what is this'"),
    ("ask --run runs/qa --video a.mp4 what is this?", "QUESTION is 3 words", "--video a.mp4 'what is this?'"),
    (
        "ask what is it --video a.mp4 --run runs/qa --json",
        "QUESTION is 3 words",
        "write one text in quotes: clipbert ask 'what is it' --video a.mp4 --run runs/qa --json",
    ),
    (
        "ask --run runs/qa --video a.mp4 videos/test0001.mp4 who ran",
        "2 words",
        "write one text in quotes: clipbert ask --run runs/qa --video a.mp4 videos/test0001.mp4",
    ),
    (
        "search videos a dog jumps --run runs/search --top 2",
        "TEXT is 3 words",
        "write one text in quotes: clipbert search videos 'a dog jumps' --run runs/search --top 2",
    ),
    ("search videos red circle --run runs/search", "TEXT is 2 words: red circle", "'red circle'"),
    ("ask --run runs/qa --video a.mp4 b.mp4 'what is it?'", "b.mp4 stands where a question", "check the name"),
    ("ask --run runs/qa --video a.mp4 'what is it?' --json out.json", "out.json stands where a question", "> FILE"),
    (
        "ask --run runs/qa --image a.jpg what? b.jpeg",
        "--image is a.jpg, which does not exist",
        "check the name; FOLDER/* stands for all files of a folder",
    ),
    ("ask --run runs/qa --video a.mp4 what? notes.txt", "notes.txt is a file", "--video or --image before it"),
    ("ask --run runs/qa --video a.mp4 preds.jsonl what?", "preds.jsonl is a file", "--video or --image before it"),
    (
        "ask --run runs/qa --video vis_db what?",
        "--video is vis_db, a store",
        "check the name; FOLDER/* stands for all files of a folder",
    ),
    (
        "ask --run runs/qa --image vis_db/ what?",
        "--image is vis_db/, a store",
        "check the name; FOLDER/* stands for all files of a folder",
    ),
    (
        "ask --run runs/qa --video a.mp4 --video vis_db what?",
        "--video is vis_db, a store",
        "check the name; FOLDER/* stands for all files of a folder",
    ),
    ("ask --video a.mp4 what?", "--run is missing", "clipbert ask 'what?' --video a.mp4 --run DIR"),
    ("ask --run runs/qa what?", "--video or --image is missing", "--video cat.mp4"),
    ("ask --run runs/qa --video a.mp4", "QUESTION is missing", "what is the cat doing?"),
    (
        "ask --run runs/qa --video cat.mp4 what?",
        "--video is cat.mp4, which does not exist",
        "check the name; FOLDER/* stands for all files of a folder",
    ),
    (
        "ask --run runs/qa --video videos what?",
        "--video is videos, a folder of media files",
        "check the name; FOLDER/* stands for all files of a folder",
    ),
    ("ask --run runs/qa --questions videos", "--questions is videos, a folder of media files", "a file of JSON lines"),
    ("ask --run runs/qa --questions /dev/zero", "--questions is /dev/zero, a device", "a file of JSON lines"),
    ("ask --run runs/qa --questions nope.jsonl", "nope.jsonl, which does not exist", "a file of JSON lines"),
    ("ask --run runs/qa --video notes.txt what?", "video 'notes.txt'", "--image before a picture"),
    ("ask --run runs/qa --image a.mp4 what?", "image 'a.mp4'", "--video before a video"),
    (
        "ask --run a.mp4 --video runs/qa what?",
        "--run is a.mp4, a media file",
        "clipbert ask --run runs/qa --video a.mp4 'what?'",
    ),
    (
        "ask --run a.mp4 --image runs/qa what?",
        "--run is a.mp4, a media file",
        "clipbert ask --run runs/qa --image a.mp4 'what?'",
    ),
    (
        "ask --run a.mp4 --video a.mp4 what?",
        "--run is a.mp4, a media file",
        "runs ls FOLDER lists the runs in a folder; clipbert finetune makes one",
    ),
    (
        "ask --run runs/qa --video 'what is it?' a.mp4",
        "--video is what is it?, which does not exist",
        "clipbert ask --run runs/qa --video a.mp4 'what is it?'",
    ),
    (
        "ask --run runs/qa a.mp4 --image 'what is it?'",
        "--image is what is it?, which does not exist",
        "clipbert ask --run runs/qa 'what is it?' --image a.mp4",
    ),
    ("ask --run runs/qa what? a.mp4", "a.mp4 is a file, but stands where a question", "--video or --image before it"),
    (
        "ask --run runs/search --video a.mp4 what?",
        "answers no questions",
        "clipbert search . 'what?' --run runs/search",
    ),
    ("search 'a dog' videos --run runs/search", "MEDIA is a dog", "clipbert search videos 'a dog' --run runs/search"),
    (
        "search videos 'a dog' --run runs/qa",
        "a run of task retrieval is expected",
        "clipbert ask --run runs/qa --video FILE 'a dog'",
    ),
    # Scores, downloads, devices.
    ("eval --recipe demo_qa --split test", "PREDS is missing", "clipbert eval preds.jsonl"),
    (
        "eval txt_db/train.jsonl --recipe demo_qa --split test",
        "PREDS is txt_db/train.jsonl, a file of annotations",
        "clipbert infer --run RUN --split test -o preds.jsonl",
    ),
    (
        "eval table.csv --run runs/qa --split test",
        "PREDS is table.csv, a file of annotations",
        "clipbert infer --run runs/qa --split test -o preds.jsonl",
    ),
    (
        "eval txt_db/answers.json --run runs/qa --split test",
        "PREDS is txt_db/answers.json, a JSON file",
        "clipbert infer --run runs/qa --split test -o preds.jsonl",
    ),
    (
        "eval runs/qa/recipe.yaml --run runs/qa --split test",
        "PREDS is runs/qa/recipe.yaml, a recipe",
        "clipbert infer --run runs/qa --split test -o preds.jsonl",
    ),
    (
        "eval table.csv --split test",
        "PREDS is table.csv, a file of annotations",
        "clipbert infer --run RUN --split test -o preds.jsonl",
    ),
    (
        "eval alone.jsonl --split test",
        "what made the predictions is unknown",
        "clipbert eval alone.jsonl --recipe NAME --split test",
    ),
    (
        "preview runs/qa/recipe.yaml",
        "MEDIA is runs/qa/recipe.yaml, a recipe",
        "clipbert preview --recipe runs/qa/recipe.yaml",
    ),
    (
        "preview table.csv",
        "MEDIA is table.csv, a file of annotations",
        "name a folder of media files or a store, or a split: clipbert preview --recipe NAME",
    ),
    ("preview a.mp4", "MEDIA is a.mp4, a media file", "clipbert preview ."),
    (
        "search a.mp4 'a dog' --run runs/search",
        "MEDIA is a.mp4, a media file",
        "clipbert search . 'a dog' --run runs/search",
    ),
    ("store ls txt_db/train.jsonl", "STORE is txt_db/train.jsonl, a file of annotations", "clipbert pack FOLDER STORE"),
    (
        "preview empty",
        "MEDIA is empty, an empty folder",
        "name a folder of media files or a store, or a split: clipbert preview --recipe NAME",
    ),
    ("eval preds.jsonl --recipe demo_qa --split val", "predictions of split test", "clipbert eval preds.jsonl"),
    ("eval runs/qa", "PREDS is runs/qa, a run", "clipbert infer --run runs/qa --split test -o preds.jsonl"),
    (
        "eval runs/search/best -r demo_qa --split val",
        "PREDS is runs/search/best, a checkpoint in the run runs/search",
        "clipbert infer --run runs/search/best --split val -o preds.jsonl",
    ),
    (
        "eval preds.jsonl --against runs/qa",
        "--against is runs/qa, a run",
        "clipbert infer --run runs/qa --split test -o preds.jsonl",
    ),
    (
        "eval vis_db -r demo_qa --split val",
        "PREDS is vis_db, a store",
        "clipbert infer --run RUN --split val -o preds.jsonl",
    ),
    (
        "eval a.mp4 --run runs/qa --split test",
        "PREDS is a.mp4, a media file",
        "clipbert infer --run runs/qa --split test -o preds.jsonl",
    ),
    (
        "report a.mp4 --run runs/qa --split test -o new.html",
        "PREDS is a.mp4, a media file",
        "clipbert infer --run runs/qa --split test -o preds.jsonl",
    ),
    ("eval images/test0000.jpg --recipe demo_mc --split val", "images/test0000.jpg", "clipbert infer"),
    (
        "eval nope.jsonl --run runs/qa",
        "PREDS is nope.jsonl, which does not exist",
        "clipbert infer --run runs/qa --split test -o nope.jsonl",
    ),
    (
        "report nope.jsonl -o new.html",
        "PREDS is nope.jsonl, which does not exist",
        "clipbert infer --run RUN --split SPLIT -o nope.jsonl",
    ),
    (
        "eval runs/qa --recipe demo_qa --split test",
        "PREDS is runs/qa, a run",
        "clipbert infer --run runs/qa --split test -o preds.jsonl",
    ),
    # What is given as predictions is examined before the data of the recipe, which are not there, and before the page.
    (
        "eval a.mp4 -r demo_qa --split test --data-root empty",
        "PREDS is a.mp4, a media file",
        "clipbert infer --run RUN --split test -o preds.jsonl",
    ),
    (
        "eval notes.txt -r demo_qa --split test --data-root empty",
        "PREDS is notes.txt, a file",
        "clipbert infer --run RUN --split test -o preds.jsonl",
    ),
    (
        "eval table.csv -r demo_mc --split test --data-root empty",
        "PREDS is table.csv, a file of annotations",
        "clipbert infer --run RUN --split test -o preds.jsonl",
    ),
    (
        "eval nope -r demo_qa --split test --data-root empty",
        "PREDS is nope, which does not exist",
        "clipbert infer --run RUN --split test -o nope",
    ),
    (
        "eval preds.jsonl --against a.mp4 --data-root empty",
        "--against is a.mp4, a media file",
        "clipbert infer --run RUN --split SPLIT -o preds.jsonl",
    ),
    (
        "report a.mp4 --run runs/qa --split test -o page.html",
        "PREDS is a.mp4, a media file",
        "clipbert infer --run runs/qa --split test -o preds.jsonl",
    ),
    (
        "report table.csv --run runs/qa --split test -o page.html",
        "PREDS is table.csv, a file of annotations",
        "clipbert infer --run runs/qa --split test -o preds.jsonl",
    ),
    (
        "report videos --run runs/qa --split test -o page.html",
        "PREDS is videos, a folder of media files",
        "clipbert infer --run runs/qa --split test -o preds.jsonl",
    ),
    (
        "report preds.jsonl --blind a.mp4 -o page.html",
        "--blind is a.mp4, a media file",
        "clipbert infer --run RUN --split SPLIT -o preds.jsonl",
    ),
    # Predictions of another task: the meta file beside them says which, or else no line fits.
    (
        "eval scores.jsonl --recipe demo_qa --split test",
        "split test, task retrieval, and not of test, task open_ended_qa",
        "clipbert eval scores.jsonl",
    ),
    (
        "eval preds.jsonl -r demo_retrieval --split test",
        "split test, task open_ended_qa, and not of test",
        "the recipe and the split of its own meta file",
    ),
    ("eval preds.jsonl --run runs/search", "open_ended_qa, and not of test, task", "clipbert eval preds.jsonl"),
    (
        "report scores.jsonl -r demo_qa --split test -o new.html",
        "test, task retrieval, and not",
        "clipbert report scores.j",
    ),
    ("eval alone.jsonl -r demo_retrieval --split test", "scores must be", "may be predictions of another task"),
    ("eval alone.jsonl -r demo_mc --split test", "alone.jsonl", "name the"),
    ("report alone.jsonl -r demo_retrieval --split test -o new.html", "scores must be", "of another task"),
    ("download msrvtt-qa", "did you mean msrvtt_qa", "clipbert assets ls"),
    ("download microsoft/xclip-base-patch32", "is not an asset", "a model of the Hugging Face Hub as hf:ORG/NAME"),
    ("download hf:me/model --to data", "--to data has no effect on models of the Hub", "HF_HOME=DIR clipbert download"),
    ("download hf:me/model --dry-run", "--dry-run has no effect on models of the Hub", "leave it out"),
    ("download hf:me/model --pack --json", "--pack --json has no effect", "HF_HOME=DIR clipbert download hf:me/model"),
    ("demo videos", "videos is not empty", "name another folder"),
    ("finetune -r demo_qa --run new --device gpu", "--device is 'gpu'", "cpu, cuda or cuda:N"),
    ("finetune -r demo_qa --run new --nproc-per-node gpu", "finds no GPU", "--nproc-per-node 2"),
    # Another kind of path for each command.
    ("download videos", "'videos' is not an asset, a part or a recipe; did you mean", "clipbert assets ls"),
    (
        "download runs/qa --to .",
        "'runs/qa' is not an asset, a part or a recipe",
        "clipbert assets ls; a folder is named with --to, and a model of the Hugging Face Hub as hf:ORG/NAME",
    ),
    ("download msrvtt_qa --to a.mp4", "--to is a.mp4, a media file", "name a folder, which need not exist"),
    (
        "download msrvtt_qa --to . --source nope",
        "--source nope: no such file or folder",
        "name the files that you downloaded",
    ),
    ("assets ls vis_db", "'vis_db' is not an asset, a part or a recipe", "clipbert assets ls"),
    ("assets convert msrvtt_qa a.mp4 new", "RAW_DIR is a.mp4, a media file", "name a folder that exists"),
    (
        "assets convert msrvtt_qa vis_db new",
        "vis_db: no file train_qa.json or qa_train.json or train.jsonl in this",
        "clipbert assets ls names the sources",
    ),
    ("pack runs/qa new", "SRC is runs/qa, a run", "name the folder that holds the media files"),
    ("pack preds.jsonl new", "SRC is preds.jsonl, a file of predictions", "name the folder that holds the media files"),
    ("pack table.csv new", "SRC is table.csv, a file of annotations", "name the folder that holds the media files"),
    (
        "pack runs/qa/recipe.yaml new",
        "SRC is runs/qa/recipe.yaml, a recipe",
        "name the folder that holds the media files",
    ),
    (
        "pack runs new",
        "SRC is runs, a folder with the runs runs/qa, runs/search",
        "name the folder that holds the media files",
    ),
    (
        "pack --add videos runs/qa",
        "STORE is runs/qa, a run",
        "check the name, or make a store: clipbert pack FOLDER STORE",
    ),
    (
        "pack --add videos a.mp4",
        "STORE is a.mp4, a media file",
        "check the name, or make a store: clipbert pack FOLDER STORE",
    ),
    (
        "pack --add videos nope",
        "STORE is nope, which does not exist",
        "check the name, or make a store: clipbert pack FOLDER STORE",
    ),
    (
        "store verify preds.jsonl",
        "STORE is preds.jsonl, a file of predictions",
        "check the name, or make a store: clipbert pack FOLDER STORE",
    ),
    ("store scan a.mp4", "STORE is a.mp4, a media file", "check the name, or make a store: clipbert pack FOLDER STORE"),
    (
        "store show videos test0000 -o a.png",
        "STORE is videos, a folder of media files",
        "check the name, or make a store: clipbert pack FOLDER STORE",
    ),
    (
        "store show videos/test0000.mp4 -o a.png",
        "STORE is videos/test0000.mp4, a media file",
        "check the name, or make a store: clipbert pack FOLDER STORE",
    ),
    (
        "store show runs test0000",
        "STORE is runs, a folder with the runs runs/qa, runs/search",
        "check the name, or make a store: clipbert pack FOLDER STORE",
    ),
    (
        "preview preds.jsonl",
        "MEDIA is preds.jsonl, a file of predictions",
        "name a folder of media files or a store, or a split: clipbert preview --recipe NAME",
    ),
    (
        "preview runs",
        "MEDIA is runs, a folder with the runs runs/qa, runs/search",
        "name a folder of media files or a store, or a split: clipbert preview --recipe NAME",
    ),
    ("preview -r runs/qa", "--recipe is runs/qa, a run", "clipbert preview -r runs/qa/recipe.yaml"),
    (
        "preview --recipe videos --split train",
        "--recipe is videos, a folder of media files",
        "clipbert recipes ls lists the shipped ones; your own begins with: clipbert recipes copy",
    ),
    (
        "preview --recipe txt_db --split train",
        "--recipe is txt_db, a folder",
        "clipbert recipes ls lists the shipped ones; your own begins with: clipbert recipes copy",
    ),
    (
        "preview --recipe demo_qa --split train --data-root vis_db",
        "nothing that the recipe names is in",
        "give the folder that holds these with --data-root DIR",
    ),
    (
        "pretrain -r runs/qa/best",
        "--recipe is runs/qa/best, a checkpoint in the run runs/qa",
        "clipbert pretrain -r runs/qa/recipe.yaml",
    ),
    (
        "finetune -r txt_db",
        "--recipe is txt_db, a folder",
        "clipbert recipes ls lists the shipped ones; your own begins with: clipbert recipes copy",
    ),
    (
        "finetune -r runs",
        "--recipe is runs, a folder with the runs runs/qa, runs/search",
        "clipbert finetune -r runs/qa/recipe.yaml",
    ),
    (
        "finetune -r runs/qa/checkpoints",
        "--recipe is runs/qa/checkpoints, a folder in the run runs/qa",
        "clipbert finetune -r runs/qa/recipe.yaml",
    ),
    (
        "finetune --run videos --resume",
        "--run is videos, a folder of media files",
        "runs ls FOLDER lists the runs in a folder; clipbert finetune makes one",
    ),
    (
        "finetune --run runs/qa/best --resume",
        "--run is runs/qa/best, a checkpoint in the run runs/qa",
        "clipbert finetune --run runs/qa --resume",
    ),
    ("finetune -r mine.yaml", "mine.yaml: no such recipe file", "clipbert recipes ls lists the shipped ones"),
    (
        "infer --run a.mp4 --split test",
        "--run is a.mp4, a media file",
        "runs ls FOLDER lists the runs in a folder; clipbert finetune makes one",
    ),
    (
        "infer --run preds.jsonl --split test",
        "--run is preds.jsonl, a file of predictions",
        "clipbert runs ls FOLDER lists the runs in a folder; clipbert finetune makes one",
    ),
    (
        "infer --run vis_db --split test",
        "--run is vis_db, a store",
        "runs ls FOLDER lists the runs in a folder; clipbert finetune makes one",
    ),
    (
        "infer --run runs/qa/recipe.yaml --split test",
        "--run is runs/qa/recipe.yaml, a recipe",
        "clipbert infer --run runs/qa --split test",
    ),
    (
        "infer --run runs/qa/model.safetensors --split test",
        "--run is runs/qa/model.safetensors, which does not exist",
        "runs ls FOLDER lists the runs in a folder; clipbert finetune makes one",
    ),
    (
        "infer --run runs/qa --split test -r videos",
        "--recipe is videos, a folder of media files",
        "clipbert recipes ls lists the shipped ones; your own begins with: clipbert recipes copy",
    ),
    (
        "infer --run runs/qa --split txt_db/test.jsonl",
        "recipe demo_qa has no split 'txt_db/test.jsonl'; it has train, val,",
        "name another split",
    ),
    (
        "infer --run runs/qa --split videos",
        "recipe demo_qa has no split 'videos'; it has train, val, test",
        "name another split, or add data.splits.videos to the recipe",
    ),
    (
        "infer --run https://huggingface.co/org/name --split test",
        "--run is https://huggingface.co/org/name, an address",
        "clipbert infer --run hf:org/name --split test",
    ),
    (
        "eval videos",
        "PREDS is videos, a folder of media files",
        "clipbert infer --run RUN --split SPLIT -o preds.jsonl",
    ),
    (
        "eval runs",
        "PREDS is runs, a folder with the runs runs/qa, runs/search",
        "clipbert infer --run RUN --split SPLIT -o preds.jsonl",
    ),
    (
        "eval runs/qa/metrics.jsonl",
        "PREDS is runs/qa/metrics.jsonl, a file of annotations",
        "clipbert infer --run runs/qa --split test -o preds.jsonl",
    ),
    ("eval preds.jsonl.meta.json", "PREDS is preds.jsonl.meta.json, a JSON file", "clipbert eval preds.jsonl"),
    (
        "eval preds.jsonl --run vis_db",
        "--run is vis_db, a store",
        "runs ls FOLDER lists the runs in a folder; clipbert finetune makes one",
    ),
    (
        "eval preds.jsonl --against txt_db/test.jsonl",
        "--against is txt_db/test.jsonl, a file of annotations",
        "clipbert infer --run RUN --split SPLIT -o preds.jsonl",
    ),
    ("eval empty", "PREDS is empty, an empty folder", "clipbert infer --run RUN --split SPLIT -o preds.jsonl"),
    (
        "eval runs/qa/answers.json",
        "PREDS is runs/qa/answers.json, a JSON file",
        "clipbert infer --run runs/qa --split test -o preds.jsonl",
    ),
    ("report runs/qa", "PREDS is runs/qa, a run", "clipbert report --run runs/qa"),
    (
        "report runs/search/best",
        "PREDS is runs/search/best, a checkpoint in the run runs/search",
        "clipbert infer --run runs/search/best --split test -o preds.jsonl",
    ),
    (
        "report preds.jsonl --run runs",
        "--run is runs, a folder with the runs runs/qa, runs/search",
        "clipbert report preds.jsonl --run runs/qa",
    ),
    (
        "report preds.jsonl --run runs/qa/best -o new.html",
        "--run is runs/qa/best, a checkpoint in the run runs/qa",
        "clipbert report preds.jsonl --run runs/qa -o new.html",
    ),
    (
        "report --run preds.jsonl",
        "--run is preds.jsonl, a file of predictions",
        "clipbert runs ls FOLDER lists the runs in a folder; clipbert finetune makes one",
    ),
    (
        "report --run vis_db",
        "--run is vis_db, a store",
        "runs ls FOLDER lists the runs in a folder; clipbert finetune makes one",
    ),
    (
        "report txt_db/test.jsonl --run runs/qa",
        "PREDS is txt_db/test.jsonl, a file of annotations",
        "clipbert infer --run runs/qa --split test -o preds.jsonl",
    ),
    (
        "report preds.jsonl --blind runs/qa",
        "--blind is runs/qa, a run",
        "--run runs/qa --split test -o preds.jsonl --set data.black_frames=true",
    ),
    (
        "ask --run runs --video a.mp4 'what is it?'",
        "--run is runs, a folder with the runs runs/qa, runs/search",
        "clipbert ask --run runs/qa --video a.mp4 'what is it?'",
    ),
    (
        "ask --run runs/qa --video preds.jsonl 'what is it?'",
        "--video is preds.jsonl, a file of predictions",
        "check the name; FOLDER/* stands for all files of a folder",
    ),
    (
        "ask --run runs/qa --video runs/qa/recipe.yaml 'what is it?'",
        "--video is runs/qa/recipe.yaml, a recipe",
        "check the name; FOLDER/* stands for all files of a folder",
    ),
    (
        "ask --run runs/qa --video txt_db/test.jsonl 'what is it?'",
        "--video is txt_db/test.jsonl, a file of annotations",
        "check the name; FOLDER/* stands for all files of a folder",
    ),
    (
        "ask --run runs/qa --video runs 'what is it?'",
        "--video is runs, a folder with the runs runs/qa, runs/search",
        "check the name; FOLDER/* stands for all files of a folder",
    ),
    (
        "ask --run runs/qa --questions a.mp4",
        "--questions is a.mp4, a media file",
        "name a file of JSON lines, or - for stdin",
    ),
    (
        "ask --run runs/qa --questions vis_db",
        "--questions is vis_db, a store",
        "name a file of JSON lines, or - for stdin",
    ),
    (
        "search preds.jsonl 'a dog' --run runs/search",
        "MEDIA is preds.jsonl, a file of predictions",
        "name the folder that holds the media files, or a store that clipbert pack made of it",
    ),
    (
        "search txt_db/test.jsonl 'a dog' --run runs/search",
        "MEDIA is txt_db/test.jsonl, a file of annotations",
        "clipbert pack made of it",
    ),
    (
        "search videos 'a dog' --run vis_db",
        "--run is vis_db, a store",
        "runs ls FOLDER lists the runs in a folder; clipbert finetune makes one",
    ),
    (
        "search runs 'a dog' --run runs/search",
        "MEDIA is runs, a folder with the runs runs/qa, runs/search",
        "name the folder that holds the media files, or a store that clipbert pack made of it",
    ),
    ("runs ls a.mp4", "FOLDER is a.mp4, a media file", "name a folder that exists"),
    (
        "runs export runs/qa/metrics.jsonl new",
        "RUN is runs/qa/metrics.jsonl, a file of annotations",
        "clipbert runs export runs/qa new",
    ),
    (
        "runs export vis_db new",
        "RUN is vis_db, a store",
        "runs ls FOLDER lists the runs in a folder; clipbert finetune makes one",
    ),
    (
        "runs export runs new",
        "RUN is runs, a folder with the runs runs/qa, runs/search",
        "clipbert runs export runs/qa new",
    ),
    (
        "runs export runs/qa/best new",
        "RUN is runs/qa/best, a checkpoint in the run runs/qa",
        "clipbert runs export runs/qa new --checkpoint step_2",
    ),
    (
        "runs push videos hf:me/x",
        "RUN is videos, a folder of media files",
        "runs ls FOLDER lists the runs in a folder; clipbert finetune makes one",
    ),
    (
        "recipes show txt_db/test.jsonl",
        "NAME|FILE is txt_db/test.jsonl, a file of annotations",
        "clipbert recipes copy NAME mine.yaml",
    ),
    (
        "recipes copy runs/qa mine.yaml",
        "NAME|FILE is runs/qa, a run",
        "clipbert recipes copy runs/qa/recipe.yaml mine.yaml",
    ),
    (
        "recipes copy videos mine.yaml",
        "NAME|FILE is videos, a folder of media files",
        "clipbert recipes ls lists the shipped ones; your own begins with: clipbert recipes copy",
    ),
    (
        "recipes validate runs",
        "NAME|FILE is runs, a folder with the runs runs/qa, runs/search",
        "clipbert recipes validate runs/qa/recipe.yaml",
    ),
    (
        "recipes answers txt_db/train.jsonl",
        "NAME|FILE is txt_db/train.jsonl, a file of annotations",
        "clipbert recipes copy NAME mine.yaml",
    ),
    ("recipes answers runs/qa", "NAME|FILE is runs/qa, a run", "clipbert recipes answers runs/qa/recipe.yaml"),
    (
        "recipes explain videos",
        "no setting or section is called 'videos'",
        "clipbert recipes explain lists all of them",
    ),
    (
        "recipes show runs/qa/best",
        "NAME|FILE is runs/qa/best, a checkpoint in the run runs/qa",
        "clipbert recipes show runs/qa/recipe.yaml",
    ),
    (
        "recipes show .",
        "NAME|FILE is ., a folder with the runs runs/qa, runs/search",
        "clipbert recipes show runs/qa/recipe.yaml",
    ),
    ("demo a.mp4", "FOLDER is a.mp4, a media file", "name a folder, which need not exist"),
    ("demo vis_db", "vis_db is not empty: it has files that no demo made", "name another folder"),
    ("demo runs/qa", "runs/qa is not empty: it has files that no demo made", "name another folder"),
    ("doctor videos", "videos: one word too many: clipbert doctor takes no arguments", "clipbert doctor"),
    (
        "finetune -r demo_qa --data-root a.mp4",
        "--data-root is a.mp4, a media file",
        "name a folder, which need not exist",
    ),
    (
        "finetune -r demo_qa --data-root vis_db",
        "nothing that the recipe names is in",
        "give the folder that holds these with --data-root DIR",
    ),
    (
        "finetune -r demo_qa --data-root runs/qa",
        "answers.json: no such answer vocabulary",
        "clipbert recipes answers, or check data.answers and --data-root",
    ),
    (
        "finetune -r demo_qa --run new --data-root . --set data.splits.train.media=runs/qa",
        "qa is a run",
        "clipbert pack made of it",
    ),
    (
        "finetune -r demo_qa --run new --data-root . --set data.splits.train.media=txt_db/train.jsonl",
        "train.jsonl is a file of annotations",
        "clipbert pack made of it",
    ),
    (
        "finetune -r demo_qa --run new --data-root . --set data.splits.train.annotations=videos",
        "videos is a folder: a regular file was expected",
        "check data.splits and data.root of the recipe, or give --data-root",
    ),
    (
        "finetune -r demo_qa --run new --data-root . --set data.splits.train.annotations=vis_db",
        "vis_db is a folder: a regular file was expected",
        "check data.splits and data.root of the recipe, or give --data-root",
    ),
    (
        "pretrain --ckpt x --epochs 3",
        "no such options: --ckpt, --epochs",
        "--set model.weights.checkpoint=x --set train.epochs=3 --recipe NAME",
    ),
    ("pretrain --epochs 3", "no such option: --epochs", "clipbert pretrain --set train.epochs=3 --recipe NAME"),
    (
        "eval --preds a --input b",
        "no such options: --preds, --input",
        "clipbert eval --help explains every argument and option",
    ),
    (
        "preview txt_db/test.jsonl",
        "MEDIA is txt_db/test.jsonl, a file of annotations",
        "name a folder of media files or a store, or a split: clipbert preview --recipe NAME",
    ),
    ("eval ''", "PREDS is empty", "give a value (is a variable unset?)"),
    ("pack '' new", "SRC is empty", "give a value (is a variable unset?)"),
    ("pack videos ''", "STORE is empty", "give a value (is a variable unset?)"),
    ("pack videos '' new", "SRC is empty", "give a value (is a variable unset?)"),
    ("ask --run runs/qa --video a.mp4 ''", "QUESTION is empty", "give a value (is a variable unset?)"),
    ("infer --run runs/qa --split ''", "--split is empty", "give a value (is a variable unset?)"),
    (
        "eval preds.jsonl --against scores.jsonl",
        "scores.jsonl: these are predictions of split test, task retrieval",
        "eval scores.jsonl uses the recipe and the split of its own meta file",
    ),
    (
        "infer --run runs/qa/best -o new.jsonl",
        "--split is missing: the run has train, val, test",
        "clipbert infer --run runs/qa/best -o new.jsonl --split test",
    ),
    (
        "report videos --run runs/qa --split val",
        "PREDS is videos, a folder of media files",
        "clipbert infer --run runs/qa --split val -o preds.jsonl",
    ),
    ("report vis_db", "PREDS is vis_db, a store", "clipbert infer --run RUN --split SPLIT -o preds.jsonl"),
    (
        "search videos 'a dog' --run runs/qa --top 3",
        "--run is runs/qa, a run of task open_ended_qa",
        "clipbert ask --run runs/qa --video FILE 'a dog'",
    ),
    ("index videos --run runs/qa", "no such command 'index'", "clipbert search videos --run runs/qa"),
]


@pytest.fixture(scope="module")
def world(trained_run: Path, retrieval_run: Path, made_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as it looks after the first day: data, two runs, predictions, a video and notes. Not to be changed."""
    folder = tmp_path_factory.mktemp("first") / "day"
    shutil.copytree(made_data, folder)
    shutil.copytree(trained_run, folder / "runs/qa", symlinks=True)
    shutil.copytree(retrieval_run, folder / "runs/search", symlinks=True)
    shutil.copy(folder / "videos/test0000.mp4", folder / "a.mp4")
    (folder / "notes.txt").write_text("mine\n")
    (folder / "page.html").write_text("mine\n")
    (folder / "table.csv").write_text("video_id,question,answer\ntest0000,what ?,red\n")
    (folder / "tabs.yaml").write_text("data:\n\troot: .\n")
    (folder / "empty").mkdir()
    return folder


@pytest.fixture(scope="module")
def predicted(clipbert: Clipbert, world: Path) -> Path:
    done = clipbert("infer", "--run", "runs/qa", "--split", "test", "-o", "preds.jsonl", cwd=world)
    assert done.returncode == 0, done.stderr
    done = clipbert("infer", "--run", "runs/search", "--split", "test", "-o", "scores.jsonl", cwd=world)
    assert done.returncode == 0, done.stderr
    # A copy without its meta file.
    shutil.copy(world / "preds.jsonl", world / "alone.jsonl")
    return world


@pytest.mark.parametrize(("command", "message", "leads_on"), MISTAKES, ids=[command for command, *_ in MISTAKES])
def test_the_answer_to_a_first_mistake_is_short_and_leads_on(
    clipbert: Clipbert, predicted: Path, monkeypatch: pytest.MonkeyPatch, command: str, message: str, leads_on: str
) -> None:
    monkeypatch.delenv("DATA", raising=False)
    before = sorted(predicted.rglob("*"))
    done = clipbert(*shlex.split(command), cwd=predicted, COLUMNS=str(COLUMNS))
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    shown = sum(-(-len(line) // COLUMNS) for line in done.stderr.splitlines())
    assert shown <= LINES, done.stderr
    said, _, following = " ".join(done.stderr.split()).partition(" next: ")
    # Something else at a typed path than is expected is a mistake of the command line.
    assert done.returncode == 2 or not said.endswith(" expected") or "--set data.splits" in command
    assert message in said
    # The hint may be in the message where it is a part of what is wrong, such as the nearest name.
    assert following
    assert leads_on in f"{said} {following}"
    assert sorted(predicted.rglob("*")) == before


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("store ls damaged", "store ls videos"),
        ("search damaged 'a dog' --run runs/search", "search table.csv 'a dog' --run runs/search"),
        (
            "eval torn.jsonl -r demo_qa --split test --data-root .",
            "eval table.csv -r demo_qa --split test --data-root .",
        ),
        ("infer --run broken --split test --data-root .", "infer --run videos --split test --data-root ."),
    ],
)
def test_what_is_damaged_fails_and_what_is_of_another_kind_is_wrong_usage(
    clipbert: Clipbert, predicted: Path, tmp_path: Path, right: str, wrong: str
) -> None:
    shutil.copytree(predicted, tmp_path / "day", symlinks=True)
    world = tmp_path / "day"
    (world / "damaged").mkdir()
    (world / "damaged/data.mdb").write_bytes(b"no LMDB" * 1000)
    (world / "torn.jsonl").write_text('{"media_id": "a", "text_digest": "b"\n')
    shutil.copytree(world / "runs/qa", world / "broken", symlinks=True)
    (world / "broken/metrics.jsonl").unlink()
    (world / "broken/metrics.jsonl").symlink_to("nowhere")
    for step in (world / "broken/checkpoints").iterdir():
        (step / "model.safetensors").write_bytes(b"cut")
    codes = [clipbert(*shlex.split(command), cwd=world).returncode for command in (right, wrong)]
    assert codes == [1, 2]


def test_scores_of_pairs_are_refused_where_answers_are_scored(clipbert: Clipbert, predicted: Path) -> None:
    words = ["infer", "--run", "runs/search", "--split", "test", "--format", "scores", "-o", "pairs"]
    assert clipbert(*words, cwd=predicted).returncode == 0
    for command in ("eval pairs -r demo_qa --split test --data-root .", "eval preds.jsonl --against pairs"):
        done = clipbert(*shlex.split(command), cwd=predicted)
        assert (done.returncode, done.stdout) == (1, "")
        assert "pairs has scores of every text with every media item" in " ".join(done.stderr.split())
    done = clipbert("eval", "pairs/scores.npy", "--run", "runs/search", "--split", "test", cwd=predicted)
    assert "next: clipbert eval pairs --run runs/search --split test" in done.stderr
    shutil.rmtree(predicted / "pairs")
